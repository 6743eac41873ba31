"""The kind of a source, by its name and by the names of what lies in it."""

from __future__ import annotations

from itertools import islice

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.sources import columnar, rows, webdataset
from moderation.sources.listed import list_entries

# Names looked at to decide that a folder holds only tars or tables; one of pictures shows at its first name.
_MAX_NAMES = 10_000
# Files beside tars and tables that do not count: markers, indexes, checksums, descriptions.
_ASIDE_SUFFIXES = (".json", ".crc", ".idx", ".index", ".md", ".yaml", ".yml", ".md5", ".sha256", ".lock")
_ASIDE_NAMES = frozenset({"readme", "license", "manifest", ".ds_store", "readme.txt", "license.txt", "size.txt"})


def kind_by_name(source: str) -> str:
    """`table`, `manifest`, `webdataset` or `prefix`, by how the name of the source ends."""
    name = source.rstrip("/").lower()
    if name.endswith(columnar.SUFFIXES):
        return "table"
    if name.endswith((*rows.SUFFIXES, *rows.PACKED_OTHERWISE)):
        return "manifest"
    return "webdataset" if name.endswith(webdataset.SUFFIXES) else "prefix"


def kind_by_content(source: str, config: SourceConfig) -> str:
    """`webdataset` or `table` for a folder or pattern of only tars or only tables (and files that do not count).

    Otherwise `prefix`. Raises UsageError where the first _MAX_NAMES names are of one kind and there are more: the
    configuration then has to state the type.
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
