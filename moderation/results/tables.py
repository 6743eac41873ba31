"""Rows -> Arrow tables -> the bytes of a part. The same rows give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from moderation.config.model import OutputConfig
from moderation.results.schema import score_column, verdicts_schema, votes_schema
from moderation.types import ErrorCode, Item, ItemVotes, Judgement, Kind, Role, Status

# Parquet pages are compressed by zstd at its default level 3 in newer releases, 1 in older ones: said here, so that
# a library update does not change bytes.
ZSTD_LEVEL = 3
DETAIL_LIMIT = 500  # characters of an error's detail that a row keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one item: a row of the verdicts table, and its frames' rows of the votes table."""

    item: Item
    status: Status
    kind: Kind
    judgement: Judgement | None = None  # None: skipped
    votes: ItemVotes | None = None
    embeddings: Mapping[str, npt.NDArray[np.float16]] | None = None  # float16 [F,D], normalised
    frames_total: int = 0
    duration_s: float | None = None
    widest_gap_s: float | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    content_hash: str | None = None
    pdq: str | None = None
    error_code: ErrorCode | None = None
    error_detail: str = ""

    @property
    def frames_scored(self) -> int:
        """Frames of the item that were scored; tiles and wholes are none of them."""
        if self.votes is None:
            return 0
        return self.votes.roles.count(Role.FRAME) if self.votes.roles else len(self.votes.frames)


def verdicts_table(rows: Sequence[Row], checks: Sequence[str], metadata: Mapping[str, str]) -> pa.Table:
    """The verdicts of a shard, a row an item, in the shard's order."""
    schema = verdicts_schema(checks, metadata)
    return pa.Table.from_pylist([_verdict_cells(row, checks) for row in rows], schema=schema)


def votes_table(
    rows: Sequence[Row],
    labels: Sequence[str],
    blob_sizes: Mapping[str, int],
    embedding_dims: Mapping[str, int],
    metadata: Mapping[str, str],
) -> pa.Table:
    """The votes of a shard, a row a frame."""
    schema = votes_schema(labels, blob_sizes, embedding_dims, metadata)
    voted = [(row, row.votes) for row in rows if row.votes is not None and row.votes.frames]
    counts = [len(votes.frames) for _, votes in voted]
    columns: dict[str, pa.Array] = {
        "item_id": pa.array(
            [row.item.item_id for (row, _), n in zip(voted, counts, strict=True) for _ in range(n)], pa.string()
        ),
        "frame": pa.array([f for _, votes in voted for f in votes.frames], pa.int32()),
        "time_s": pa.array([t for _, votes in voted for t in votes.times_s], pa.float64()),
        "role": pa.array(
            [r for (_, v), n in zip(voted, counts, strict=True) for r in v.roles or (Role.FRAME,) * n], pa.string()
        ),
        "parent": pa.array(
            [p for (_, v), n in zip(voted, counts, strict=True) for p in v.parents or (None,) * n], pa.int32()
        ),
        "box": pa.array(
            [b for (_, v), n in zip(voted, counts, strict=True) for b in v.boxes or (None,) * n],
            schema.field("box").type,
        ),
    }
    scores = (
        np.concatenate([votes.scores for _, votes in voted]) if voted else np.empty((0, len(labels)), dtype=np.float32)
    )
    for index, label in enumerate(labels):
        # NaN inside, null in the table: a number is null or it is right.
        columns[label] = pa.array(np.ascontiguousarray(scores[:, index]), pa.float32(), from_pandas=True)
    for name, size in blob_sizes.items():
        cells = [b for _, votes in voted for b in votes.blobs.get(name, (None,) * len(votes.frames))]
        columns[name] = pa.array(cells, pa.binary(size))
    for name, dim in embedding_dims.items():
        columns[f"{name}.embedding"] = _embedding_column([row for row, _ in voted], name, dim)
    columns["regions"] = pa.array(
        [
            [
                {"detector": r.detector, "label": r.label, "score": r.score}
                | {"x0": r.x0, "y0": r.y0, "x1": r.x1, "y1": r.y1}
                for r in regions
            ]
            for _, votes in voted
            for regions in (votes.regions or ((),) * len(votes.frames))
        ],
        schema.field("regions").type,
    )
    return pa.table([columns[field.name] for field in schema], schema=schema)


def encode_table(table: pa.Table, config: OutputConfig) -> bytes:
    """A table as one Parquet or Arrow IPC file."""
    sink = io.BytesIO()
    if config.format == "arrow":
        codec = None if config.compression == "none" else "zstd" if config.compression == "zstd" else "lz4"
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        return sink.getvalue()
    compression = None if config.compression == "none" else config.compression
    level = ZSTD_LEVEL if compression == "zstd" else None
    # Statistics let readers skip parts; dictionaries pay for the few distinct strings.
    pq.write_table(table, sink, compression=compression, compression_level=level, write_statistics=True, version="2.6")
    return sink.getvalue()


def decode_table(data: bytes, format_: str) -> pa.Table:
    """The inverse of `encode_table`."""
    if format_ == "arrow":
        return pa.ipc.open_file(pa.py_buffer(data)).read_all()
    return pq.read_table(pa.BufferReader(data))


def _verdict_cells(row: Row, checks: Sequence[str]) -> dict[str, object]:
    judged = row.judgement
    cells: dict[str, object] = {
        "item_id": row.item.item_id,
        "uri": row.item.uri,
        "kind": str(row.kind),
        "status": str(row.status),
        "verdict": str(judged.verdict) if judged else None,
        "reason": judged.reason if judged else None,
        "check": judged.check if judged else None,
        "score": _number(judged.score) if judged else None,
        "confidence": _number(judged.confidence) if judged else None,
        "evidence": [
            {"detector": e.detector, "label": e.label, "score": e.score, "frame": e.frame, "time_s": e.time_s}
            | {"box": list(e.box) if e.box else None}
            for e in (judged.evidence if judged else ())
        ],
        "frames_total": row.frames_total,
        "frames_scored": row.frames_scored,
        "duration_s": row.duration_s,
        "widest_gap_s": row.widest_gap_s,
        "width": row.width,
        "height": row.height,
        "size_bytes": row.size_bytes,
        "etag": row.item.objects[0].etag if len(row.item.objects) == 1 else None,
        "content_hash": row.content_hash,
        "pdq": row.pdq,
        "group_id": row.item.attributes.get("group"),
        "error_code": str(row.error_code) if row.error_code else None,
        "error_detail": _clean(row.error_detail) or None,
        "attributes": sorted(row.item.attributes.items()),
    }
    for check in checks:
        cells[score_column(check)] = _number(judged.scores.get(check)) if judged else None
    return cells


def _number(value: float | None) -> float | None:
    """NaN inside, null in the table."""
    return None if value is None or value != value else value


def _clean(text: str) -> str:
    # Details quote decoders, which quote the file: bounded, printable, one line.
    return "".join(c if c.isprintable() else " " for c in text)[:DETAIL_LIMIT].strip()


def _embedding_column(rows: Sequence[Row], name: str, dim: int) -> pa.Array:
    cells: list[npt.NDArray[np.float16] | None] = []
    for row in rows:
        found = (row.embeddings or {}).get(name)
        cells.extend(found if found is not None else [None] * (len(row.votes.frames) if row.votes else 0))
    return pa.array([None if c is None or not np.isfinite(c).all() else c for c in cells], pa.list_(pa.float16(), dim))
