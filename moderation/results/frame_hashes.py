"""The hashes of frames that a finished run kept, read back part by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from moderation.errors import UsageError
from moderation.hashes.part_hashes import PartHashes, no_parts
from moderation.hashes.search import HASH_BYTES, I16, I64
from moderation.results.joined import read_joined
from moderation.types import U8

NO_QUALITY = -1
# Of frames that were framed or marked; a run of an older `pdq` has none of them.
PART_COLUMNS: Final = ("pdq.inner", "pdq.quarters", "pdq.edges")
HASH_COLUMNS: Final = ("pdq.quality", "pdq.hash", *PART_COLUMNS)


_USABLE = 50  # the quality that a picture within bars has at least where its hash was kept


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHashes:
    """Hashes of F frames. hashes: uint8 [F,32]; quality: int16 [F], 0..100, -1 where there is no hash."""

    hashes: U8
    quality: I16
    parts: PartHashes

    def take(self, rows: I64) -> FrameHashes:
        """Those of some frames."""
        return FrameHashes(hashes=self.hashes[rows], quality=self.quality[rows], parts=self.parts.take(rows))

    def within_bars(self) -> FrameHashes:
        """The same; where bars leave the whole too little content, the picture within them stands for it."""
        poor = (self.quality >= 0) & (self.quality < _USABLE) & self.parts.inner.any(axis=1)
        return FrameHashes(
            hashes=np.where(poor[:, None], self.parts.inner, self.hashes),
            quality=np.where(poor, np.int16(_USABLE), self.quality),
            parts=self.parts,
        )


def no_hashes(count: int) -> FrameHashes:
    """Frames without a hash."""
    return FrameHashes(
        hashes=np.zeros((count, HASH_BYTES), np.uint8),
        quality=np.full(count, NO_QUALITY, np.int16),
        parts=no_parts(count),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """Hashes of a part's frames; tiles and other parts of frames are left out. item: int64 [F] into `items`."""

    items: tuple[str, ...]
    item: I64
    frames: FrameHashes
    time_s: npt.NDArray[np.float64]


def own_frames(votes: pa.Table) -> pa.Table:
    """The rows of frames, without tiles and composed pictures. In older votes all rows are frames."""
    if "role" not in votes.column_names:
        return votes
    return votes.filter(pc.fill_null(pc.equal(votes["role"], "frame"), True))


def read_hashes(out: str, shard_id: str, format_: str) -> Hashed:
    """The hashes of a shard's votes. Raises UsageError when the run had no detector `pdq`, and as `read_intact`."""
    columns = ["item_id", "role", "time_s", *HASH_COLUMNS]
    votes = own_frames(read_joined(out, shard_id, format_, columns, strict=False))
    if "pdq.hash" not in votes.column_names or "pdq.quality" not in votes.column_names:
        raise UsageError(f"{out}: the run kept no hashes; its stack lacks the detector `pdq`")
    encoded = votes["item_id"].combine_chunks().dictionary_encode()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) and encoded.num_chunks else encoded
    if not len(votes):
        return Hashed(
            items=(),
            item=np.empty(0, np.int64),
            frames=no_hashes(0),
            time_s=np.empty(0),
        )
    return Hashed(
        items=tuple(encoded.dictionary.to_pylist()),
        item=encoded.indices.to_numpy().astype(np.int64),
        frames=frame_hashes(votes).within_bars(),
        time_s=votes["time_s"].to_numpy().astype(np.float64),
    )


def hash_rows(column: pa.ChunkedArray) -> U8:
    """binary(32) -> uint8 [F,32]; zeros where null."""
    filled = pc.fill_null(column, bytes(HASH_BYTES)).cast(pa.binary(HASH_BYTES))
    rows = [np.empty((0, HASH_BYTES), np.uint8)]
    for chunk in filled.chunks:
        start = chunk.offset * HASH_BYTES
        flat = np.frombuffer(chunk.buffers()[1] or b"", np.uint8)[start : start + len(chunk) * HASH_BYTES]
        rows.append(flat.reshape(-1, HASH_BYTES))
    return np.concatenate(rows)


def frame_hashes(votes: pa.Table) -> FrameHashes:
    """The hashes of all rows, which have the columns `pdq.hash` and `pdq.quality`."""
    none = np.zeros((len(votes), HASH_BYTES), np.uint8)
    inner, quarters, edges = (hash_rows(votes[name]) if name in votes.column_names else none for name in PART_COLUMNS)
    return FrameHashes(
        hashes=hash_rows(votes["pdq.hash"]),
        quality=percents(votes["pdq.quality"], votes["pdq.hash"]),
        parts=PartHashes(inner=inner, quarters=quarters, edges=edges),
    )


def percents(quality: pa.ChunkedArray, hashes: pa.ChunkedArray) -> I16:
    """PDQ's quality 0..1 -> int16 [F] 0..100; -1 where it or the hash is null."""
    present: npt.NDArray[np.bool_] = np.asarray(pc.and_(quality.is_valid(), hashes.is_valid()))
    numbers = quality.to_numpy().astype(np.float64) * 100
    rounded: I16 = np.where(present, np.nan_to_num(numbers).round(), NO_QUALITY).astype(np.int16)
    return rounded
