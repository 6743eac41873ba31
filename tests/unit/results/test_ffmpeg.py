"""Which FFmpeg decodes videos is told by the packages' own files, and warned of below the floor."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from moderation.config.model import Config, MediaConfig
from moderation.errors import UsageError
from moderation.results import ffmpeg
from moderation.results.ffmpeg import (
    FLOOR,
    SystemFfmpeg,
    decoder_versions,
    describe_below_floor,
    find_ffmpegs,
    look_at_package,
    require_video_decoder,
)
from moderation.results.finish import finish_run
from moderation.results.record import Output, RunFacts
from moderation.results.story import tell_story


def install(monkeypatch: pytest.MonkeyPatch, packages: dict[str, list[str]]) -> None:
    monkeypatch.setattr(ffmpeg, "installed_version", lambda name: "1.0" if name in packages else None)
    monkeypatch.setattr(ffmpeg, "files", lambda name: [Path(file) for file in packages[name]])


def test_the_version_is_that_of_the_library_itself() -> None:
    package = look_at_package("av")
    assert package is not None
    assert package.libavcodec == av.library_versions["libavcodec"]


@pytest.mark.parametrize(
    ("file", "libavcodec"),
    [
        ("av.libs/libavcodec-5e6b81c2.so.62.28.102", (62, 28, 102)),
        ("av/.dylibs/libavcodec.61.19.101.dylib", (61, 19, 101)),
        ("av/codec.so", None),
        ("av.libs/libavutil-04440b0f.so.60.26.101", None),
    ],
)
def test_names_of_libraries_tell_their_version(
    file: str, libavcodec: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, {"av": ["av/__init__.py", file]})
    package = look_at_package("av")
    assert package is not None and package.libavcodec == libavcodec
    # What is not known is not called old.
    assert package.is_below_floor == (libavcodec is not None and libavcodec < FLOOR)


def test_what_is_below_the_floor_is_warned_of_unless_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"av": ["libavcodec-a.so.62.28.102"], "decord2": ["libavcodec-b.so.62.28.101"]})
    warning = describe_below_floor(MediaConfig())
    assert warning is not None
    assert warning.startswith("decord2 1.0 (libavcodec 62.28.101) is older than FFmpeg 8.1.2")
    assert "media.video_decoder: pyav" in warning
    assert describe_below_floor(MediaConfig(video_decoder="pyav")) is None
    assert [package.package for package in find_ffmpegs(MediaConfig(video_decoder="pyav"))] == ["av"]


TORCHCODEC = MediaConfig(video_decoder="torchcodec")


def install_system(monkeypatch: pytest.MonkeyPatch, release: str | None) -> None:
    install(monkeypatch, {"torchcodec": []})
    found = None if release is None else SystemFfmpeg(release=release, licence="LGPL version 2.1 or later")
    monkeypatch.setattr(ffmpeg, "find_system_ffmpeg", lambda: found)


@pytest.mark.parametrize(
    ("release", "below"),
    [
        *(("5.1.8-0+deb12u1", True), ("5.1.9-0+deb12u1", False), ("5.1", True), ("n7.1.4", True), ("8.0.9", True)),
        *(("8.1.1", True), ("8.1.2", False), ("8.1.10", False), ("9.0", False), ("N-118-gabc", False)),
    ],
)
def test_the_floor_of_the_systems_ffmpeg_is_that_of_its_branch(
    release: str, below: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_system(monkeypatch, release)
    warning = describe_below_floor(TORCHCODEC)
    assert (warning is not None) == below
    assert decoder_versions(TORCHCODEC) == [
        f"torchcodec 1.0 (FFmpeg {release} of the system, LGPL version 2.1 or later)"
    ]
    assert warning is None or ("below the floor" in warning and "media.video_decoder: pyav" in warning)


@pytest.mark.parametrize(
    ("packages", "decoder", "words"),
    [
        ({}, "torchcodec", "needs the package torchcodec; pip install"),
        ({"torchcodec": []}, "torchcodec", "needs the shared libraries of FFmpeg"),
        ({}, "decord", "needs the package decord2; pip install decord2"),
    ],
)
def test_a_decoder_that_cannot_work_is_refused_before_any_work(
    packages: dict[str, list[str]], decoder: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, packages)
    monkeypatch.setattr(ffmpeg, "find_system_ffmpeg", lambda: None)
    with pytest.raises(UsageError) as raised:
        require_video_decoder(Config.model_validate({"media": {"video_decoder": decoder}}))
    assert str(raised.value).startswith(f"media.video_decoder: {decoder} {words}")
    require_video_decoder(Config())


def test_cuda_is_refused_in_a_decoder_process(monkeypatch: pytest.MonkeyPatch) -> None:
    install_system(monkeypatch, "8.1.2")
    cuda = {"media": {"video_decoder": "torchcodec_cuda"}}
    require_video_decoder(Config.model_validate(cuda))
    with pytest.raises(UsageError, match="needs runtime"):
        require_video_decoder(Config.model_validate({**cuda, "runtime": {"decoder": "process"}}))


def test_a_run_and_its_page_name_the_decoders_and_the_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"av": ["libavcodec-a.so.60.0.100"], "pillow": []})
    facts = RunFacts(run_id="r", stack_fingerprint="s", policy_hash="p")
    out = str(tmp_path / "out")
    run = Output(source="x", out=out, home=out, config=Config(), facts=facts, identity={})
    summary = finish_run(run, [], wall_s=1.0, partial=True, facts={})
    named = ["pillow 1.0", "av 1.0 (libavcodec 60.0.100)"]
    assert summary["decoders"] == named == decoder_versions(MediaConfig())
    assert json.loads((tmp_path / "out" / "run.json").read_text())["decoders"] == named
    page = (tmp_path / "out" / "report.html").read_text()
    assert "av 1.0 (libavcodec 60.0.100)" in page and "lacks security fixes" in page
    assert not [s for s in tell_story({**summary, "decoder_warning": None}).todo if "lacks security fixes" in s]
