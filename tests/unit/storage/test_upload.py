"""Objects written piece by piece are there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation import storage
from moderation.errors import FatalError


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_an_object_is_there_once_it_is_whole(tmp_path: Path, scheme: str) -> None:
    uri = f"{tmp_path}/a/b.txt" if scheme == "file" else f"memory://{tmp_path.name}/a/b.txt"
    with storage.open_output(uri) as file:
        file.write(b"one ")
        assert storage.read_optional(uri) is None
        file.write(b"two")
    assert storage.read_bytes(uri) == b"one two"


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_what_breaks_off_leaves_nothing(tmp_path: Path, scheme: str) -> None:
    uri = f"{tmp_path}/b.txt" if scheme == "file" else f"memory://{tmp_path.name}/b.txt"
    with pytest.raises(KeyError), storage.open_output(uri) as file:
        file.write(b"half")
        raise KeyError
    assert storage.read_optional(uri) is None
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FatalError, match="cannot write"), storage.open_output(f"{tmp_path}/a/b.txt"):
        pass
