"""What a source is, by its name and by the names of what lies in it."""

from __future__ import annotations

from itertools import islice

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import columnar, rows, webdataset
from moderation.sources.listed import list_entries

# Names looked at before a folder is said to hold only tars or tables; a folder of pictures is known by its first.
_MAX_NAMES = 10_000
# What lies beside tars and tables and is none of them: marks, indexes, checksums, descriptions.
_ASIDE_SUFFIXES = (".json", ".crc", ".idx", ".index", ".md", ".yaml", ".yml", ".md5", ".sha256", ".lock")
_ASIDE_NAMES = frozenset({"readme", "license", "manifest", ".ds_store", "readme.txt", "license.txt", "size.txt"})


def kind_by_name(source: str) -> str:
    """`table`, `manifest`, `webdataset` or `prefix`, by how the name of the source ends."""
    name = source.rstrip("/").lower()
    if name.endswith(columnar.SUFFIXES):
        return "table"
    if name.endswith(rows.SUFFIXES):
        return "manifest"
    return "webdataset" if name.endswith(webdataset.SUFFIXES) else "prefix"


def kind_by_content(source: str, config: SourceConfig) -> str:
    """`webdataset` or `table` where a folder or a pattern shows nothing else, besides what lies beside such; `prefix`.

    Raises UsageError where that is so of the first names, but there are too many to look at all: what is not said by
    the names then has to be said by the configuration.
    """
    kind = "prefix"
    names = islice(list_entries(source, config), _MAX_NAMES + 1)
    for count, info in enumerate(names):
        if info.error is not None or _is_aside(info.uri):
            continue
        found = kind_by_name(info.uri)
        if found in ("prefix", "manifest") or (kind != "prefix" and found != kind):
            return "prefix"
        kind = found
        if count == _MAX_NAMES:
            types = "webdataset" if kind == "webdataset" else "parquet or manifest"
            raise UsageError(f"{source}: seems to hold nothing but {kind} files: say source.type={types}, or prefix")
    return kind


def _is_aside(uri: str) -> bool:
    name = uri.rpartition("/")[2].lower()
    return name.startswith(("_", "._")) or name in _ASIDE_NAMES or name.endswith(_ASIDE_SUFFIXES)
