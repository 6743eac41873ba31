"""What a night's listing yields besides items to judge, as files in its output: a resumed night reads them.

OUT/<night>/night/copies-00000.parquet  items that take over a verdict, each with its origin
OUT/<night>/night/marks.parquet         keys of ledger items that have gone or come back
OUT/<night>/night/listing.json          the counts; written last
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import FatalError
from moderation.ledger.difference import Origin
from moderation.planning.schema import PLAN_SCHEMA
from moderation.planning.shards import shards_from_table, shards_to_table
from moderation.results.layout import night_uri
from moderation.types import Item, Shard

_CHUNK_ROWS = 20_000  # a few MB; one chunk is held as items
_ORIGIN = pa.schema(
    [
        ("run_out", pa.string()),
        ("part", pa.string()),
        ("format", pa.string()),
        ("item_id", pa.string()),
        ("judge", pa.bool_()),
    ]
)


class Spool:
    """`SetAside` as files in a night's output: chunks of copies, the marks, and last `listing.json` with the counts."""

    def __init__(self, out: str) -> None:
        self._out = out
        self._chunks = 0
        self._held: list[tuple[Item, Origin]] = []

    def copies(self, copies: list[tuple[Item, Origin]]) -> None:
        """Add copies; publish a chunk when enough are held."""
        self._held += copies
        if len(self._held) >= _CHUNK_ROWS:
            self._publish()

    def close(self, counts: Counter[str], marks: pa.Table) -> None:
        """Publish all."""
        if self._held:
            self._publish()
        storage.publish(marks_uri(self._out), _parquet(marks))
        record = {"copy_chunks": self._chunks, "counts": dict(sorted(counts.items()))}
        storage.publish(night_uri(self._out, "listing.json"), json.dumps(record, indent=1).encode())

    def _publish(self) -> None:
        storage.publish(copies_uri(self._out, self._chunks), encode_copies(self._held))
        self._chunks, self._held = self._chunks + 1, []


@dataclass(frozen=True, slots=True, kw_only=True)
class NightListing:
    """The record of a finished listing."""

    copy_chunks: int
    counts: dict[str, int]


def read_listing(out: str) -> NightListing | None:
    """The record of a night's listing; None while it has not ended. Raises FatalError for a file that is not ours."""
    data = storage.read_optional(night_uri(out, "listing.json"))
    if data is None:
        return None
    try:
        record = parse_json(data)
        chunks, counts = record["copy_chunks"], record["counts"]
        if type(chunks) is int and all(type(n) is int for n in counts.values()):
            return NightListing(copy_chunks=chunks, counts={str(name): n for name, n in counts.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FatalError(f"{night_uri(out, 'listing.json')} is not readable: {error}") from error
    raise FatalError(f"{night_uri(out, 'listing.json')} is not readable: other types than ours")


def copies_uri(out: str, chunk: int) -> str:
    """The URI of one chunk of copies."""
    return night_uri(out, f"copies-{chunk:05d}.parquet")


def marks_uri(out: str) -> str:
    """The URI of the keys that have gone or come back."""
    return night_uri(out, "marks.parquet")


def read_copies(out: str, listing: NightListing) -> Iterator[list[tuple[Item, Origin]]]:
    """Read the items that take over a verdict, each with its origin, one chunk at a time."""
    for chunk in range(listing.copy_chunks):
        yield decode_copies(storage.read_bytes(copies_uri(out, chunk)))


def read_marks(out: str) -> pa.Table:
    """Read the keys that have gone (`deleted`) or come back."""
    return pq.read_table(pa.BufferReader(storage.read_bytes(marks_uri(out))))


def encode_copies(copies: list[tuple[Item, Origin]]) -> bytes:
    """Copies as a Parquet file: the columns of a plan and `origin.*`, sorted by their origins' parts.

    Sorted so that a part of an earlier night is read once for all its copies.
    """
    ordered = sorted(copies, key=lambda c: (c[1].run_out, c[1].part))
    table = shards_to_table([Shard(shard_id="", items=tuple(item for item, _ in ordered))])
    origins = pa.Table.from_pylist([asdict(origin) for _, origin in ordered], schema=_ORIGIN)
    for name in _ORIGIN.names:
        table = table.append_column(f"origin.{name}", origins[name])
    return _parquet(table)


def decode_copies(data: bytes) -> list[tuple[Item, Origin]]:
    """Decode what `encode_copies` wrote."""
    table = pq.read_table(pa.BufferReader(data))
    items = [item for shard in shards_from_table(table.select(PLAN_SCHEMA.names)) for item in shard.items]
    # A night that an older version began has no `judge`.
    names = [name for name in _ORIGIN.names if f"origin.{name}" in table.column_names]
    origins = table.select([f"origin.{name}" for name in names]).rename_columns(names).to_pylist()
    return [(item, Origin(**origin)) for item, origin in zip(items, origins, strict=True)]


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
