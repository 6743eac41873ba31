"""The hashes of frames that a finished run kept, read back part by part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from moderation.errors import UsageError
from moderation.hashes.search import HASH_BYTES, I16, I64
from moderation.results.joined import read_joined
from moderation.types import U8

NO_QUALITY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """Hashes of a part's frames; tiles and other parts of frames are left out.

    item: int64 [F] into `items`. hashes: uint8 [F,32]; quality: int16 [F], 0..100, -1 where there is no hash.
    """

    items: tuple[str, ...]
    item: I64
    hashes: U8
    quality: I16
    time_s: npt.NDArray[np.float64]


def own_frames(votes: pa.Table) -> pa.Table:
    """The rows of frames, without tiles and composed pictures. In older votes all rows are frames."""
    if "role" not in votes.column_names:
        return votes
    return votes.filter(pc.fill_null(pc.equal(votes["role"], "frame"), True))


def read_hashes(out: str, shard_id: str, format_: str) -> Hashed:
    """The hashes of a shard's votes. Raises UsageError when the run had no detector `pdq`, and as `read_intact`."""
    columns = ["item_id", "role", "time_s", "pdq.quality", "pdq.hash"]
    votes = own_frames(read_joined(out, shard_id, format_, columns, strict=False))
    if "pdq.hash" not in votes.column_names or "pdq.quality" not in votes.column_names:
        raise UsageError(f"{out}: the run kept no hashes; its stack lacks the detector `pdq`")
    encoded = votes["item_id"].combine_chunks().dictionary_encode()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) and encoded.num_chunks else encoded
    if not len(votes):
        return Hashed(
            items=(),
            item=np.empty(0, np.int64),
            hashes=np.empty((0, HASH_BYTES), np.uint8),
            quality=np.empty(0, np.int16),
            time_s=np.empty(0),
        )
    return Hashed(
        items=tuple(encoded.dictionary.to_pylist()),
        item=encoded.indices.to_numpy().astype(np.int64),
        hashes=hash_rows(votes["pdq.hash"]),
        quality=percents(votes["pdq.quality"], votes["pdq.hash"]),
        time_s=votes["time_s"].to_numpy().astype(np.float64),
    )


def hash_rows(column: pa.ChunkedArray) -> U8:
    """binary(32) -> uint8 [F,32]; zeros where null."""
    none = bytes(HASH_BYTES)
    data = b"".join(none if value is None else value for value in column.to_pylist())
    return np.frombuffer(data, np.uint8).reshape(-1, HASH_BYTES)


def percents(quality: pa.ChunkedArray, hashes: pa.ChunkedArray) -> I16:
    """PDQ's quality 0..1 -> int16 [F] 0..100; -1 where it or the hash is null."""
    present: npt.NDArray[np.bool_] = np.asarray(pc.and_(quality.is_valid(), hashes.is_valid()))
    numbers = quality.to_numpy().astype(np.float64) * 100
    rounded: I16 = np.where(present, np.nan_to_num(numbers).round(), NO_QUALITY).astype(np.int16)
    return rounded
