"""Places that Ray cannot use are told before anything is started, with the variable to set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moderation.config.ray_places import find_bad_places


def test_a_folder_too_long_for_sockets_is_told_with_its_variable(tmp_path: Path) -> None:
    (problem,) = find_bad_places({"TMPDIR": "/tmp/" + "l" * 40, "HOME": str(tmp_path)})
    assert problem.startswith("TMPDIR is 45 bytes long") and "TMPDIR=/tmp" in problem


def test_an_empty_variable_is_told(tmp_path: Path) -> None:
    (problem,) = find_bad_places({"TMPDIR": "", "HOME": str(tmp_path)})
    assert problem.startswith("TMPDIR is set to nothing")


@pytest.mark.parametrize("environment", [{"TMPDIR": "/tmp"}, {"RAY_TMPDIR": "/tmp", "TMPDIR": "l" * 99}])
def test_usual_places_are_fine(tmp_path: Path, environment: dict[str, str]) -> None:
    assert not list(find_bad_places({**environment, "HOME": str(tmp_path)}))


@pytest.mark.skipif(sys.platform == "win32", reason="users as on Unix")
def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    # Root may write anywhere: asked as nobody, where this is root.
    code = (
        "import os, sys\n"
        "from moderation.config.ray_places import find_bad_places\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        f"print(*find_bad_places({{'HOME': {str(home)!r}, 'TMPDIR': '/tmp'}}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"HOME is {home}") and "set HOME" in told
