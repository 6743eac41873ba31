"""The index of a tar takes bounded memory, whatever its headers claim."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moderation.config.model import SourceConfig
from moderation.sources import open_source
from moderation.types import ErrorCode

MIB = 1 << 20
LONG = MIB - 1024  # of one header: just under what is read at once
# Besides what the interpreter and its libraries take before anything is read.
LIMIT_BYTES = 160 * MIB

SCRIPT = """
import json, resource, sys
from moderation.config.model import SourceConfig
from moderation.sources import open_source
baseline = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (baseline + int(sys.argv[2]),) * 2)
items = list(open_source(sys.argv[1], SourceConfig(max_grouped_bytes=64 << 20)))
print(json.dumps([[str(item.error), item.error_detail] for item in items]))
"""


def header(name: str, kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.USTAR_FORMAT)


class Sparse:
    """A tar of holes: a header that claims a megabyte takes a block on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def extended(self, kind: bytes, start: bytes, size: int, end: bytes = b"") -> None:
        """An extended header of `size` bytes: `start`, zeros, `end`."""
        self._file.write(header("x", kind, size) + start)
        self._file.seek(size - len(start) - len(end), io.SEEK_CUR)
        self._file.write(end)
        self._file.seek(-size % 512, io.SEEK_CUR)

    def records(self, kind: bytes, key: str) -> None:
        """A PAX header with one record of nearly a megabyte."""
        self.extended(kind, f"{LONG} {key}=".encode(), LONG, b"\n")

    def member(self, name: str) -> None:
        """A file without bytes."""
        self._file.write(header(name, tarfile.REGTYPE, 0))

    def close(self) -> None:
        """Write the end mark."""
        self._file.write(bytes(1024))
        self._file.close()


def headers_before_one_member(tar: Sparse) -> None:
    for n in range(250):
        tar.records(tarfile.XHDTYPE, f"k{n}")


def long_names_before_one_member(tar: Sparse) -> None:
    for _ in range(250):
        tar.extended(tarfile.GNUTYPE_LONGNAME, b"a.jpg", LONG)


def global_records(tar: Sparse) -> None:
    for n in range(250):
        tar.records(tarfile.XGLTYPE, f"k{n}")
        tar.member(f"{n}.jpg")


def many_global_records(tar: Sparse) -> None:
    text = b"".join(b"13 k%06d=v\n" % n for n in range(60_000))
    for n in range(4):
        tar.extended(tarfile.XGLTYPE, text, len(text))
        tar.member(f"{n}.jpg")


def long_names(tar: Sparse) -> None:
    for n in range(250):
        # A character of four bytes, so that each of the zeros takes four in memory.
        start = f"{LONG} path=\U0001f600{n}".encode()
        tar.extended(tarfile.XHDTYPE, start + b"a" * (LONG - len(start) - 5), LONG, b".jpg\n")
        tar.member("x.jpg")


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (headers_before_one_member, ErrorCode.CORRUPT),
        (long_names_before_one_member, ErrorCode.CORRUPT),
        (global_records, ErrorCode.CORRUPT),
        (many_global_records, ErrorCode.CORRUPT),
        (long_names, ErrorCode.TOO_LARGE),
    ],
)
def test_a_tar_of_headers_is_indexed_in_bounded_memory(
    tmp_path: Path, write: Callable[[Sparse], None], error: ErrorCode
) -> None:
    path = tmp_path / "t.tar"
    tar = Sparse(path)
    tar.member("first.jpg")
    write(tar)
    tar.close()
    command = [sys.executable, "-c", SCRIPT, str(path), str(LIMIT_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told[0] == ["None", ""]
    assert told[-1][0] == error, told[-1]


def test_a_tar_with_the_usual_headers_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c" * 40}) as tar:
        for n in range(30):
            entry = tarfile.TarInfo(f"{'n' * 3000}/{n}.jpg")
            entry.pax_headers = {"mtime": "1.5", "note": "x" * 1000}
            tar.addfile(entry, io.BytesIO())
    items = list(open_source(str(path), SourceConfig()))
    assert len(items) == 30 and {item.error for item in items} == {None}
