"""The rows of a run that an export takes, each with its item as it was planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.errors import UsageError
from moderation.planning.slices import find_slices, slice_home
from moderation.results.escalations import without_escalated
from moderation.results.layout import DUPLICATES_FILE, duplicates_uri
from moderation.results.planned import iterate_planned
from moderation.results.reader import StoredRun
from moderation.results.tables import decode_table
from moderation.types import Item, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSelection:
    """Which rows: of one verdict, or all; with or without the copies that `moderation duplicates` found.

    escalated: with the matches of illegal lists, for who counts them and hands nothing of them on.
    """

    verdict: Verdict | None = None
    minus_duplicates: bool = False
    escalated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedRow:
    """A row of the verdicts table as plain data, and its item; None where no plan has it (a verdict taken over)."""

    cells: Mapping[str, Any]
    item: Item | None

    @property
    def item_id(self) -> str:
        """The id of the row's item."""
        return str(self.cells["item_id"])

    @property
    def attributes(self) -> dict[str, str]:
        """What the source said of the item."""
        return dict(self.cells["attributes"] or ())


class PartSelection:
    """Which rows of a part are taken; counts what is left out."""

    def __init__(self, out: str, selection: RowSelection) -> None:
        self._verdict = selection.verdict
        self._with_escalated = selection.escalated
        self._copies = _read_copies(out) if selection.minus_duplicates else None
        self.rows = 0
        self.copies = 0
        self.escalated = 0

    def take(self, verdicts: pa.Table) -> pa.Table:
        """The rows of a part that are exported."""
        self.rows += verdicts.num_rows
        before = verdicts.num_rows
        if not self._with_escalated:
            verdicts = without_escalated(verdicts)
        self.escalated += before - verdicts.num_rows
        if self._verdict is not None:
            verdicts = verdicts.filter(pc.fill_null(pc.equal(verdicts["verdict"], str(self._verdict)), False))
        if self._copies is not None:
            before = verdicts.num_rows
            verdicts = verdicts.filter(pc.invert(pc.is_in(verdicts["item_id"], value_set=self._copies)))
            self.copies += before - verdicts.num_rows
        return verdicts


def _read_copies(out: str) -> pa.Array:
    """Ids of the items that are copies of the head of their group. Raises UsageError where nobody looked for copies."""
    data = storage.read_optional(duplicates_uri(out))
    if data is None:
        raise UsageError(f"{out}: no {DUPLICATES_FILE}; `moderation duplicates {out}` writes it")
    groups = decode_table(data, "parquet", ["item_id", "run_out", "relation"])
    own = groups.filter(pc.and_(pc.is_null(groups["run_out"]), pc.not_equal(groups["relation"], "head")))
    return own["item_id"].combine_chunks()


def read_selected_parts(run: StoredRun, taken: PartSelection) -> Iterator[tuple[str, pa.Table]]:
    """The selected rows, part by part, in the order of the parts' ids."""
    for shard_id in run.shard_ids:
        yield shard_id, taken.take(run.read_verdicts(shard_id))


def read_selected(run: StoredRun, taken: PartSelection) -> Iterator[Sequence[SelectedRow]]:
    """The selected rows with their items, shard by shard in the order of the plan; rows in no plan come last."""
    homes = [run.out, *(slice_home(run.out, part) for part in find_slices(run.out))]
    left = dict.fromkeys(run.shard_ids)
    for shard in iterate_planned(homes):
        if shard.shard_id in left:
            del left[shard.shard_id]
            items = {item.item_id: item for item in shard.items}
            yield _rows_of(taken.take(run.read_verdicts(shard.shard_id)), items)
    for shard_id in left:
        yield _rows_of(taken.take(run.read_verdicts(shard_id)), {})


def _rows_of(verdicts: pa.Table, items: Mapping[str, Item]) -> list[SelectedRow]:
    return [SelectedRow(cells=cells, item=items.get(cells["item_id"])) for cells in verdicts.to_pylist()]
