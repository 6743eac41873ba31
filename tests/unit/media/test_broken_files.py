"""Every broken file gets its code, every good one comes out unharmed; nothing raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moderation.media import decode_item
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject
from tests.broken_files import LIMITS, make_broken_files, make_good_files
from tests.drawn_media import QUADRANTS

NOT_SHOWN_BY_A_FILE = {
    ErrorCode.CHANGED,
    ErrorCode.NOT_FOUND,
    ErrorCode.FORBIDDEN,
    ErrorCode.FETCH_FAILED,
    ErrorCode.DECODER_CRASHED,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.SCORE_FAILED,
}


def decode(path: Path) -> Media:
    item = Item(item_id=path.name, uri=path.name, objects=(MediaObject(uri=path.name, name=path.name),))
    return decode_item(item, [path.read_bytes()], LIMITS)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ErrorCode]]:
    folder = tmp_path_factory.mktemp("broken")
    return folder, make_broken_files(folder)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_good_files(folder)
    return folder


def test_there_are_forty_broken_files_that_show_every_code_a_file_can(
    broken: tuple[Path, dict[str, ErrorCode]],
) -> None:
    _, codes = broken
    assert len(codes) == 40
    assert set(codes.values()) == set(ErrorCode) - NOT_SHOWN_BY_A_FILE


def test_each_broken_file_gets_its_code(broken: tuple[Path, dict[str, ErrorCode]]) -> None:
    folder, codes = broken
    assert {name: decode(folder / name).error for name in codes} == codes


def test_only_truncated_files_have_frames(broken: tuple[Path, dict[str, ErrorCode]]) -> None:
    folder, codes = broken
    quick = {n: c for n, c in codes.items() if c is not ErrorCode.TIMEOUT}
    for name, code in quick.items():
        media = decode(folder / name)
        assert bool(media.frames) == (code is ErrorCode.TRUNCATED), name
        assert media.error_detail, name


@pytest.mark.parametrize("name", ["cut.jpg", "cut_progressive.jpg", "cut.png", "cut.gif", "cut.webp"])
def test_the_head_of_a_cut_picture_shows(broken: tuple[Path, dict[str, ErrorCode]], name: str) -> None:
    frame = decode(broken[0] / name).frames[0]
    assert (frame.width, frame.height) == (640, 480)
    height, width = frame.pixels.shape[:2]
    for k, colour in enumerate(QUADRANTS[:2]):
        patch = frame.pixels[height // 8 : height // 4, width * (1 + 2 * k) // 4 - 9 : width * (1 + 2 * k) // 4 + 9]
        assert np.abs(patch.mean(axis=(0, 1)) - colour).max() < 30


def test_each_good_file_comes_out_unharmed(good: Path, tmp_path: Path) -> None:
    for name, expected in make_good_files(tmp_path).items():
        media = decode(good / name)
        assert media.error is None, f"{name}: {media.error_detail}"
        found = (media.kind, media.width, media.height, media.frames_total, len(media.frames))
        assert found == (
            expected.kind,
            expected.width,
            expected.height,
            expected.frames_total,
            expected.frames_total,
        ), name


def test_good_files_show_the_quadrants_that_were_drawn(good: Path, tmp_path: Path) -> None:
    for name, expected in make_good_files(tmp_path).items():
        if not expected.coloured:
            continue
        pixels = decode(good / name).frames[0].pixels
        height, width = pixels.shape[:2]
        for k, colour in enumerate(QUADRANTS):
            row, column = height * (1 + 2 * (k // 2)) // 4, width * (1 + 2 * (k % 2)) // 4
            patch = pixels[row - 20 : row + 20, column - 20 : column + 20].mean(axis=(0, 1))
            assert np.abs(patch - colour).max() < 25, f"{name}: quadrant {k} is {patch}"


def test_broken_neighbours_in_an_album_leave_the_good_members_as_they_are(
    good: Path, broken: tuple[Path, dict[str, ErrorCode]]
) -> None:
    paths = [good / "plain.jpg", broken[0] / "noise.jpg", broken[0] / "README.md", good / "plain.png"]
    objects = tuple(MediaObject(uri=p.name, name=p.name) for p in paths)
    album = Item(item_id="a", uri="a", objects=objects, kind=Kind.ALBUM)
    media = decode_item(album, [p.read_bytes() for p in paths], LIMITS)
    assert media.error is ErrorCode.CORRUPT
    assert media.error_detail.startswith("2 of 4 members: corrupt")
    assert len(media.frames) == 2
    for frame, path in zip(media.frames, (paths[0], paths[3]), strict=True):
        assert np.array_equal(frame.pixels, decode(path).frames[0].pixels)
