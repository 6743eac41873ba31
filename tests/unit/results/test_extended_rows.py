"""What an extension changes in verdicts, and how new verdicts take the place of the old ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pyarrow as pa
import pytest

from moderation import storage
from moderation.errors import FatalError
from moderation.results.extended_rows import extend_counts, extend_verdicts
from moderation.results.layout import part_uri, receipt_uri
from moderation.results.receipts import Receipt, commit_parts, read_receipt
from moderation.results.replaced import replace_verdicts
from moderation.results.schema import extension_items_schema, verdicts_schema, votes_schema

numbers = itertools.count()


def verdicts(**codes: str | None) -> pa.Table:
    rows = [
        {"item_id": name, "status": "ok" if code is None else "error", "error_code": code, "pdq": "old"}
        for name, code in codes.items()
    ]
    return pa.Table.from_pylist(rows, schema=verdicts_schema((), {}))


def items(**codes: str | None) -> pa.Table:
    rows = [{"item_id": name, "error_code": code, "error_detail": code and "why"} for name, code in codes.items()]
    return pa.Table.from_pylist(rows, schema=extension_items_schema({}))


def votes(rows: Sequence[tuple[str, str | None, bytes | None]] = ()) -> pa.Table:
    cells = [{"item_id": i, "frame": n, "role": role, "pdq.hash": own} for n, (i, role, own) in enumerate(rows)]
    sizes = {"pdq.hash": 2} if rows else {}
    return pa.Table.from_pylist(cells, schema=votes_schema((), sizes, {}, {}))


def test_items_that_could_not_be_scored_are_errors_and_others_stay_as_they_are() -> None:
    before = verdicts(fine=None, cut="truncated", moved=None, gone=None, once="changed")
    after = extend_verdicts(
        before, items(fine=None, cut=None, moved="changed", gone="not_found", once="changed"), votes()
    ).to_pylist()
    assert [(row["status"], row["error_code"], row["error_detail"]) for row in after] == [
        ("ok", None, None),
        ("error", "truncated", None),
        ("error", "changed", "why"),
        ("error", "not_found", "why"),
        ("error", "changed", None),  # an earlier extension said it, in words of its own
    ]
    assert [row["pdq"] for row in after] == ["old"] * 5


def test_hashes_are_those_of_the_middle_frames() -> None:
    joined = votes(
        [("a", None, b"\x01\x01"), ("a", "frame", b"\x02\x02"), ("a", "tile", b"\x09\x09"), ("b", "frame", None)]
    )
    after = extend_verdicts(verdicts(a=None, b=None, c=None), items(), joined)
    assert after["pdq"].to_pylist() == ["0202", None, "old"]


def test_counters_have_the_new_detectors_and_the_errors_of_the_rows() -> None:
    before = {"status:ok": 2, "asked:tiny": 7, "frames": 7, "verdict:pass": 2, "kind:image": 2}
    added = Receipt(
        shard_id="s",
        rows_in=2,
        rows={},
        sha256={},
        counts={"asked:skin": 3, "frames": 5, "status:ok": 1, "status:error": 1},
    )
    assert extend_counts(before, verdicts(a=None, b="changed"), added) == {
        "asked:tiny": 7, "asked:skin": 3, "frames": 7, "verdict:pass": 2, "kind:image": 2, "status:ok": 1,
        "status:error": 1, "error:changed": 1,
    }  # fmt: skip
    assert extend_counts(before, verdicts(a=None, b=None), None) == {**before, "status:ok": 2}


@pytest.fixture
def out() -> str:
    """A run of two shards, and new verdicts that wait in OUT/staged."""
    base = f"memory://replaced-{next(numbers)}"
    for shard in ("a", "b"):
        facts = {"counts": {"asked:tiny": 1}, "seconds": {"score": 2.0}}
        parts = {"verdicts": b"old", "votes": b"votes"}
        commit_parts(
            base, shard, items=1, parts=parts, rows={"verdicts": 1, "votes": 4}, format_="parquet", facts=facts
        )
        counts = {"verdict:block": 1, "moved:pass:block": 1}
        commit_parts(
            f"{base}/staged", shard, items=1, parts={"verdicts": shard.encode()}, rows={"verdicts": 1},
            format_="parquet", facts={"counts": counts},
        )  # fmt: skip
    return base


def test_verdicts_are_replaced_and_votes_stay(out: str) -> None:
    assert replace_verdicts(out, f"{out}/staged", ["a", "b"], "parquet") == {"pass:block": 2}
    assert storage.read_bytes(part_uri(out, "verdicts", "a", "parquet")) == b"a"
    receipt = read_receipt(out, "a")
    assert receipt is not None
    assert receipt.rows == {"verdicts": 1, "votes": 4}
    assert receipt.counts == {"verdict:block": 1}
    assert receipt.seconds == {"score": 2.0}
    # Again, as after a kill between a part and its receipt.
    storage.publish(part_uri(out, "verdicts", "b", "parquet"), b"half")
    assert replace_verdicts(out, f"{out}/staged", ["a", "b"], "parquet") == {"pass:block": 2}
    assert storage.read_bytes(part_uri(out, "verdicts", "b", "parquet")) == b"b"


@pytest.mark.parametrize("lost", ["receipt", "part", "changed part", "own receipt"])
def test_what_is_not_as_it_was_judged_replaces_nothing(out: str, lost: str) -> None:
    staged = f"{out}/staged"
    if lost == "changed part":
        storage.publish(part_uri(staged, "verdicts", "a", "parquet"), b"other")
    else:
        storage.delete_tree(
            {
                "receipt": receipt_uri(staged, "a"),
                "part": part_uri(staged, "verdicts", "a", "parquet"),
                "own receipt": receipt_uri(out, "a"),
            }[lost]
        )
    with pytest.raises(FatalError, match="not there as it was judged"):
        replace_verdicts(out, staged, ["a"], "parquet")
    assert storage.read_bytes(part_uri(out, "verdicts", "a", "parquet")) == b"old"
