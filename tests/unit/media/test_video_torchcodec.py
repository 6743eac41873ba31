"""torchcodec's reader: the same frames as the others, and what happens where it cannot read."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from moderation.config.model import MediaConfig
from moderation.file_types import sniff
from moderation.media.limits import start_deadline
from moderation.media.video import decode_video
from moderation.results.ffmpeg import find_system_ffmpeg
from moderation.types import Media
from tests.drawn_media import jpegs, mp4
from tests.unit.media.test_video_matrix import B_FRAMES, FILMS, X264, draw, needs_ffmpeg, remux
from tests.unit.media.test_video_pyav import film

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

SHARED = Path(__file__).parents[3].parent / "shared"
INSTALLED = find_spec("torchcodec") is not None and find_system_ffmpeg() is not None
ALONE = "TORCHCODEC_ALONE" in os.environ
needs_torchcodec = pytest.mark.skipif(not ALONE, reason="run by test_its_tests_pass_in_a_process_without_decord")
if ALONE:
    import_module("torchcodec.decoders")  # before decord; with torch: not within the time of an item


def decode(data: bytes, decoder: str) -> Media:
    config = MediaConfig.model_validate({"video_decoder": decoder, "max_gap_s": 0.7})
    media_type = sniff(data[:4096])
    assert media_type is not None
    return decode_video(data, media_type, config, start_deadline(60))


def assert_same(a: Media, b: Media, name: str) -> None:
    """All but the reader's name: frames, times, gaps, errors; pixels to the bit."""
    assert [(f.index, f.time_s) for f in a.frames] == [(f.index, f.time_s) for f in b.frames], name
    assert (a.frames_total, a.duration_s, a.widest_gap_s) == (b.frames_total, b.duration_s, b.widest_gap_s), name
    assert (a.error, a.unseen) == (b.error, b.unseen), name
    assert all(np.array_equal(x.pixels, y.pixels) for x, y in zip(a.frames, b.frames, strict=True)), name


def test_where_it_is_not_installed_pyav_reads_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    media = decode(film("libx264", 20), "torchcodec")
    assert media.reader == "pyav: torchcodec: it is not installed"
    assert_same(media, decode(film("libx264", 20), "pyav"), "not installed")


def test_behind_decord_it_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The FFmpeg of the system called the codec libraries in decord's wheel: a segmentation fault."""
    monkeypatch.setitem(sys.modules, "decord", ModuleType("decord"))
    monkeypatch.delitem(sys.modules, "torchcodec.decoders", raising=False)
    data = film("libx264", 20)
    assert decode(data, "torchcodec").reader == "pyav: torchcodec: it cannot be loaded behind decord"


@pytest.mark.long
@needs_ffmpeg
@pytest.mark.skipif(
    ALONE or not INSTALLED, reason="the extra torchcodec or FFmpeg is not installed, or this is its process"
)
def test_its_tests_pass_in_a_process_without_decord() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "long", __file__]
    environment = {**os.environ, "TORCHCODEC_ALONE": "1"}
    root = Path(__file__).parents[3]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-3000:]


def test_where_decord_is_not_installed_pyav_reads_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    assert decode(film("libx264", 20), "auto").reader == "pyav: decord: it is not installed"


@pytest.mark.long
@needs_torchcodec
def test_it_reads_what_seeking_is_proven_right_for() -> None:
    plain = film("libx264", 20)
    assert decode(plain, "torchcodec").reader == "torchcodec"
    assert decode(mp4(jpegs(4)), "torchcodec").reader == "pyav: mjpeg in mp4"
    assert_same(decode(plain, "torchcodec"), decode(plain, "pyav"), "plain")


@pytest.mark.long
@needs_torchcodec
@pytest.mark.parametrize("fault", ["another time", "an error"])
def test_a_frame_that_jumps_leads_back_to_pyav(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchcodec.decoders import VideoDecoder

    right = VideoDecoder.get_frame_at

    def get_frame_at(self: VideoDecoder, index: int) -> object:
        frame = right(self, index)
        if fault == "an error":
            raise RuntimeError("Requested next frame while there are no more frames left to decode.")
        return SimpleNamespace(data=frame.data, pts_seconds=frame.pts_seconds + 0.04)

    monkeypatch.setattr(VideoDecoder, "get_frame_at", get_frame_at)
    data = film("libx264", 20)
    media = decode(data, "torchcodec")
    assert media.reader == "pyav: torchcodec stops at a frame"
    assert_same(media, decode(data, "pyav"), fault)


ODD = {
    **{name: FILMS[name] for name in ("b.mp4", "open.mkv", "hevc_closed.mkv", "vp9_hidden.mkv", "av1.mkv", "b.ts")},
    **{name: FILMS[name] for name in ("ten_bit.mp4", "odd.mp4", "uneven.mkv", "delta.mp4", "fragmented.mp4", "b.avi")},
    "bt709.mp4": f"{X264} -g 25 -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    "interlaced.mp4": f"{B_FRAMES} -flags +ilme+ildct",
    "full.mp4": "-c:v libx264 -preset ultrafast -pix_fmt yuvj420p -g 25",
}


@pytest.mark.long
@needs_torchcodec
@needs_ffmpeg
def test_odd_files_are_read_alike(tmp_path: Path) -> None:
    films = {name: draw(tmp_path / name, options) for name, options in ODD.items()}
    draw(tmp_path / "b.mp4", B_FRAMES)
    films["edit.mp4"] = remux(tmp_path / "edit.mp4", "-ss", "0.5", "-i", tmp_path / "b.mp4", "-c", "copy")
    for turn in (90, 180, 270, 30, 45):
        turned = ("-i", tmp_path / "b.mp4", "-c", "copy", "-metadata:s:v", f"rotate={turn}")
        films[f"turned_{turn}.mp4"] = remux(tmp_path / f"turned_{turn}.mp4", *turned)
    readers = {}
    for name, data in films.items():
        expected = decode(data, "pyav")
        for reader in ("auto", "torchcodec"):
            media = decode(data, reader)
            assert_same(media, expected, f"{name} by {reader}")
            readers[name] = (media.reader or "").partition(":")[0]
    seeking = {"b.mp4", "hevc_closed.mkv", "uneven.mkv", "av1.mkv", "fragmented.mp4", "bt709.mp4", "turned_90.mp4"}
    assert {name for name in seeking if readers[name] != "torchcodec"} == set()
    assert readers["b.avi"] == readers["b.ts"] == readers["open.mkv"] == "pyav"


@pytest.mark.long
@pytest.mark.shared
@needs_torchcodec
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not there")
def test_shared_videos_are_read_alike() -> None:
    paths = sorted([*(SHARED / "data" / "videos").iterdir(), *(SHARED / "cases" / "videos").iterdir()])
    expected = {path.name: decode(path.read_bytes(), "pyav") for path in paths}
    for path, reader in product(paths, ("auto", "torchcodec")):
        assert_same(decode(path.read_bytes(), reader), expected[path.name], f"{path.name} by {reader}")
