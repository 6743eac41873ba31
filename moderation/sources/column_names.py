"""What is wrong with the columns of a manifest or a table, and the nearest right thing."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from moderation.sources.items import shorten
from moderation.sources.leaves import is_text

# Names under which other programs list what we call `uri`, in lower case, the best first.
_LIKE_URI = (
    "url", "uris", "s3_uri", "s3uri", "gcs_uri", "imagegcsuri", "image_url", "imageurl", "image_uri", "path",
    "filepath", "file_path", "image_path", "file_name", "filename", "file", "image", "img", "key", "location", "href",
    "link", "name",
)  # fmt: skip
_DELIMITERS = {";": "a semicolon", "\t": "a tab", "|": "a bar"}


def describe_columns(columns: Sequence[str], types: Sequence[pa.DataType] = ()) -> str:
    """The columns in words, and what to do so that one is `uri`. types: of the columns, where they have any."""
    if not columns:
        return "nothing"
    if not types:
        return f"{shorten(', '.join(columns))}{_advice(columns)}"
    shown = ", ".join(f"{name} ({kind})" for name, kind in zip(columns, types, strict=True))
    return f"{shorten(shown)}{_advice([n for n, kind in zip(columns, types, strict=True) if is_text(kind)])}"


def _advice(columns: Sequence[str]) -> str:
    delimiter = next((d for d in _DELIMITERS if len(columns) == 1 and d in columns[0]), None)
    if delimiter is not None:
        return f"; its cells seem to be parted by {_DELIMITERS[delimiter]}: write commas, or tabs into a .tsv"
    names = {name.lower(): name for name in reversed(columns)}
    alike = next((names[name] for name in ("uri", *_LIKE_URI) if name in names), None)
    return "" if alike is None else f"; if `{shorten(alike)}` holds the addresses, rename it to `uri`"
