"""Rows -> Arrow tables -> the bytes of a part. The same rows give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from moderation.config.model import OutputConfig
from moderation.errors import ModerationError, UsageError, one_line
from moderation.pages.text import printable
from moderation.results.escalations import Escalation
from moderation.results.schema import score_column, verdicts_schema, votes_schema
from moderation.types import ErrorCode, Evidence, Item, ItemVotes, Judgement, Kind, Region, Role, Segment, Status

# zstd's default level is 3 in newer releases and 1 in older ones: fixed here, so that a library update does not change
# bytes.
ZSTD_LEVEL = 3
DETAIL_LIMIT = 500  # characters of an error's detail that a row keeps
_OF_JUDGEMENT = (
    "verdict", "reason", "check", "score", "confidence", "threshold", "severity", "label", "reason_text", "audit",
    "review_rank",
)  # fmt: skip
_OF_FRAME = ("item_id", "frame", "time_s", "role", "parent", "box", "regions")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """The result of one item: a row of the verdicts table, and its frames' rows of the votes table."""

    item: Item
    status: Status
    kind: Kind
    judgement: Judgement | None = None  # None: skipped
    votes: ItemVotes | None = None
    embeddings: Mapping[str, npt.NDArray[np.float16]] | None = None  # float16 [F,D], normalised
    frames_total: int = 0
    duration_s: float | None = None
    widest_gap_s: float | None = None
    unseen: tuple[str, ...] = ()
    reader: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    content_hash: str | None = None
    pdq: str | None = None
    error_code: ErrorCode | None = None
    error_detail: str = ""
    escalation: Escalation | None = None  # on an illegal list

    @property
    def frames_scored(self) -> int:
        """The number of scored frames, without tiles, wholes, backdrops and variants."""
        if self.votes is None:
            return 0
        return self.votes.roles.count(Role.FRAME) if self.votes.roles else len(self.votes.frames)


_Voted = tuple[ItemRow, ItemVotes]  # an item that was scored, and its votes


def verdicts_table(rows: Sequence[ItemRow], checks: Sequence[str], metadata: Mapping[str, str]) -> pa.Table:
    """The verdicts of a shard, one row per item, in the shard's order."""
    schema = verdicts_schema(checks, metadata)
    return pa.Table.from_pylist([_verdict_cells(row, checks) for row in rows], schema=schema)


def votes_table(
    rows: Sequence[ItemRow],
    labels: Sequence[str],
    blob_sizes: Mapping[str, int],
    embedding_dims: Mapping[str, int],
    metadata: Mapping[str, str],
) -> pa.Table:
    """The votes of a shard, one row per frame."""
    schema = votes_schema(labels, blob_sizes, embedding_dims, metadata)
    voted = [(row, row.votes) for row in rows if row.votes is not None and row.votes.frames]
    columns = {
        **_frame_columns(voted, schema, tuple(blob_sizes)),
        **_score_columns([votes for _, votes in voted], labels),
        **{f"{name}.embedding": _embedding_column(voted, name, dim) for name, dim in embedding_dims.items()},
    }
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


def decode_table(
    data: bytes, format_: str, columns: Sequence[str] | None = None, *, where: str = "the table"
) -> pa.Table:
    """The inverse of `encode_table`. columns: read at least these, where present. Raises UsageError naming `where`."""
    with reading_table(where):
        if format_ == "arrow":
            return pa.ipc.open_file(pa.py_buffer(data)).read_all()
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        return file.read(columns=None if columns is None else [name for name in columns if name in names])


@contextmanager
def reading_table(where: str) -> Iterator[None]:
    """Turn Arrow's errors for bytes that are no table, or a damaged one, into a UsageError naming `where`."""
    try:
        yield
    except (pa.ArrowException, KeyError, IndexError) as error:
        raise UsageError(f"{where} is not readable as a table: {one_line(error, 200)}") from error
    except OSError as error:
        # OSErrors of files have an errno; Arrow's own have none.
        if error.errno is not None or isinstance(error, ModerationError):
            raise
        raise UsageError(f"{where} is not readable as a table: {one_line(error, 200)}") from error


def judgement_cells(judgement: Judgement | None, checks: Sequence[str]) -> dict[str, object]:
    """The cells of the verdicts table that a policy decides; without a judgement (skipped) they are empty."""
    if judgement is None:
        empty: dict[str, object] = dict.fromkeys((*_OF_JUDGEMENT, *map(score_column, checks)))
        return {**empty, "evidence": [], "segments": []}
    return {
        "verdict": str(judgement.verdict),
        "reason": judgement.reason,
        "check": judgement.check,
        "score": _null_if_nan(judgement.score),
        "confidence": _null_if_nan(judgement.confidence),
        "evidence": [_evidence_cells(evidence) for evidence in judgement.evidence],
        "threshold": judgement.threshold,
        "severity": judgement.severity,
        "label": judgement.label,
        "reason_text": judgement.reason_text or None,
        "segments": [segment_cells(segment) for segment in judgement.segments],
        "audit": judgement.audit,
        "review_rank": judgement.review_rank,
        **{score_column(check): _null_if_nan(judgement.scores.get(check)) for check in checks},
    }


def _verdict_cells(row: ItemRow, checks: Sequence[str]) -> dict[str, object]:
    return {
        **judgement_cells(row.judgement, checks),
        "item_id": row.item.item_id,
        "uri": row.item.uri,
        "kind": str(row.kind),
        "status": str(row.status),
        "frames_total": row.frames_total,
        "frames_scored": row.frames_scored,
        "duration_s": row.duration_s,
        "widest_gap_s": row.widest_gap_s,
        "unseen": list(row.unseen),
        "reader": row.reader,
        "width": row.width,
        "height": row.height,
        "size_bytes": row.size_bytes,
        "etag": row.item.objects[0].etag if len(row.item.objects) == 1 else None,
        "content_hash": row.content_hash,
        "pdq": row.pdq,
        "group_id": row.item.attributes.get("group"),
        "error_code": str(row.error_code) if row.error_code else None,
        "error_detail": detail_cell(row.error_detail),
        "attributes": sorted(row.item.attributes.items()),
    }


def _evidence_cells(evidence: Evidence) -> dict[str, object]:
    return {
        "detector": evidence.detector,
        "label": evidence.label,
        "score": evidence.score,
        "frame": evidence.frame,
        "time_s": evidence.time_s,
        "box": list(evidence.box) if evidence.box else None,
    }


def segment_cells(segment: Segment) -> dict[str, object]:
    """The cells of a segment."""
    return {"start_s": segment.start_s, "end_s": segment.end_s, "check": segment.check, "score": segment.score}


def region_cells(region: Region) -> dict[str, object]:
    """The cells of a region."""
    return {
        "detector": region.detector,
        "label": region.label,
        "score": region.score,
        "x0": region.x0,
        "y0": region.y0,
        "x1": region.x1,
        "y1": region.y1,
    }


def _null_if_nan(value: float | None) -> float | None:
    """NaN inside, null in the table."""
    return None if value is None or math.isnan(value) else value


def detail_cell(text: str) -> str | None:
    """An error's detail as a row keeps it; None where it is empty."""
    # Details quote decoders, which quote the untrusted file.
    return printable(text)[:DETAIL_LIMIT].strip() or None


def _frame_columns(voted: Sequence[_Voted], schema: pa.Schema, blobs: Sequence[str]) -> dict[str, pa.Array]:
    """Every column of the votes table that is neither a score nor an embedding."""
    cells = [_frame_cells(row, votes, blobs) for row, votes in voted]
    names = (*_OF_FRAME, *blobs)
    return {name: pa.array([cell for of in cells for cell in of[name]], schema.field(name).type) for name in names}


def _frame_cells(row: ItemRow, votes: ItemVotes, blobs: Sequence[str]) -> dict[str, Sequence[object]]:
    """Cells of one item, one per frame."""
    count = len(votes.frames)
    nulls = (None,) * count
    return {
        "item_id": (row.item.item_id,) * count,
        "frame": votes.frames,
        "time_s": votes.times_s,
        "role": votes.roles or (Role.FRAME,) * count,
        "parent": votes.parents or nulls,
        "box": votes.boxes or nulls,
        "regions": [[region_cells(region) for region in regions] for regions in votes.regions or ((),) * count],
        **{name: votes.blobs.get(name, nulls) for name in blobs},
    }


def _score_columns(votes: Sequence[ItemVotes], labels: Sequence[str]) -> dict[str, pa.Array]:
    scores = np.concatenate([v.scores for v in votes]) if votes else np.empty((0, len(labels)), np.float32)
    # NaN inside, null in the table: a score is null or a valid number.
    return {
        label: pa.array(np.ascontiguousarray(scores[:, index]), pa.float32(), from_pandas=True)
        for index, label in enumerate(labels)
    }


def _embedding_column(voted: Sequence[_Voted], name: str, dim: int) -> pa.Array:
    cells: list[npt.NDArray[np.float16] | None] = []
    for row, votes in voted:
        vectors = (row.embeddings or {}).get(name)
        cells.extend(vectors if vectors is not None else [None] * len(votes.frames))
    return pa.array([None if c is None or not np.isfinite(c).all() else c for c in cells], pa.list_(pa.float16(), dim))
