"""The page of `moderation duplicates`: the largest groups with their members; pictures only where asked for."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderation import storage
from moderation.analysis.duplicates import Report
from moderation.analysis.previews import make_previews
from moderation.pages.render import render
from moderation.results.layout import PAGE_FILE, VERDICTS, duplicates_folder
from moderation.results.reader import StoredRun, open_run

MAX_GROUPS = 100  # on the page; the table holds all
MAX_MEMBERS = 12  # of a group
_MAX_PREVIEWS = 400  # 10 KB each
_COLUMNS = ("item_id", "uri", "verdict", "width", "height", "size_bytes")
_LINKED = ("http://", "https://")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """One group. members: cells of the table and of the verdicts, the head first; at most MAX_MEMBERS of `total`.

    spare_bytes: encoded size of this run's members without the head, as far as it is known. verdicts: of this run's.
    """

    group_id: str
    total: int
    spare_bytes: int
    verdicts: tuple[str, ...]
    members: tuple[Row, ...]


def write_duplicates_page(report: Report, out: str, *, previews: bool = False) -> str:
    """Write OUT/duplicates/index.html; returns its URI.

    previews: read the shown items again from their source, as small pictures that stay blurred until they are chosen.
    """
    run = open_run(out)
    groups = read_largest(report.uri)
    facts = _read_facts(run, {row["item_id"] for group in groups for row in group if row["run_out"] is None})
    copies = [_copies(group, facts) for group in groups]
    ours = [row["item_id"] for one in copies for row in one.members if row["run_out"] is None]
    shown = make_previews(out, ours[:_MAX_PREVIEWS]) if previews else {}
    page = storage.join(duplicates_folder(out), PAGE_FILE)
    storage.publish(
        page, render("duplicates.html", out=out, report=report, copies=copies, previews=shown, asked=previews).encode()
    )
    return page


def read_largest(uri: str, count: int = MAX_GROUPS) -> list[list[Row]]:
    """The rows of the largest groups of duplicates.parquet, the largest group first, its head first."""
    table = pq.read_table(io.BytesIO(storage.read_bytes(uri)))
    largest = [group_id for group_id, _ in Counter(table["group_id"].to_pylist()).most_common(count)]
    rank = {group_id: place for place, group_id in enumerate(largest)}
    rows = table.filter(pc.is_in(table["group_id"], pa.array(largest, table["group_id"].type))).to_pylist()
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row["group_id"])]
    return sorted(groups, key=lambda group: rank[group[0]["group_id"]])


def _read_facts(run: StoredRun, wanted: Set[str]) -> dict[str, Row]:
    """item_id -> what the verdicts say of it. Parts are read one by one, six columns of each."""
    facts: dict[str, Row] = {}
    ids = pa.array(sorted(wanted), pa.string())
    for shard_id in run.shard_ids if wanted else ():
        table = run.read_present(VERDICTS, shard_id, _COLUMNS)
        rows = table.filter(pc.is_in(table["item_id"].cast(pa.string()), ids))
        facts.update({row["item_id"]: row for row in rows.to_pylist()})
    return facts


def _copies(group: Sequence[Row], facts: Mapping[str, Row]) -> Copies:
    own = [facts[row["item_id"]] for row in group if row["run_out"] is None and row["item_id"] in facts]
    spare = [row for row in own if row["item_id"] != group[0]["head_item_id"]]
    return Copies(
        group_id=group[0]["group_id"],
        total=len(group),
        spare_bytes=sum(row["size_bytes"] or 0 for row in spare),
        verdicts=tuple(sorted({row["verdict"] for row in own if row["verdict"]})),
        members=tuple(_cells(row, facts) for row in group[:MAX_MEMBERS]),
    )


def _cells(row: Row, facts: Mapping[str, Row]) -> Row:
    known = facts.get(row["item_id"], {}) if row["run_out"] is None else {}
    uri = known.get("uri")
    link = uri if uri and uri.startswith(_LINKED) else None  # a browser opens no other kind
    return {**dict.fromkeys(_COLUMNS), **known, **row, "link": link}
