"""Arrow schemas of the tables that a run writes: explicit and versioned, never inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from moderation.version import SCHEMA_VERSION

EVIDENCE_TYPE = pa.struct(
    [
        ("detector", pa.string()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("box", pa.list_(pa.float32(), 4)),
    ]
)

SEGMENT_TYPE = pa.struct(
    [
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("check", pa.string()),
        ("score", pa.float32()),
    ]
)

REGION_TYPE = pa.struct(
    [
        ("detector", pa.string()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
    ]
)


def score_column(check: str) -> str:
    """Name of a check's column in the verdicts table."""
    return f"score_{check}"


def verdicts_schema(checks: Sequence[str], metadata: Mapping[str, str]) -> pa.Schema:
    """verdicts/: one row per item. metadata: run id, stack fingerprint, policy hash, code version."""
    return pa.schema(
        [
            ("item_id", pa.string()),
            ("uri", pa.string()),
            ("kind", pa.string()),
            ("verdict", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("check", pa.string()),
            ("score", pa.float32()),
            ("confidence", pa.float32()),
            ("evidence", pa.list_(EVIDENCE_TYPE)),
            ("threshold", pa.float32()),
            ("severity", pa.string()),
            ("label", pa.string()),
            ("reason_text", pa.string()),
            ("segments", pa.list_(SEGMENT_TYPE)),
            ("audit", pa.bool_()),
            ("review_rank", pa.float32()),
            *((score_column(check), pa.float32()) for check in checks),
            ("frames_total", pa.int32()),
            ("frames_scored", pa.int32()),
            ("duration_s", pa.float64()),
            ("widest_gap_s", pa.float64()),
            ("unseen", pa.list_(pa.string())),
            ("reader", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("size_bytes", pa.int64()),
            ("etag", pa.string()),
            ("content_hash", pa.string()),
            ("pdq", pa.string()),
            ("group_id", pa.string()),
            ("error_code", pa.string()),
            ("error_detail", pa.string()),
            ("attributes", pa.map_(pa.string(), pa.string())),
        ],
        metadata=_metadata("verdicts", metadata),
    )


def votes_schema(
    labels: Sequence[str],
    blob_sizes: Mapping[str, int],
    embedding_dims: Mapping[str, int],
    metadata: Mapping[str, str],
) -> pa.Schema:
    """votes/: one row per frame, one float32 column per label, null = not asked. blob_sizes: `pdq.hash` -> bytes.

    role (`frame`, `tile`, `whole`, `backdrop`, `variant`; null in version 1: `frame`), parent, box: see `types.Frame`.
    """
    return pa.schema(
        [
            ("item_id", pa.string()),
            ("frame", pa.int32()),
            ("time_s", pa.float64()),
            ("role", pa.string()),
            ("parent", pa.int32()),
            ("box", pa.list_(pa.float32(), 4)),
            *((label, pa.float32()) for label in labels),
            *((name, pa.binary(size)) for name, size in blob_sizes.items()),
            *((f"{name}.embedding", pa.list_(pa.float16(), dim)) for name, dim in embedding_dims.items()),
            ("regions", pa.list_(REGION_TYPE)),
        ],
        metadata=_metadata("votes", metadata),
    )


def extension_votes_schema(
    labels: Sequence[str],
    blob_sizes: Mapping[str, int],
    embedding_dims: Mapping[str, int],
    metadata: Mapping[str, str],
) -> pa.Schema:
    """votes/ of an extension: the rows of the run's part, with columns of some detectors. changed: see `joined`."""
    return pa.schema(
        [
            ("item_id", pa.string()),
            ("frame", pa.int32()),
            ("time_s", pa.float64()),
            ("changed", pa.bool_()),
            *((label, pa.float32()) for label in labels),
            *((name, pa.binary(size)) for name, size in blob_sizes.items()),
            *((f"{name}.embedding", pa.list_(pa.float16(), dim)) for name, dim in embedding_dims.items()),
            ("regions", pa.list_(REGION_TYPE)),
        ],
        metadata=_metadata("votes", metadata),
    )


def extension_items_schema(metadata: Mapping[str, str]) -> pa.Schema:
    """items/ of an extension: one row per item of the shard. error_code: null where its votes were added.

    frames: how many were scored. content_hash: of what was read now; null where nothing was to be read.
    """
    return pa.schema(
        [
            ("item_id", pa.string()),
            ("frames", pa.int32()),
            ("content_hash", pa.string()),
            ("error_code", pa.string()),
            ("error_detail", pa.string()),
        ],
        metadata=_metadata("extension_items", metadata),
    )


def _metadata(table: str, facts: Mapping[str, str]) -> dict[str, str]:
    return {
        "moderation.table": table,
        "moderation.schema_version": SCHEMA_VERSION,
        **{f"moderation.{key}": value for key, value in facts.items()},
    }
