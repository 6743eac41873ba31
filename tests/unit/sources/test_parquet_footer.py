"""Encrypted columns are seen before Arrow is asked of them, which would end the process."""

from __future__ import annotations

import base64
import contextlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.sources.parquet_footer import has_encrypted_columns, read_footer
from moderation.types import ErrorCode

TABLE = pa.table({"image": [b"1", b"2"], "label": [1, 2]})


class Keys(encryption.KmsClient):
    """Keeps keys in the open."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        return base64.b64encode(key_bytes).decode()

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def write_encrypted(path: Path, *, plaintext_footer: bool) -> None:
    how = encryption.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["image"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=properties) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_table_is_refused_and_in_a_list_a_row(tmp_path: Path, plaintext_footer: bool) -> None:
    write_encrypted(tmp_path / "t.parquet", plaintext_footer=plaintext_footer)
    with pytest.raises(UsageError, match=r"encrypted .*write it without encryption"):
        open_source(str(tmp_path / "t.parquet"), SourceConfig())
    (tmp_path / "l.txt").write_text("t.parquet#row=0")
    (item,) = open_source(str(tmp_path / "l.txt"), SourceConfig())
    assert item.error is ErrorCode.CORRUPT and "encrypt" in item.error_detail


@pytest.mark.parametrize("groups", [1, 40])
def test_plain_tables_of_any_shape_are_not_taken_for_encrypted(groups: int) -> None:
    columns = {f"c{i}": np.arange(40) for i in range(20)}  # more than 15: another form of lists
    nested = {"s": [{"a": [1.5], "b": None}] * 40, "d": pa.array(["x"] * 40).dictionary_encode(), "e": pa.nulls(40)}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns | nested), sink, row_group_size=40 // groups, write_page_index=True)
    assert not has_encrypted_columns(read_footer(sink))


@pytest.mark.parametrize(("field", "encrypted"), [(b"\x10", True), (b"\x90\x80\x08", True), (b"\x0e", False)])
def test_the_field_that_tells_of_keys_is_found_however_its_number_is_written(field: bytes, encrypted: bool) -> None:
    # 8, 65544 of which Thrift keeps 16 bits, and 7, with a struct that is empty, in a column of a row group.
    column = b"\x0c" + field + b"\0\0"
    assert has_encrypted_columns(b"\x49\x1c" + b"\x19\x1c" + column + b"\0" + b"\0") is encrypted


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_answer(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert has_encrypted_columns(data) in (True, False)
        assert isinstance(read_footer(io.BytesIO(data)), bytes)
