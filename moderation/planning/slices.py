"""A slice of a run: one N-th of its shards, so that several jobs share one backfill without coordination.

A shard's slice is a function of its id alone. The tables of all slices go to one OUT: names are content hashes, so the
parts are those of an unsliced run. A slice's own files lie in `OUT/slices/3-of-8/`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import UsageError
from moderation.planning.names import listing_uri, slices_folder
from moderation.types import Shard

# A status reads a few files of each slice.
MAX_SLICES = 1000
_FOLDER = re.compile(r"([1-9][0-9]{0,3})-of-([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Slice:
    """Slice `index` (from 1) of `count`."""

    count: int
    index: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, shard_id: str) -> bool:
        """Whether a shard belongs to this slice: by the first 32 bits of its id, a hash, so slices are about equal."""
        return int(shard_id[:8], 16) % self.count == self.index - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceListing:
    """What a slice's listing saw of the whole source, to check that slices belong to the same run.

    digest: sha256 over the ids of all shards in order. positions: of this slice's shards among them.
    """

    shards: int
    items: int
    size_bytes: int
    digest: str
    positions: tuple[int, ...]


def parse_slice(text: str) -> Slice:
    """Parse `3/8` as the third of eight. Raises UsageError."""
    index, slash, count = text.partition("/")
    if not slash or not index.strip().isdecimal() or not count.strip().isdecimal():
        raise UsageError(f"slice {text!r}: expected which of how many, for example 3/8")
    parsed = Slice(index=int(index), count=int(count))
    if not 1 <= parsed.index <= parsed.count <= MAX_SLICES:
        raise UsageError(f"slice {text!r}: expected 1/N to N/N, with N at most {MAX_SLICES}")
    return parsed


def slice_home(out: str, slice_: Slice) -> str:
    """The folder of a slice's own plan, state and summary."""
    return storage.join(slices_folder(out), f"{slice_.index}-of-{slice_.count}")


def find_slices(out: str) -> list[Slice]:
    """The slices that have written anything to OUT, by count and index; one listing."""
    top = slices_folder(storage.canonical(out).rstrip("/"))
    slices: set[Slice] = set()
    try:
        for info in storage.list_objects(top):
            name = _FOLDER.fullmatch(info.uri.removeprefix(top).strip("/").partition("/")[0])
            if name is not None:
                slices.add(Slice(index=int(name[1]), count=int(name[2])))
    except FileNotFoundError:
        return []
    return sorted(slices)


def take_slice(shards: Iterable[Shard], slice_: Slice, home: str) -> Iterator[Shard]:
    """The shards of one slice; after the last one, `listing.json` is published."""
    digest = hashlib.sha256()
    positions: list[int] = []
    count = items = size = 0
    for position, shard in enumerate(shards):
        digest.update(shard.shard_id.encode("ascii"))
        count, items, size = count + 1, items + len(shard.items), size + shard.size_bytes
        if slice_.holds(shard.shard_id):
            positions.append(position)
            yield shard
    record = {
        "shards": count,
        "items": items,
        "size_bytes": size,
        "digest": digest.hexdigest(),
        "positions": positions,
    }
    storage.publish(listing_uri(home), json.dumps(record).encode())


def read_listing(home: str) -> SliceListing | None:
    """What a slice's listing saw; None until it ends. Raises UsageError for a file that is not ours."""
    data = storage.read_optional(listing_uri(home))
    if data is None:
        return None
    try:
        record = parse_json(data)
        return SliceListing(**{**record, "positions": tuple(record["positions"])})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{listing_uri(home)}: not readable") from error
