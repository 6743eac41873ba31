"""The tables of an extension's shard: votes of some detectors on the frames of a run, and what became of each item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moderation.results.schema import extension_items_schema, extension_votes_schema
from moderation.results.tables import detail_cell, region_cells
from moderation.types import F32, ErrorCode, Region


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionVotes:
    """The added votes on the F frames of an item. scores: float32 [F,L], NaN where null."""

    scores: F32
    regions: Sequence[Sequence[Region]]
    blobs: Mapping[str, Sequence[bytes | None]] = field(default_factory=dict)
    embeddings: Mapping[str, npt.NDArray[np.float16]] = field(default_factory=dict)  # float16 [F,D]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionRow:
    """What became of an item. frames, times_s: of all frames that the run scored of it.

    votes: None where none were added: the run scored no frame of it, or `error_code` says why not.
    """

    item_id: str
    frames: Sequence[int] = ()
    times_s: Sequence[float | None] = ()
    votes: ExtensionVotes | None = None
    content_hash: str | None = None
    error_code: ErrorCode | None = None
    error_detail: str = ""


def extension_votes_table(
    rows: Sequence[ExtensionRow],
    labels: Sequence[str],
    blob_sizes: Mapping[str, int],
    embedding_dims: Mapping[str, int],
    metadata: Mapping[str, str],
) -> pa.Table:
    """One row per frame that the run scored, in its order; nulls where no votes were added."""
    schema = extension_votes_schema(labels, blob_sizes, embedding_dims, metadata)
    by_row = [_frame_cells(row, blob_sizes) for row in rows]
    names = ("item_id", "frame", "time_s", "changed", "regions", *blob_sizes)
    columns = {
        name: pa.array([cell for cells in by_row for cell in cells[name]], schema.field(name).type) for name in names
    }
    columns |= _score_columns(rows, labels)
    for name, dim in embedding_dims.items():
        columns[f"{name}.embedding"] = pa.array(_vectors(rows, name), pa.list_(pa.float16(), dim))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _frame_cells(row: ExtensionRow, blobs: Iterable[str]) -> dict[str, Sequence[object]]:
    """Cells of one item, one per frame, of all columns that are neither scores nor embeddings."""
    count = len(row.frames)
    nulls = (None,) * count
    return {
        "item_id": (row.item_id,) * count,
        "frame": row.frames,
        "time_s": row.times_s,
        "changed": (row.error_code is ErrorCode.CHANGED,) * count,
        "regions": _regions_of(row),
        **{name: nulls if row.votes is None else row.votes.blobs[name] for name in blobs},
    }


def _score_columns(rows: Sequence[ExtensionRow], labels: Sequence[str]) -> dict[str, pa.Array]:
    scores = [
        row.votes.scores if row.votes is not None else np.full((len(row.frames), len(labels)), np.nan, np.float32)
        for row in rows
    ]
    matrix = np.concatenate(scores) if scores else np.empty((0, len(labels)), np.float32)
    return {
        label: pa.array(np.ascontiguousarray(matrix[:, index]), pa.float32(), from_pandas=True)
        for index, label in enumerate(labels)
    }


def _regions_of(row: ExtensionRow) -> Sequence[Sequence[Mapping[str, object]]]:
    if row.votes is None:
        return [[] for _ in row.frames]
    return [[region_cells(region) for region in regions] for regions in row.votes.regions]


def _vectors(rows: Sequence[ExtensionRow], name: str) -> list[npt.NDArray[np.float16] | None]:
    vectors: list[npt.NDArray[np.float16] | None] = []
    for row in rows:
        own = None if row.votes is None else row.votes.embeddings.get(name)
        cells: Sequence[npt.NDArray[np.float16] | None] = [None] * len(row.frames) if own is None else list(own)
        vectors += [None if cell is None or not np.isfinite(cell).all() else cell for cell in cells]
    return vectors


def extension_items_table(rows: Sequence[ExtensionRow], metadata: Mapping[str, str]) -> pa.Table:
    """One row per item, in the order of the shard."""
    cells = [
        {
            "item_id": row.item_id,
            "frames": 0 if row.votes is None else len(row.frames),
            "content_hash": row.content_hash,
            "error_code": None if row.error_code is None else str(row.error_code),
            "error_detail": detail_cell(row.error_detail),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(cells, schema=extension_items_schema(metadata))
