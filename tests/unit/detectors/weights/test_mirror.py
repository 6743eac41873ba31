"""Weights without a hub: mirrors, and the messages when a file is unavailable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from moderation import storage
from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.detectors.base import Weights
from moderation.detectors.weights import locator as weights
from moderation.detectors.weights.mirror import VARIABLE, fill_mirror, read_index
from moderation.detectors.weights.pull import pull_weights, weights_in
from moderation.errors import FatalError, UsageError

CONTENT = b"numbers"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB = Weights(
    locator="hf://org/name/net.safetensors", sha256=SHA256, licence="MIT", origin="card", size_bytes=605_143_316
)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with HUB's file, named by the environment; and a hub that is unreachable."""
    source = tmp_path / "net.safetensors"
    source.write_bytes(CONTENT)
    uri = f"memory://mirror-{tmp_path.name}/weights"
    fill_mirror([(HUB, source, SHA256)], uri)
    monkeypatch.setenv(VARIABLE, uri)
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache"))
    return uri


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_mirror_is_asked_before_the_hub_by_checksum_or_locator(mirror: str, no_hub: None, sha256: str) -> None:
    wanted = Weights(locator=HUB.locator, sha256=sha256, licence="MIT", origin="card")
    assert weights.resolve(wanted).read_bytes() == CONTENT


def test_a_mirror_whose_file_was_changed_is_not_used(mirror: str, no_hub: None) -> None:
    (entry,) = read_index(mirror)
    storage.publish(storage.join(mirror, entry.file), b"other numbers")
    with pytest.raises(FatalError, match=f"expected {SHA256}"):
        weights.resolve(HUB)


def test_a_mirror_that_lacks_the_file_leaves_it_to_the_origin(mirror: str, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"x")
    here = Weights(locator=f"file://{other}", sha256=hashlib.sha256(b"x").hexdigest(), licence="MIT", origin="o")
    assert weights.resolve(here) == other


def test_without_a_hub_the_message_names_the_file_its_size_and_three_ways(no_hub: None) -> None:
    with pytest.raises(UsageError) as caught:
        weights.resolve(HUB)
    message = str(caught.value)
    assert HUB.locator in message
    assert "605 MB" in message
    for way in ("moderation weights pull CONFIG --to", "weights: file:///path/net.safetensors", "HF_HOME"):
        assert way in message
    assert [line.strip()[:2] for line in message.splitlines()[2:]] == ["1.", "2.", "3."]


def test_pulling_copies_every_file_once_with_index_and_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache"))
    storage.publish("memory://origin/a.safetensors", CONTENT)
    clip = {"architecture": "ViT-B-32", "questions": {"mask": {"texts": ["a mask"]}}, "licence": "MIT"}
    entries = tuple(
        DetectorConfig(name="clip", alias=alias, weights="memory://origin/a.safetensors", sha256=SHA256, options=clip)
        for alias in ("clip_a", "clip_b")
    )
    config = Config(stack=StackConfig(detectors=(*entries, DetectorConfig(name="quality"))))
    assert len(weights_in(config)) == 1
    to = str(tmp_path / "mirror")
    (entry,) = pull_weights(config, to)
    assert (entry.locator, entry.sha256, entry.licence) == ("memory://origin/a.safetensors", SHA256, "MIT")
    assert (tmp_path / "mirror" / entry.file).read_bytes() == CONTENT
    assert (tmp_path / "mirror" / "SHA256SUMS").read_text() == f"{SHA256}  {entry.file}\n"
    assert read_index(to) == (entry,)
    assert pull_weights(config, to) == (entry,)


def test_pulling_more_keeps_what_was_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = tmp_path / name
        path.write_bytes(name.encode())
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        w = Weights(locator=f"s3://b/{name}", sha256=sha256, licence="MIT", origin="o")
        fill_mirror([(w, path, sha256)], str(tmp_path / "mirror"))
    assert {entry.locator for entry in read_index(str(tmp_path / "mirror"))} == {"s3://b/a", "s3://b/b"}


def test_an_index_that_is_none_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text(json.dumps({"files": [{"name": "x"}]}))
    with pytest.raises(FatalError, match="not readable as a mirror"):
        read_index(str(tmp_path))
