"""The file of known hashes: one Arrow IPC table, sorted, checked when it is read; it holds no code.

Columns: hash fixed_size_binary(32); quality uint8 0..100 (null: unknown); label (the kind of picture: `spam`); group
(the video that the frame is from; null: a single picture); entry (the name in the original list; may be null).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from moderation.errors import UsageError
from moderation.hashes.search import HASH_BYTES, HashIndex
from moderation.types import U8

FORMAT_VERSION: Final = "1"
ILLEGAL: Final = "illegal"  # the bank of a list whose pictures nobody may look at
_BANK: Final = "moderation.hashes_bank"
# A loaded and indexed entry takes about 150 bytes: 20 million take 3 GB.
MAX_ENTRIES: Final = 20_000_000
MAX_FILE_BYTES: Final = 4 << 30

LIST_SCHEMA: Final = pa.schema(
    [
        pa.field("hash", pa.binary(HASH_BYTES), nullable=False),
        pa.field("quality", pa.uint8()),
        pa.field("label", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("entry", pa.string()),
    ],
    metadata={"moderation.table": "hashes", "moderation.hashes_version": FORMAT_VERSION},
)


class KnownPicture(NamedTuple):  # a tuple: a million are made in half the time of a dataclass
    """One entry of a list."""

    hash: bytes
    label: str
    quality: int | None = None
    group: str | None = None
    entry: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HashList:
    """Known hashes, ready to be searched.

    hashes: uint8 [N,32]. label: int32 [N] into `labels`. group: int32 [N] into `groups`, -1 for a single picture.
    entries: string [N], may hold nulls. is_illegal: of a bank whose matches are escalated, and never shown.
    """

    index: HashIndex
    hashes: U8
    label: npt.NDArray[np.int32]
    labels: tuple[str, ...]
    group: npt.NDArray[np.int32]
    groups: tuple[str, ...]
    entries: pa.ChunkedArray
    is_illegal: bool = False

    def __len__(self) -> int:
        return len(self.hashes)


def encode_list(entries: Sequence[KnownPicture], *, is_illegal: bool = False) -> tuple[bytes, int]:
    """Encode entries as a file; also returns how many it holds: each once, sorted, so equal lists have equal bytes.

    Raises UsageError for no entries and for more than `MAX_ENTRIES`.
    """
    if not entries:
        raise UsageError("the list holds no hash")
    if len(entries) > MAX_ENTRIES:
        raise UsageError(f"the list holds {len(entries):,} hashes; {MAX_ENTRIES:,} at most: split it")
    unique = sorted(set(entries), key=_order)
    columns = [
        pa.array([getattr(k, field.name) for k in unique], field.type, size=len(unique)) for field in LIST_SCHEMA
    ]
    schema = LIST_SCHEMA
    if is_illegal:
        schema = schema.with_metadata({**(LIST_SCHEMA.metadata or {}), _BANK: ILLEGAL})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table(columns, schema=schema), max_chunksize=1 << 20)
    return sink.getvalue(), len(unique)


def _order(entry: KnownPicture) -> tuple[bytes, str, str, str, int]:
    quality = -1 if entry.quality is None else entry.quality
    return entry.hash, entry.label, entry.group or "", entry.entry or "", quality


def read_list(path: Path, *, quality: int = 0) -> HashList:
    """Read a list from its file; entries with a known quality below `quality` (0..100) are left out.

    Raises UsageError when the file is not a list, is damaged, has another version, or no entry is left.
    """
    table = _read_table(path)
    is_illegal = is_illegal_schema(table.schema)
    bad = pc.fill_null(pc.less(table["quality"], quality), False)
    table = table.filter(pc.invert(bad)).combine_chunks()
    if not table.num_rows:
        raise UsageError(f"{path}: no hash in it has a quality of {quality} or more")
    label, labels = _coded(table["label"])
    group, groups = _coded(table["group"])
    column = table["hash"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    start = column.offset * HASH_BYTES
    data = memoryview(column.buffers()[1])[start : start + len(column) * HASH_BYTES]
    hashes = np.frombuffer(data, np.uint8).reshape(-1, HASH_BYTES).copy()  # the file is closed afterwards
    return HashList(
        index=HashIndex(hashes),
        hashes=hashes,
        label=label,
        labels=labels,
        group=group,
        groups=groups,
        entries=table["entry"],
        is_illegal=is_illegal,
    )


def is_illegal_schema(schema: pa.Schema) -> bool:
    """Whether a list's schema says that its matches are escalated, and never shown."""
    return bool((schema.metadata or {}).get(_BANK.encode()) == ILLEGAL.encode())


def _read_table(path: Path) -> pa.Table:
    advice = "`moderation hashes build LIST.csv --out FILE` makes one"
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UsageError(f"{path}: {size:,} bytes, a list of hashes has at most {MAX_FILE_BYTES:,}")
        with pa.OSFile(str(path)) as file:
            reader = pa.ipc.open_file(file)
            # Checked before anything is read: nothing is allocated because a stranger's header asks for it.
            if reader.schema.metadata is None or not reader.schema.equals(LIST_SCHEMA):
                raise UsageError(f"{path}: not a list of hashes; {advice}")
            version = reader.schema.metadata.get(b"moderation.hashes_version", b"").decode(errors="replace")
            if version != FORMAT_VERSION:
                raise UsageError(
                    f"{path}: a list of version {version!r}, this program reads {FORMAT_VERSION}; {advice}"
                )
            table = reader.read_all()
            table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        # Arrow raises either of them for a broken structure.
        raise UsageError(f"{path}: not readable as a list of hashes ({error}); {advice}") from error
    if table.num_rows > MAX_ENTRIES:
        raise UsageError(f"{path}: {table.num_rows:,} hashes; {MAX_ENTRIES:,} at most")
    if table["hash"].null_count or table["label"].null_count:
        raise UsageError(f"{path}: has entries without a hash or a label; {advice}")
    return table


def _coded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    codes: npt.NDArray[np.int32] = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return codes, tuple(encoded.dictionary.to_pylist())
