"""The attributes of an item that rows of a manifest make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from moderation.sources.items import bound_attributes
from moderation.sources.source_row import SourceRow


def merge_attributes(rows: Sequence[SourceRow]) -> dict[str, str]:
    """The attributes of the item of these rows: a JSON list where they differ."""
    if rows[0].group is None and len(rows) == 1:
        return dict(rows[0].attributes)  # bounded when the row was made
    attributes = dict(rows[0].attributes) if len(rows) == 1 else _merge_all(rows)
    if rows[0].group is not None:
        attributes["group"] = rows[0].group
    return bound_attributes(attributes)


def with_packed(attributes: dict[str, str], packed: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """With what a tar says of the one item that a row names. What was not seen of its video stays unseen."""
    if len(packed) > 1 or not packed[0]:
        return attributes
    cut_from = {name: value for name, value in packed[0].items() if name.startswith("cut_from.")}
    return bound_attributes({**cut_from, **packed[0], **attributes, **cut_from})


def _merge_all(rows: Sequence[SourceRow]) -> dict[str, str]:
    names = dict.fromkeys(name for row in rows for name in row.attributes)
    merged = {name: _merge([row.attributes.get(name) for row in rows]) for name in names}
    item_ids = [row.item_id for row in rows]
    if rows[0].group is not None and any(item_ids) and common(item_ids) is None:
        merged["item_id"] = _merge(item_ids)
    return merged


def _merge(values: Sequence[str | None]) -> str:
    first = values[0]
    return first if first is not None and all(v == first for v in values) else json.dumps(values, ensure_ascii=False)


def common(values: Sequence[str | None]) -> str | None:
    """The value that all have; None where they differ."""
    return values[0] if len(set(values)) == 1 else None
