"""Verdicts with their groups: a derived table beside the parts of a run, which are never touched.

OUT/verdicts_grouped/part-<shard>.parquet   the rows of the part of that name, `group_id` filled
OUT/verdicts_grouped/grouped.json           the origin of the table; written last: without it the table does not count
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.errors import UsageError
from moderation.results.layout import DUPLICATES_FILE, GROUPED_FOLDER, duplicates_uri, grouped_uri, part_uri
from moderation.results.reader import open_run
from moderation.results.tables import decode_table, encode_table
from moderation.types import Status, Verdict

Members = Literal["alone", "inherit"]
MEMBERS: Final = ("alone", "inherit")
_HARSHNESS: Final = {str(Verdict.PASS): 0, str(Verdict.REVIEW): 1, str(Verdict.BLOCK): 2}
# Columns that explain a row's own verdict; they would be wrong for an inherited one.
_OWN: Final = ("check", "score", "confidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written. inherited: rows with the verdict of their head instead of their own."""

    uri: str
    rows: int
    grouped: int
    inherited: int


def write_grouped(out: str, *, members: Members = "alone") -> Written:
    """The verdicts of a run with the groups of OUT/duplicates.parquet in `group_id`.

    A row in no group keeps its `group_id` (the `group` of its manifest). members: `alone` leaves verdicts as they are;
    `inherit` gives a member the verdict of its head where that is harsher, with the reason `duplicate:<item of the
    head>`; never a milder one, because what was added to a copy, such as a caption, may be what is forbidden.
    Raises UsageError when there are no groups.
    """
    data = storage.read_optional(duplicates_uri(out))
    if data is None:
        raise UsageError(f"{out}: no {DUPLICATES_FILE}; `moderation duplicates {out}` writes it")
    run = open_run(out)
    output = run.load_config().output
    groups = decode_table(data, "parquet", where=duplicates_uri(out))
    groups = groups.filter(pc.is_null(groups["run_out"])).combine_chunks()
    storage.delete_tree(grouped_uri(out))
    rows = grouped = inherited = 0
    for shard_id in run.shard_ids:
        verdicts = run.read_verdicts(shard_id)
        memberships = groups.take(pc.index_in(verdicts["item_id"], value_set=groups["item_id"].combine_chunks()))
        table = _with_groups(verdicts, memberships)
        if members == "inherit":
            table, count = _with_heads_verdicts(table, memberships)
            inherited += count
        storage.publish(part_uri(out, GROUPED_FOLDER, shard_id, run.format), encode_table(table, output))
        rows += table.num_rows
        grouped += len(memberships) - memberships["group_id"].null_count
    record: Mapping[str, Any] = {
        "run_id": run.run_id,
        "members": members,
        "rows": rows,
        "grouped": grouped,
        "inherited": inherited,
    }
    storage.publish(grouped_uri(out), json.dumps(record, indent=1, sort_keys=True).encode())
    return Written(uri=storage.join(out, GROUPED_FOLDER), rows=rows, grouped=grouped, inherited=inherited)


def _with_groups(verdicts: pa.Table, memberships: pa.Table) -> pa.Table:
    at = verdicts.schema.get_field_index("group_id")
    filled = pc.coalesce(memberships["group_id"], verdicts["group_id"])
    return verdicts.set_column(at, verdicts.schema.field(at), filled)


def _with_heads_verdicts(verdicts: pa.Table, memberships: pa.Table) -> tuple[pa.Table, int]:
    cells = zip(
        verdicts["verdict"].to_pylist(),
        verdicts["status"].to_pylist(),
        memberships["relation"].to_pylist(),
        memberships["head_verdict"].to_pylist(),
        strict=True,
    )
    harsher = [
        status == Status.OK
        and relation not in (None, "head")
        and _HARSHNESS.get(theirs or "", -1) > _HARSHNESS.get(own or "", -1)
        for own, status, relation, theirs in cells
    ]
    mask = pa.array(harsher, pa.bool_())
    reasons = pc.binary_join_element_wise("duplicate", memberships["head_item_id"], ":")
    replaced: dict[str, pa.ChunkedArray | pa.Scalar] = {"verdict": memberships["head_verdict"], "reason": reasons}
    for name in (*replaced, *_OWN):
        at = verdicts.schema.get_field_index(name)
        field = verdicts.schema.field(at)
        new = replaced.get(name, pa.scalar(None, field.type))
        verdicts = verdicts.set_column(at, field, pc.if_else(mask, new, verdicts[name]))
    return verdicts, sum(harsher)
