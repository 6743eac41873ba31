"""Which rows of a ledger count: the newest of each item, in batches and in the snapshot that holds those before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.ledger.parts import current_parts
from moderation.ledger.rows import KEY_BYTES, LEDGER_SCHEMA
from moderation.ledger.store import append, compact, open_log

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Night = dict[int, tuple[str, bool]]  # item -> the run that judged it, and whether it is gone since
nights = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 7), st.tuples(st.sampled_from(["one", "two"]), st.booleans()), min_size=1),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def key_of(item: int) -> bytes:
    """Of two items the first halves are alike."""
    return bytes([item // 2 * 60] * 8 + [item] * (KEY_BYTES - 8))


def rows(night: Night) -> pa.Table:
    told: list[dict[str, Any]] = [
        {"key": key_of(item), "version": 1, "content_key": 1, "attributes_key": 0, "item_id": f"item{item}",
         "uri": f"s3://b/{item}", "run_out": f"s3://b/{run}", "part": f"part{item % 2}", "format": "parquet",
         "judged_at": NOW, "deleted_at": NOW if gone else None}
        for item, (run, gone) in night.items()
    ]  # fmt: skip
    return pa.Table.from_pylist([{name: row.get(name) for name in LEDGER_SCHEMA.names} for row in told], LEDGER_SCHEMA)


@settings(max_examples=30, deadline=None)
@given(nights)
def test_the_newest_row_of_an_item_counts(told: list[tuple[Night, bool]]) -> None:
    ledger = f"memory://ledger-{abs(hash(str(told)))}"
    newest: Night = {}
    for number, (night, merged) in enumerate(told):
        append(ledger, f"2026010{number}-000000-0", [rows(night)])
        newest |= night
        if merged:
            compact(open_log(ledger))
    current = current_parts(ledger)
    found = {(item_id, part.run_out) for part in current.parts for item_id in part.item_ids.to_pylist()}
    assert found == {(f"item{item}", f"s3://b/{run}") for item, (run, gone) in newest.items() if not gone}
    assert current.deleted == sum(gone for _, gone in newest.values())
    assert all(len(set(part.item_ids.to_pylist())) == len(part.item_ids) > 0 for part in current.parts)
