"""The log of the ledger: one batch of Parquet files per night, merged into one sorted snapshot from time to time.

    LEDGER/head.json                  names the current snapshot; one object write commits a new one
    LEDGER/snapshots/<n>/00000.parquet  rows sorted by key, keys unique, files in key order
    LEDGER/entries/<night>.json       commits a night: names its files and their rows
    LEDGER/entries/<night>/00000.parquet  rows sorted by key within the file

A batch counts once its JSON exists. Files are never changed. A batch is deleted only when a later compaction replaces
the snapshot that holds it, so a reader of the previous head still finds its files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moderation import storage
from moderation.errors import FatalError
from moderation.ledger.records import LogFile, LogHead, parse_entry, parse_head
from moderation.ledger.rows import KEY_BYTES, LATER_COLUMNS, LEDGER_SCHEMA, UNKNOWN, newest, table_keys

FILE_ROWS = 200_000  # per file: about 60 MB as Arrow
GROUP_ROWS = 50_000
# More batches than this are merged; sooner when they hold more than half as many rows as the snapshot. Rows outside the
# snapshot are sorted in memory each night.
MAX_BATCHES = 16
SMALL_ROWS = 100_000
_ZSTD_LEVEL = 3
_NEVER_NULL = ("key", "version", "content_key", "attributes_key")
# String columns with few different values: read as dictionaries, so that ten million rows take no memory.
_DICTIONARY_COLUMNS = (
    "verdict",
    "status",
    "error_code",
    "source",
    "run_out",
    "format",
    "stack_fingerprint",
    "policy_hash",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The current state: batches of the last nights (oldest first), and the snapshot of all nights before."""

    ledger: str
    generation: int = 0
    snapshot: tuple[LogFile, ...] = ()
    compacted: tuple[str, ...] = ()  # batches that still exist although the snapshot holds them
    batches: Mapping[str, tuple[LogFile, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all files; a key may have several rows."""
        return sum(f.rows for f in self.snapshot) + self.batch_rows

    @property
    def batch_rows(self) -> int:
        """Rows outside the snapshot."""
        return sum(f.rows for files in self.batches.values() for f in files)

    @property
    def newest_first(self) -> list[LogFile]:
        """Files in the order in which the first row of a key counts."""
        recent = [f for files in reversed(list(self.batches.values())) for f in reversed(files)]
        return recent + list(self.snapshot)


def open_log(ledger: str) -> Log:
    """The ledger as it is now; an empty one where nothing exists.

    Raises FatalError when its files are not readable as a ledger, StorageError.
    """
    data = storage.read_optional(storage.join(ledger, "head.json"))
    head = parse_head(data) if data is not None else LogHead()
    listed = _batch_names(ledger)
    compacted = tuple(name for name in head.compacted if name in listed)
    batches = {}
    for name in sorted(listed - set(compacted)):
        where = f"entries/{name}.json"
        batches[name] = parse_entry(storage.read_bytes(storage.join(ledger, where)), where)
    return Log(
        ledger=ledger,
        generation=head.generation,
        snapshot=head.snapshot,
        compacted=compacted,
        batches=batches,
    )


def is_entered(ledger: str, batch: str) -> bool:
    """Whether a batch is in the ledger, merged or not."""
    log = open_log(ledger)
    return batch in log.batches or batch in log.compacted


def append(ledger: str, batch: str, tables: Iterable[pa.Table]) -> int:
    """Add a batch of rows (later tables override earlier ones), all or nothing. Returns the number of rows.

    batch: a name that sorts after all before it, such as a date. Without rows nothing is written.
    """
    files: list[LogFile] = []
    for index, table in enumerate(_in_files(tables)):
        name = f"entries/{batch}/{index:05d}.parquet"
        storage.publish(storage.join(ledger, name), encode(table))
        files.append(LogFile(name=name, rows=table.num_rows))
    if files:
        text = json.dumps({"files": [asdict(f) for f in files]}, indent=1)
        storage.publish(storage.join(ledger, "entries", f"{batch}.json"), text.encode())
    return sum(f.rows for f in files)


def should_compact(log: Log) -> bool:
    """Whether there are too many batches or too many rows in them."""
    snapshot_rows = log.rows - log.batch_rows
    return len(log.batches) > MAX_BATCHES or log.batch_rows > max(SMALL_ROWS, snapshot_rows // 2)


def compact(log: Log) -> Log:
    """Merge all batches into a new snapshot with the newest row of each key. Memory is bounded: one file at a time."""
    generation = log.generation + 1
    files = _write_snapshot(log, generation)
    # Includes batches that an earlier compaction could not delete: they would come back as the newest.
    compacted = sorted({*log.batches, *log.compacted})
    head = {"generation": generation, "snapshot": [asdict(f) for f in files], "compacted": compacted}
    storage.publish(storage.join(log.ledger, "head.json"), json.dumps(head, indent=1).encode())
    _delete_replaced(log)
    return Log(ledger=log.ledger, generation=generation, snapshot=tuple(files), compacted=tuple(compacted))


def _write_snapshot(log: Log, generation: int) -> list[LogFile]:
    files: list[LogFile] = []
    with ExitStack() as stack:
        readers = [stack.enter_context(LogFileReader(log.ledger, f)) for f in log.newest_first]
        count = max(1, -(-log.rows // FILE_ROWS))
        # Keys are hashes: equal ranges of keys hold about equally many rows.
        bounds = [(nth << 64) // count for nth in range(count + 1)]
        for low, high in pairwise(bounds):
            tables = [reader.select_range(low, high) for reader in readers]
            table = newest(pa.concat_tables([LEDGER_SCHEMA.empty_table(), *tables]))
            name = f"snapshots/{generation:06d}/{len(files):05d}.parquet"
            if table.num_rows:
                storage.publish(storage.join(log.ledger, name), encode(table))
                files.append(LogFile(name=name, rows=table.num_rows))
    return files


def _delete_replaced(log: Log) -> None:
    """Delete what the previous head had replaced."""
    for name in log.compacted:
        storage.delete_tree(storage.join(log.ledger, "entries", f"{name}.json"))
        storage.delete_tree(storage.join(log.ledger, "entries", name))
    if log.generation > 1:
        storage.delete_tree(storage.join(log.ledger, "snapshots", f"{log.generation - 1:06d}"))


def read_file(ledger: str, file: LogFile, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read columns of one file, one row group at a time."""
    with LogFileReader(ledger, file) as reader:
        for group in range(reader.groups):
            yield reader.read_group(group, columns)


def find_rows(log: Log, column: str, wanted: Callable[[pa.Table], npt.NDArray[np.bool_]]) -> Iterator[pa.Table]:
    """The rows that `wanted` selects by one column, newest files first.

    Of a row group without such rows only that column is read.
    """
    for file in log.newest_first:
        with LogFileReader(log.ledger, file) as reader:
            for group in range(reader.groups):
                selected = wanted(reader.read_group(group, [column]))
                if selected.any():
                    table = reader.read_group(group, LEDGER_SCHEMA.names)
                    yield table.filter(pa.array(selected)).cast(LEDGER_SCHEMA)


def encode(table: pa.Table) -> bytes:
    """A table of `LEDGER_SCHEMA` as a Parquet file, in small row groups."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=_ZSTD_LEVEL, row_group_size=GROUP_ROWS)
    return sink.getvalue()


class LogFileReader:
    """An open Parquet file of the ledger; row groups without a key in the wanted range are not read."""

    def __init__(self, ledger: str, file: LogFile) -> None:
        """Raises FatalError where the file is missing, is not a ledger's, or has another row count than its entry."""
        self._name = file.name
        try:
            self._stream = storage.open_input(storage.join(ledger, file.name))
            self._file = pq.ParquetFile(self._stream, read_dictionary=list(_DICTIONARY_COLUMNS))
        except (FileNotFoundError, KeyError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        self.groups = self._file.num_row_groups
        if not _is_ours(self._file.schema_arrow) or self._file.metadata.num_rows != file.rows:
            self._stream.close()
            raise self._unreadable("other columns or another number of rows than those of a ledger")

    def _unreadable(self, why: object) -> FatalError:
        return FatalError(f"the ledger's {self._name} is not readable: {' '.join(str(why).split())[:200]}")

    def __enter__(self) -> LogFileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read_group(self, index: int, columns: Sequence[str]) -> pa.Table:
        there = self._file.schema_arrow.names
        try:
            table = self._file.read_row_group(index, columns=[name for name in columns if name in there])
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            raise self._unreadable(error) from error
        if any(table[name].null_count for name in _NEVER_NULL if name in table.column_names):
            raise self._unreadable("a row without a key, a version or a content")
        for name in columns:
            if name not in there:
                unknown = pa.array(np.full(table.num_rows, UNKNOWN, np.uint64))
                table = table.append_column(LEDGER_SCHEMA.field(name), unknown)
        return table.select(list(columns))

    def select_range(self, low: int, high: int) -> pa.Table:
        """Rows whose key has its high half in [low, high)."""
        column = LEDGER_SCHEMA.get_field_index("key")
        tables = []
        for index in range(self.groups):
            stats = self._file.metadata.row_group(index).column(column).statistics
            if stats is not None and stats.has_min_max and not _overlaps(stats.min, stats.max, low, high):
                continue
            table = self.read_group(index, LEDGER_SCHEMA.names)
            keys, _ = table_keys(table)
            within = (keys >= np.uint64(low)) & (keys <= np.uint64(high - 1))
            tables.append(table.filter(pa.array(within)).cast(LEDGER_SCHEMA))
        return pa.concat_tables(tables) if tables else LEDGER_SCHEMA.empty_table()


def _overlaps(min_key: bytes, max_key: bytes, low: int, high: int) -> bool:
    half = KEY_BYTES // 2
    return int.from_bytes(max_key[:half], "big") >= low and int.from_bytes(min_key[:half], "big") < high


def _in_files(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Gather tables into files of a bounded number of rows, each sorted by key, newest row first."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        if rows >= FILE_ROWS:
            yield newest(pa.concat_tables(reversed(held)))
            held, rows = [], 0
    if rows:
        yield newest(pa.concat_tables(reversed(held)))


def _batch_names(ledger: str) -> set[str]:
    folder = storage.join(ledger, "entries")
    try:
        listed = [info.uri for info in storage.list_objects(folder)]
    except FileNotFoundError:
        return set()
    names = (uri.rsplit("/", 2)[-2:] for uri in listed)
    return {n.removesuffix(".json") for above, n in names if above == "entries" and n.endswith(".json") and n[0] != "."}


def _is_ours(schema: pa.Schema) -> bool:
    """Whether a file has a ledger's columns; strings may be read as dictionaries."""
    types = {f.name: f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in schema}
    wanted = [f for f in LEDGER_SCHEMA if f.name in types or f.name not in LATER_COLUMNS]
    return all(_is_alike(types.get(f.name), f.type) for f in wanted)


def _is_alike(stored: pa.DataType | None, wanted: pa.DataType) -> bool:
    # Parquet has no seconds: timestamps come back in milliseconds.
    both_times = stored is not None and pa.types.is_timestamp(stored) and pa.types.is_timestamp(wanted)
    return bool(both_times or stored == wanted)
