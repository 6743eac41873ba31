"""The chunks of a plan on disk until it is whole: the plan of a large source is larger than memory should hold."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from moderation.planning.schema import PLAN_SCHEMA

# A row group each of 64 small shards would make the footer larger than the rows.
_GROUP_ROWS: Final = 4096


class PlanSpool:
    """Parquet files with `PLAN_SCHEMA`, in the order of their adding, in a temporary file."""

    def __init__(self) -> None:
        # It goes with this object.
        self._file = tempfile.TemporaryFile(prefix="moderation-plan-")  # noqa: SIM115 - used beyond this call
        self._sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, data: bytes) -> None:
        """Add a chunk."""
        self._file.seek(0, io.SEEK_END)
        self._file.write(data)
        self._sizes.append(len(data))

    def pieces(self) -> Iterator[bytes]:
        """The chunks; others may be added meanwhile, which are not among them."""
        offset = 0
        for size in list(self._sizes):
            self._file.seek(offset)
            yield self._file.read(size)
            offset += size

    def merge_into(self, file: IO[bytes]) -> None:
        """Write one Parquet file with the rows of all chunks."""
        held: list[pa.Table] = []
        with pq.ParquetWriter(file, PLAN_SCHEMA, compression="zstd") as writer:
            for data in self.pieces():
                chunk = pq.ParquetFile(io.BytesIO(data))
                for group in range(chunk.num_row_groups):
                    held.append(chunk.read_row_group(group))
                    if sum(table.num_rows for table in held) >= _GROUP_ROWS:
                        writer.write_table(pa.concat_tables(held))
                        held = []
            if held:
                writer.write_table(pa.concat_tables(held))
