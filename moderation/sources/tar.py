"""The index of a tar in object storage: member names and byte ranges, from range reads of the headers alone."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from moderation import storage
from moderation.errors import UsageError
from moderation.file_types import HEAD_BYTES
from moderation.sources.items import clean_text, one_sentence
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode

# Sidecars larger than this are not read.
MAX_SIDECAR = 64 * 1024
_BLOCK = 512
# A header may claim any size for a long name or PAX record; Linux paths end at 4 KiB.
_MAX_HEADER = 1024 * 1024
# tarfile holds all headers before a member at once, however many there are.
_MAX_HEADERS = 4 * _MAX_HEADER
# Records that apply to all later members; archives have a handful.
_MAX_GLOBAL_RECORDS = 1000
_MAX_MEMBERS = 5_000_000
# Memory of an indexed member beside its name and content.
_MEMBER_BYTES = 300
# A request to object storage costs about 30 ms, in which 3 to 4 MB arrive: shorter gaps are read through, longer
# ones skipped. Local reads have no such cost.
_FAR = 4 * 1024 * 1024
_NEAR_WINDOW = 4 * 1024 * 1024
_FAR_WINDOW = 64 * 1024
_LOCAL_WINDOW = 4 * 1024
# In place of an empty name, which only a fault of the archive has here.
_NO_NAME = "(no name)"
# GNU tar's label of a volume, and its list of the names in a folder.
_OF_VOLUMES = (b"V", b"D")
# Zeros after the end mark are read through up to here, in pieces.
_MAX_PADDING = 64 * 1024 * 1024
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """A file in a tar: `name` is text for people and keys, never a path. `content` only of small sidecars.

    head: the first HEAD_BYTES of a member without `content` whose name is not that of a picture or a video.
    """

    name: str
    offset: int
    size_bytes: int
    content: bytes | None = None
    head: bytes = b""
    error: ErrorCode | None = None
    detail: str = ""


def read_members(
    info: ObjectInfo, sidecars: frozenset[str], named: frozenset[str], max_index_bytes: int = 2 << 30
) -> Iterator[TarMember]:
    """The files of an uncompressed tar, in order; small ones with a suffix in `sidecars`, or named `._x`, with
    their content.

    The last member has no name when the archive itself is at fault: TRUNCATED (it ends without its end mark, or
    inside a member), CORRUPT (an invalid header, or data after the end mark), EMPTY (no bytes). What was indexed
    before stays. Hard links are ranges of the member they name; other links are FORBIDDEN. Entries of unknown types
    are files.
    named: suffixes of members whose first bytes are not wanted.
    max_index_bytes: limit for names and contents of small files, which are held until all is indexed; what comes after
    is not read (TOO_LARGE).
    Raises UsageError for a compressed tar; FileNotFoundError, PermissionError, StorageError.
    """
    source = _RangeReader(info)
    if info.size_bytes == 0:
        yield _fault(ErrorCode.EMPTY, "no bytes")
        return
    _refuse_compressed(info.uri, source)
    try:
        with tarfile.open(fileobj=source, mode="r:") as tar:
            bounds = _IndexBounds(archive_bytes=info.size_bytes, left_bytes=max_index_bytes)
            yield from _index_members(tar, source, sidecars, named, bounds)
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        yield _fault(ErrorCode.TRUNCATED if source.met_end else ErrorCode.CORRUPT, one_sentence(error))
        return
    except _TooManyMembersError:
        yield _fault(ErrorCode.TOO_LARGE, f"more than {_MAX_MEMBERS} members; the rest is not read")
        return
    except _IndexTooLargeError:
        limit = f"{max_index_bytes} bytes, a quarter of source.max_grouped_bytes"
        yield _fault(ErrorCode.TOO_LARGE, f"its names and small files are more than {limit}; the rest is not read")
        return
    fault = _check_end(source, end, info.size_bytes)
    if fault is not None:
        yield fault


class _TooManyMembersError(Exception):
    """A tar of more members than are indexed."""


class _IndexTooLargeError(Exception):
    """A tar whose names and small files exceed `max_index_bytes`."""


@dataclass(slots=True, kw_only=True)
class _IndexBounds:
    """Limits on the members of a tar and on what is held of them."""

    archive_bytes: int
    left_bytes: int

    def take(self, member: TarMember) -> None:
        """Count a member. Raises _IndexTooLargeError where it is one too many."""
        # Twice: it is also kept by the name as it stands in the tar.
        self.left_bytes -= _MEMBER_BYTES + 2 * sys.getsizeof(member.name) + len(member.content or member.head)
        if self.left_bytes < 0:
            raise _IndexTooLargeError


def _refuse_compressed(uri: str, source: _RangeReader) -> None:
    head = source.read(_BLOCK)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise UsageError(f"{uri}: a tar compressed with {name} can't be read in parts; decompress it first")
    source.seek(0)


def _index_members(
    tar: tarfile.TarFile,
    source: _RangeReader,
    sidecars: frozenset[str],
    named: frozenset[str],
    bounds: _IndexBounds,
) -> Iterator[TarMember]:
    seen: dict[str, TarMember] = {}
    # Otherwise tarfile keeps all members; the caller keeps those that it needs.
    while (entry := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # not in typeshed; a list since Python 2
        source.left_bytes = _MAX_HEADERS
        _check_global_records(tar.pax_headers)
        if len(seen) >= _MAX_MEMBERS:
            raise _TooManyMembersError
        member = _member(entry, seen, bounds.archive_bytes)
        if member is None:
            continue
        suffix, of_macos = suffix_of(member.name), member.name.rpartition("/")[2].startswith("._")
        if member.error is None and (of_macos or suffix not in named):
            wanted = of_macos or suffix in sidecars
            member = _with_content(member, source, whole=wanted and member.size_bytes <= MAX_SIDECAR)
        bounds.take(member)
        seen[entry.name] = member
        yield member


def _check_global_records(records: Mapping[str, str]) -> None:
    """Raises ReadError where the records for all members grow without end: tarfile keeps and copies them."""
    if len(records) > _MAX_GLOBAL_RECORDS or sum(map(len, records.values())) > _MAX_HEADER:
        raise tarfile.ReadError(f"more than {_MAX_GLOBAL_RECORDS} global records, or {_MAX_HEADER} bytes of them")


def _member(entry: tarfile.TarInfo, seen: dict[str, TarMember], archive_bytes: int) -> TarMember | None:
    """The file of a header; None for folders and labels of volumes. seen: the members before it, by name."""
    name, offset, length = clean_text(entry.name) or _NO_NAME, entry.offset_data, entry.size
    if entry.islnk():
        return _linked(name, offset, seen.get(entry.linkname))
    if entry.issym():
        return _unusable(name, offset, 0, ErrorCode.FORBIDDEN, "a symbolic link in a tar is not followed")
    if entry.issparse():
        return _unusable(name, offset, length, ErrorCode.CORRUPT, "a sparse member is not stored in one piece")
    if entry.isdir() or entry.type in _OF_VOLUMES:
        return None
    if entry.isdev():
        return _unusable(name, offset, 0, ErrorCode.UNSUPPORTED_TYPE, "a device or a named pipe")
    if length < 0:
        return _unusable(name, offset, 0, ErrorCode.CORRUPT, f"a member of {length} bytes")
    # Entries of unknown types are files, as the standard says (and GNU tar does).
    missing = offset + length - archive_bytes
    if missing > 0:
        detail = f"the tar ends {missing} bytes before this member does"
        return _unusable(name, offset, length, ErrorCode.TRUNCATED, detail)
    return TarMember(name=name, offset=offset, size_bytes=length)


def _linked(name: str, offset: int, target: TarMember | None) -> TarMember:
    if target is None:
        return _unusable(name, offset, 0, ErrorCode.NOT_FOUND, "a link to a member that is not in the tar")
    return replace(target, name=name, content=None)


def _unusable(name: str, offset: int, size_bytes: int, code: ErrorCode, detail: str) -> TarMember:
    return TarMember(name=name, offset=offset, size_bytes=size_bytes, error=code, detail=detail)


def _with_content(member: TarMember, source: _RangeReader, *, whole: bool) -> TarMember:
    at = source.tell()
    source.seek(member.offset)
    content = source.read(member.size_bytes if whole else min(HEAD_BYTES, member.size_bytes))
    source.seek(at)
    return replace(member, content=content) if whole else replace(member, head=content)


def suffix_of(name: str) -> str:
    """The last suffix of a member's name, in lower case, without its dot; none of a hidden file (`.a.jpg`)."""
    stem, _, suffixes = name.rpartition("/")[2].partition(".")
    return suffixes.rpartition(".")[2].lower() if stem else ""


def _check_end(source: _RangeReader, end: int, size_bytes: int) -> TarMember | None:
    """A fault that tarfile passes over in silence: an invalid header ends its loop just as the end mark does."""
    if end + _BLOCK > size_bytes:
        return _fault(ErrorCode.TRUNCATED, "the tar ends without its end mark")
    source.seek(end)
    if source.read(_BLOCK).strip(b"\0"):
        return _fault(ErrorCode.CORRUPT, f"no tar header at byte {end}; nothing after it is read")
    last = min(size_bytes, end + _MAX_PADDING)
    while source.tell() < last:
        source.left_bytes = _MAX_HEADERS
        if source.read(min(_MAX_HEADER, last - source.tell())).strip(b"\0"):
            return _fault(ErrorCode.CORRUPT, "more data after the end mark (tars put together?); it is not read")
    if last < size_bytes:
        return _fault(ErrorCode.CORRUPT, f"{size_bytes - end:,} bytes after the end mark; they are not read")
    return None


def _fault(code: ErrorCode, detail: str) -> TarMember:
    """A nameless member: a fault of the archive itself."""
    return _unusable("", 0, 0, code, detail)


class _RangeReader(io.RawIOBase):
    """A seekable view of an object that fetches ranges: small members in one stretch, of large ones only headers."""

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__()
        self._info = info
        self._local = storage.scheme_of(info.uri) in ("file", "memory")
        self._at = 0
        self._start = 0
        self._buffer = b""
        self.left_bytes = _MAX_HEADERS  # that may be read before the next member
        self.met_end = False  # whether a read went past the end: then a broken header is a missing one

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size_bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.left_bytes -= size
        if self.left_bytes < 0:
            raise tarfile.ReadError(f"headers of more than {_MAX_HEADERS} bytes before one member")
        if self._at + size > self._info.size_bytes:
            self.met_end = True
            size = max(0, self._info.size_bytes - self._at)
        if not size:
            return b""
        if not self._start <= self._at <= self._at + size <= self._start + len(self._buffer):
            self._fetch(size)
        begin = self._at - self._start
        self._at += size
        return self._buffer[begin : begin + size]

    def _fetch(self, size: int) -> None:
        window = _LOCAL_WINDOW
        if not self._local:
            gap = self._at - (self._start + len(self._buffer))
            window = _NEAR_WINDOW if 0 <= gap <= _FAR else _FAR_WINDOW
        length = min(max(size, window), self._info.size_bytes - self._at)
        self._buffer = storage.read_bytes(self._info.uri, offset=self._at, length=length, etag=self._info.etag)
        self._start = self._at
        if len(self._buffer) < size:
            raise EOFError("the object became shorter while it was read")
