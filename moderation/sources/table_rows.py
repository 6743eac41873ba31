"""Rows of manifests that are Parquet or Arrow files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from moderation.errors import UsageError
from moderation.sources import columnar
from moderation.sources.leaves import attribute_leaves, is_text, leaf_column
from moderation.sources.source_row import SPECIAL, SourceRow, make_row
from moderation.sources.texts import text_values


def table_columns(uri: str) -> list[str]:
    """The columns of a table. Raises UsageError where `uri` is not text."""
    with columnar.open_columnar(uri) as table:
        if "uri" in table.schema.names and not is_text(table.schema.field("uri").type):
            raise UsageError(f"{uri}: the column `uri` holds {table.schema.field('uri').type}, not text")
        return list(table.schema.names)


def table_rows(uri: str) -> Iterator[SourceRow]:
    """The rows of a table; those of a damaged part are error rows."""
    with columnar.open_columnar(uri) as table:
        leaves = attribute_leaves(table.schema, without=SPECIAL)
        special = [name for name in SPECIAL if name in table.schema.names]
        before = 0
        for group in range(table.groups):
            done = 0
            try:
                for batch in columnar.read_batches(table, group, [*special, *leaves]):
                    yield from _batch_rows(batch, special, leaves, first=before + done + 1)
                    done += batch.num_rows
            except columnar.DAMAGE as error:
                columnar.raise_unless_corrupt(error)
                fault = columnar.describe_damage(error, "a damaged part of the manifest")
                lost = _rows_in(table, group) - done
                for line in range(before + done + 1, before + done + lost + 1):
                    yield SourceRow(line, error=fault.code, detail=fault.detail)
                done += lost
            before += done


def _rows_in(table: columnar.Columnar, group: int) -> int:
    """Rows of a row group by the footer; 1 for a damaged batch of an Arrow file, where it is not known."""
    try:
        return columnar.group_rows(table, group)
    except columnar.DAMAGE as error:
        columnar.raise_unless_corrupt(error)
        return 1


def _batch_rows(batch: pa.RecordBatch, special: list[str], leaves: list[str], first: int) -> Iterator[SourceRow]:
    texts = {name: text_values(leaf_column(batch, name)) for name in [*special, *leaves]}
    for i in range(batch.num_rows):
        attributes = {name: value for name in leaves if (value := texts[name][i]) is not None}
        yield make_row(first + i, {name: texts[name][i] for name in special}, attributes)
