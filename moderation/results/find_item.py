"""Find an item of a run by its id, the start of its id, its URI, or the end of its URI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.pages.text import plain
from moderation.results.layout import VERDICTS, part_uri
from moderation.results.reader import READERS, StoredRun, read_present

_COLUMNS: Final = ("item_id", "uri")
_SHOWN: Final = 5
# Names kept as hints for a name that fits no item; a thousand are plenty.
_HINTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPlace:
    """An item and the part that holds it. rank: what fits: 0 id, 1 URI, 2 a whole name at the URI's end, 3 a piece."""

    shard_id: str
    item_id: str
    uri: str
    rank: int


def find_item(run: StoredRun, wanted: str) -> ItemPlace:
    """The one item that `wanted` names. Two columns of every part are read.

    Raises UsageError where none fits, with the nearest names, or where several fit equally well, naming some.
    """
    wanted = wanted.removeprefix("./")
    if not wanted:
        raise UsageError("ITEM is empty: an item's id, the start of it, its URI, or the end of that")
    with ThreadPoolExecutor(READERS) as pool:
        places = list(chain.from_iterable(pool.map(lambda shard_id: _matches(run, shard_id, wanted), run.shard_ids)))
    if not places:
        raise UsageError(f"{run.out}: no item {plain(wanted)!r} there{_hint(run, wanted)}")
    rank = min(place.rank for place in places)
    fitting = [place for place in places if place.rank == rank]
    if len(fitting) > 1:
        shown = "\n".join(f"  {plain(place.item_id)}  {plain(place.uri)}" for place in fitting[:_SHOWN])
        raise UsageError(f"{run.out}: {len(fitting):,} items are meant by {plain(wanted)!r}, such as\n{shown}")
    return fitting[0]


def _matches(run: StoredRun, shard_id: str, wanted: str) -> list[ItemPlace]:
    table = _read_names(run, shard_id)
    ids, uris = table["item_id"], table["uri"]
    ranked = (
        pc.equal(ids, wanted),
        pc.equal(uris, wanted),
        pc.or_(pc.ends_with(uris, "/" + wanted.lstrip("/")), pc.ends_with(uris, "#" + wanted.lstrip("#"))),
        pc.or_(pc.starts_with(ids, wanted), pc.ends_with(uris, wanted)),
    )
    for rank, mask in enumerate(ranked):
        rows = table.filter(mask).to_pylist()
        if rows:
            return [ItemPlace(shard_id=shard_id, item_id=r["item_id"], uri=r["uri"], rank=rank) for r in rows[:_HINTS]]
    return []


def _hint(run: StoredRun, wanted: str) -> str:
    names = list(dict.fromkeys(_last_names(_read_names(run, run.shard_ids[0])["uri"].to_pylist()[:_HINTS])))
    return did_you_mean(wanted.rpartition("/")[2], names, otherwise="it holds, among others", cutoff=0.6)[:500]


def _last_names(uris: Sequence[str]) -> Iterator[str]:
    return (plain(uri.rpartition("/")[2]) for uri in uris)


def _read_names(run: StoredRun, shard_id: str) -> pa.Table:
    """The two columns of a part. Raises UsageError where it lacks one, or has it as another type."""
    uri = part_uri(run.out, VERDICTS, shard_id, run.format)
    names = read_present(uri, run.format, _COLUMNS)
    for column in _COLUMNS:
        if column not in names.column_names:
            raise UsageError(f"{uri}: has no column {column}")
        if names.schema.field(column).type != pa.string():
            raise UsageError(f"{uri}: column {column} is {names.schema.field(column).type}, not string")
    return names
