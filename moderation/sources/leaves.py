"""Columns of tables by name: which hold text, which hold bytes, and how a nested one is found.

A leaf is named by its path: `image`, `image.bytes` (a struct, as Hugging Face writes it), `sample.image.bytes`, and
`images[]` or `images[].bytes` for a list of pictures. Any part of it may be dictionary-encoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

LIST = "[]"
_MAX_DEPTH = 8
# A fixed-size column of fewer bytes holds hashes or ids: the smallest picture has more.
_MIN_FIXED_BYTES = 65


def plain(kind: pa.DataType) -> pa.DataType:
    """A type without its dictionary, and without the name that an extension gave it."""
    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text, also when dictionary-encoded."""
    kind = plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes that may be a picture."""
    kind = plain(kind)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width) >= _MIN_FIXED_BYTES
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists; a map does not count."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def bytes_leaves(field: pa.Field) -> list[str]:
    """The bytes columns in a field: itself, children of structs, elements of lists."""
    return _bytes_below(field.type, field.name, 0)


def _bytes_below(kind: pa.DataType, name: str, depth: int) -> list[str]:
    if is_binary(kind):
        return [name]
    if depth == _MAX_DEPTH:
        return []
    if is_list(kind) and LIST not in name:
        return _bytes_below(kind.value_type, name + LIST, depth + 1)
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _bytes_below(child.type, f"{name}.{child.name}", depth + 1)]
    return []


def attribute_leaves(schema: pa.Schema, without: Sequence[str] = ()) -> list[str]:
    """The columns that become attributes: all but bytes and lists of pictures; a struct counts as its children."""
    leaves = [leaf for field in schema for leaf in _attributes_below(field.type, field.name, 0)]
    return [name for name in leaves if name not in without]


def _attributes_below(kind: pa.DataType, name: str, depth: int) -> list[str]:
    pictures = _bytes_below(kind, name, depth)
    if pa.types.is_struct(kind) and (depth == 0 or pictures):
        return [leaf for child in kind for leaf in _attributes_below(child.type, f"{name}.{child.name}", depth + 1)]
    return [] if pictures else [name]


def top_of(schema: pa.Schema, leaf: str) -> str:
    """The column that a leaf lies in. Raises KeyError."""
    return str(schema[_steps(list(schema), leaf)[0]].name)


def _steps(fields: list[pa.Field], leaf: str) -> list[int]:
    """The index of each field on the path to a leaf, within its parent. Names may hold dots."""
    for index, field in enumerate(fields):
        if leaf == field.name:
            return [index]
    for index, field in enumerate(fields):
        if leaf.startswith(f"{field.name}.") and pa.types.is_struct(field.type):
            try:
                return [index, *_steps(list(field.type), leaf[len(field.name) + 1 :])]
            except KeyError:
                continue
    raise KeyError(leaf)


def leaf_column(batch: pa.RecordBatch, leaf: str) -> pa.Array:
    """A column of a batch by the name of its leaf; for `images[]`, the lists."""
    first, *rest = _steps(list(batch.schema), leaf.partition(LIST)[0])
    column = _stored(batch.column(first))
    return _stored(pc.struct_field(column, rest)) if rest else column


def _stored(column: pa.Array) -> pa.Array:
    """A column without the name that an extension gave its type."""
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def cell_values(column: pa.Array, leaf: str, row: int) -> list[pa.Scalar]:
    """The scalars of one cell: one, or those of its list. column: of this leaf."""
    cell = column[row]
    _, is_listed, below = leaf.partition(LIST)
    if not is_listed:
        return [cell]
    if not cell.is_valid:
        return []
    elements = cell.values
    if below:
        elements = pc.struct_field(elements, _steps(list(elements.type), below[1:]))
    return list(elements)


def scalar_bytes(cell: pa.Scalar) -> bytes | None:
    """The bytes of a cell, None where it is null."""
    if not cell.is_valid:
        return None
    value = cell.value if pa.types.is_dictionary(cell.type) else cell
    return None if value is None or not value.is_valid else bytes(value.as_buffer())
