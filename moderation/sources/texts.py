"""Columns of tables as attributes: long text is cut, and a column of long cells is never held whole."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from moderation.sources.items import MAX_ATTRIBUTE, attribute_text, clean_text, cut_text
from moderation.sources.leaves import is_text

# The most bytes that MAX_ATTRIBUTE characters take in UTF-8.
_MAX_BYTES = 4 * MAX_ATTRIBUTE


def text_values(column: pa.Array) -> list[str | None]:
    """A column as attributes: text as it is, numbers and times as Arrow prints them, nested values as JSON.

    A long value is cut and marked as cut. The values of a dictionary are made once and shared.
    """
    if pa.types.is_dictionary(column.type):
        return _dictionary_texts(column)
    if pa.types.is_nested(column.type):
        return [_nested_text(cell) for cell in column]
    if is_text(column.type):
        return _short_texts(column)
    if isinstance(column.type, pa.BaseExtensionType):
        return text_values(column.storage)
    try:
        texts = column.cast(pa.string()).to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        texts = [_value_of(cell) for cell in column]
    return [None if t is None else cut_text(clean_text(str(t))) for t in texts]


def _dictionary_texts(column: pa.DictionaryArray) -> list[str | None]:
    used = column.indices.unique().drop_null()  # a reader may hand out its whole dictionary with each batch
    values = dict(zip(used.to_pylist(), text_values(column.dictionary.take(used)), strict=True))
    return [None if index is None else values[index] for index in column.indices.to_pylist()]


def _short_texts(column: pa.Array) -> list[str | None]:
    raw = column.cast(pa.large_string()).cast(pa.large_binary())
    lengths = pc.binary_length(raw)
    if (pc.max(lengths).as_py() or 0) <= MAX_ATTRIBUTE:
        return [None if t is None else clean_text(_decode(t)) for t in raw.to_pylist()]
    texts: list[str | None] = []
    # Where any cell is longer, cells are decoded one by one, and only their beginnings.
    for cell, length in zip(raw, lengths.to_pylist(), strict=True):
        text = None if length is None else _decode(bytes(cell.as_buffer()[:_MAX_BYTES]))
        texts.append(None if text is None else clean_text(cut_text(text, length if length > _MAX_BYTES else None)))
    return texts


def _decode(raw: bytes) -> str:
    """Text that may not be valid UTF-8, or may be cut within a character."""
    return raw.decode("utf-8", "backslashreplace")


def _nested_text(cell: pa.Scalar) -> str | None:
    budget = [_MAX_BYTES]
    text = attribute_text(_bounded_value(cell, budget))
    return None if text is None else cut_text(text)


def _bounded_value(cell: pa.Scalar, budget: list[int]) -> object:
    """A nested cell as Python values, until the budget of characters is spent: a list may hold millions.

    budget: one element, the characters left; counted down in place.
    """
    budget[0] -= 2
    if pa.types.is_dictionary(cell.type):
        cell = cell.value
    if cell is None or not cell.is_valid:
        return None
    if pa.types.is_struct(cell.type):
        names = [field.name for field in cell.type]
        return {name: _bounded_value(cell[i], budget) for i, name in enumerate(names) if budget[0] > 0}
    if pa.types.is_nested(cell.type) and hasattr(cell, "values"):
        return _bounded_list(cell.values, budget)
    return _bounded_leaf(cell, budget)


def _bounded_leaf(cell: pa.Scalar, budget: list[int]) -> object:
    if not hasattr(cell, "as_buffer"):
        return _value_of(cell)
    head = bytes(cell.as_buffer()[: max(0, budget[0])])
    budget[0] -= len(head)
    return _decode(head)


def _value_of(cell: pa.Scalar) -> object:
    """A cell as a Python value; a text where Python has none: a date beyond its years, an unknown zone."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        return f"[{cell.type} that can't be shown]"


def _bounded_list(elements: pa.Array, budget: list[int]) -> list[object]:
    values: list[object] = []
    for element in elements:
        if budget[0] <= 0:
            values.append("...")
            break
        values.append(_bounded_value(element, budget))
    return values
