"""The Arrow schema of a plan: explicit and versioned, never inferred."""

from __future__ import annotations

import pyarrow as pa

from moderation.version import SCHEMA_VERSION

OBJECT_TYPE = pa.struct(
    [
        ("uri", pa.string()),
        ("name", pa.string()),
        ("size_bytes", pa.int64()),
        ("etag", pa.string()),
        ("offset", pa.int64()),
        ("row_group", pa.int32()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
    ]
)

# plan.parquet: one row per item, in the order of the source; a shard's rows are adjacent.
PLAN_SCHEMA = pa.schema(
    [
        ("shard_id", pa.string()),
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("kind", pa.string()),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("error_code", pa.string()),
        ("error_detail", pa.string()),
        ("objects", pa.list_(OBJECT_TYPE)),
    ],
    metadata={"moderation.schema_version": SCHEMA_VERSION, "moderation.table": "plan"},
)
