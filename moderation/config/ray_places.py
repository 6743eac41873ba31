"""Where Ray writes on the machine that starts it, sockets and settings: what is wrong there, and what to set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

# sun_path of unix(7), less its end.
_MAX_SOCKET_PATH_BYTES: Final = 107
# Ray adds `/ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store`, with a pid of seven digits at most.
_SOCKET_BYTES: Final = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


def find_bad_places(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A sentence for each place that Ray could not use, with the variable to set."""
    variables = os.environ if environment is None else environment
    # In the order in which Ray looks for it.
    named = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in variables), None)
    folder = variables[named] if named else tempfile.gettempdir()
    room = _MAX_SOCKET_PATH_BYTES - _SOCKET_BYTES
    length = len(os.fsencode(folder.rstrip("/")))
    if named and not folder:
        yield f"{named} is set to nothing, and Ray would write into the working folder: set {named}=/tmp, or unset it"
    elif length > room:
        yield (
            f"{named or 'the folder of temporary files'} is {length} bytes long, and paths of Ray's sockets below it"
            f" would be too long: set TMPDIR to a folder of {room} bytes at most, such as TMPDIR=/tmp"
        )
    elif not _is_writable(folder):
        yield f"{folder}: Ray cannot write there: set TMPDIR to a folder that it can write, such as TMPDIR=/tmp"
    home = variables.get("HOME") or str(Path.home())
    if not _is_writable(f"{home}/.ray"):
        yield f"HOME is {home}, which cannot be written, and Ray keeps a file there: set HOME to a folder that can be"


def _is_writable(folder: str) -> bool:
    """Whether files can be made there, or the folder itself in its nearest parent that exists."""
    nearest = next((p for p in (Path(folder), *Path(folder).absolute().parents) if os.path.lexists(p)), Path("/"))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
