"""What some viewer shows besides the first picture: frames that are not counted, and what lies behind an animation."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media import ends, layers
from moderation.media import png as png_chunks
from moderation.media.behind import find_behind
from moderation.media.ends import end_of_gif, end_of_jpeg, find_scan
from moderation.media.limits import start_deadline
from moderation.media.objects import decode_object
from moderation.media.png import SIGNATURE, chunks, keep_what_shows
from moderation.types import ErrorCode, Kind, Media, Role
from tests.drawn_media import encode, jpegs, mp4

GREY, RED, BLUE = ((120, 130, 120), (230, 10, 10), (20, 20, 200))
SIZE = (80, 60)


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", SIZE, colour)


def decode(data: bytes, **limits: object) -> Media:
    return decode_object(True, data, MediaConfig().model_copy(update=limits), start_deadline(60))


def shows_red(media: Media) -> bool:
    return any(f.pixels[..., 0].mean() > 200 and f.pixels[..., 1].mean() < 60 for f in media.frames)


def idat(colour: tuple[int, int, int]) -> bytes:
    data = encode(plain(colour), "PNG")
    return b"".join(data[start + 8 : end - 4] for kind, start, end in chunks(data) if kind == b"IDAT")


def png(*parts: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 2, 0, 0, 0))
    body = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in (head, *parts)]
    return SIGNATURE + b"".join(body) + b"\0\0\0\0IEND\xaeB`\x82"


def control(number: int) -> tuple[bytes, bytes]:
    return b"fcTL", struct.pack(">IIIIIHHBB", number, *SIZE, 0, 0, 1, 1, 0, 0)


def told(frames: int) -> tuple[bytes, bytes]:
    return b"acTL", struct.pack(">II", frames, 0)


FIRST, SECOND = (b"IDAT", idat(GREY)), (b"fdAT", struct.pack(">I", 2) + idat(RED))


@pytest.mark.parametrize(
    "data",
    [
        png(told(1), control(0), FIRST, control(1), SECOND),
        png(control(0), FIRST, control(1), SECOND),
        png(control(0), FIRST, told(2), control(1), SECOND),
        png(told(0), FIRST, control(0), (b"fdAT", struct.pack(">I", 1) + idat(RED))),
        png(told(2), told(2), control(0), FIRST, control(1), SECOND),
        png(told(1), control(0), told(2), FIRST, told(2), control(1), SECOND),
        png(told(2), control(0), FIRST, told(2), control(1), SECOND),
        png(told(2**31), control(0), FIRST, control(1), SECOND),
        png(told(2**32 - 1), control(0), FIRST, control(1), SECOND),
        png((b"acTL", b""), control(0), FIRST, control(1), SECOND),
    ],
    ids=[
        "fewer told",
        "not told",
        "told late",
        "none told",
        "told twice",
        "told thrice",
        "told before and behind",
        "too many told",
        "most told",
        "told without a number",
    ],
)
def test_frames_of_a_png_are_seen_whatever_it_says_of_their_number(data: bytes) -> None:
    media = decode(data)
    assert media.kind is Kind.ANIMATION and media.frames_total == 2 and shows_red(media)
    assert media.error is None


@pytest.mark.parametrize("frames", [2, 1_000_000])
def test_a_png_that_says_enough_is_left_as_it_is(frames: int) -> None:
    data = png(told(frames), control(0), FIRST, control(1), SECOND)
    assert keep_what_shows(data).data == data


def moving(format_: str, *colours: tuple[int, int, int]) -> bytes:
    first, *rest = map(plain, colours)
    return encode(first, format_, save_all=True, append_images=rest, duration=100)


BEHIND = {
    "jpeg": encode(plain(RED), "JPEG"),
    "png": encode(plain(RED), "PNG"),
    "gif": encode(plain(RED), "GIF"),
    "moving gif": moving("GIF", GREY, RED),
    "video": mp4([encode(plain(RED), "JPEG")] * 3, size=SIZE),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("frames", [1, 2])
def test_what_lies_behind_a_picture_or_an_animation_is_seen(format_: str, frames: int, behind: str) -> None:
    front = encode(plain(GREY), format_) if frames == 1 else moving(format_, GREY, BLUE)
    media = decode(front + BEHIND[behind])
    assert shows_red(media) and media.error is None and not media.unseen
    indices = [frame.index for frame in media.frames]
    assert all(a < b for a, b in pairwise(indices)) and indices[-1] < media.frames_total


def test_what_there_is_no_room_for_behind_an_animation_is_unseen() -> None:
    media = decode(moving("GIF", GREY, BLUE) + BEHIND["video"], max_frames=2)
    assert media.unseen == ("track",)


def test_the_end_of_a_gif_is_where_its_blocks_end() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8))
    for data in (encode(noise, "GIF"), moving("GIF", GREY, BLUE, RED), encode(noise, "GIF", comment=b"a;b" * 200)):
        assert end_of_gif(data) == len(data)
        assert end_of_gif(data + BEHIND["gif"]) == len(data)
        assert end_of_gif(b"xy" + data, 2) == len(data) + 2
        assert all(end_of_gif(data[:cut]) is None for cut in range(20, len(data) - 1, 97))


COMMENT = b"!\xfe\0"


def assert_red_is_seen_behind_a_gif(stuffing: bytes) -> None:
    media = decode(encode(plain(GREY), "GIF").removesuffix(b";") + stuffing + b";" + BEHIND["jpeg"])
    assert len(media.frames) == media.frames_total == 2 and shows_red(media)


@pytest.mark.parametrize("stuffing", [COMMENT * 200_001, b"\0", b"garbage"], ids=["comments", "a zero", "garbage"])
def test_no_stuffing_of_a_gif_hides_what_lies_behind(stuffing: bytes) -> None:
    assert_red_is_seen_behind_a_gif(stuffing)


@pytest.mark.parametrize("stuffing", [COMMENT * 50, b"!\xfe" + b"\1a" * 50 + b"\0"], ids=["comments", "parts"])
def test_where_a_gif_has_too_many_blocks_the_rest_is_searched(stuffing: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "MAX_BLOCKS", 20)
    assert_red_is_seen_behind_a_gif(stuffing)
    data = encode(plain(GREY), "GIF").removesuffix(b";") + stuffing + b";"
    end = end_of_gif(data)
    assert end is not None and end < len(data) - 50


def nothing_is_hidden(data: bytes) -> bool:
    media = decode(data)
    return media.error is not None or bool(media.unseen) or shows_red(media)


def test_no_stuffing_between_layers_of_a_gif_hides_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_BLOCKS", 20)
    film = moving("GIF", GREY, RED)
    second = film.rindex(b"!\xf9\4")
    assert nothing_is_hidden(film[:second] + b"!\xfe" + b"\1a" * 50 + b"\0" + film[second:])


@pytest.mark.parametrize("kind", ["jpeg", "png", "apng"])
def test_no_stuffing_of_a_jpeg_or_png_hides_what_follows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_MAX_MARKERS", 20)
    monkeypatch.setattr(png_chunks, "MAX_CHUNKS", 30)
    if kind == "jpeg":
        data = encode(plain(GREY), "JPEG")
        stuffed = data[:2] + b"\xff\xfe\0\2" * 50 + data[2:] + BEHIND["jpeg"]
    else:
        junk = (b"juNk", b"")
        moves = [control(0), FIRST, *[junk] * 50, control(1), SECOND]
        stuffed = png(told(1), *moves) if kind == "apng" else png(*[junk] * 50, FIRST) + BEHIND["jpeg"]
    assert nothing_is_hidden(stuffed)


def test_a_fill_byte_before_a_marker_hides_no_jpeg_behind() -> None:
    def comment(body: bytes) -> bytes:
        return b"\xff\xfe" + struct.pack(">H", len(body) + 2) + body

    grey, red = encode(plain(GREY), "JPEG"), encode(plain(RED), "JPEG")
    first = b"\xff\xd8\xff" + comment(b"ab") + grey[2:]
    # Where a reader lands that takes the fill byte for a marker of 0xFE00 bytes: a comment of the second that reads
    # as the start of its scan.
    padding = comment(bytes(60_000))
    body = bytearray(60_000)
    at = 4 + int.from_bytes(first[4:6], "big") - (len(first) + 2 + len(padding) + 4)
    body[at : at + 2] = b"\xff\xda"
    media = decode(first + red[:2] + padding + comment(bytes(body)) + red[2:])
    assert shows_red(media) and len(media.frames) == 2


def test_fill_bytes_take_no_more_time_than_their_number() -> None:
    picture, fill = encode(plain(GREY), "JPEG"), b"\xff" * 30_000
    scan = find_scan(picture, 0)
    assert scan is not None and find_scan(picture[:2] + fill + picture[2:], 0) == scan + len(fill)
    stuffed = picture[:-2] + fill + b"\0" + picture[-2:]
    began_s = time.process_time()
    assert end_of_jpeg(stuffed) == len(stuffed)
    assert end_of_jpeg(picture[:-2] + fill + picture) == len(picture) - 2 + len(fill)
    assert time.process_time() - began_s < 1  # it was 4 s, and 1 MB took an hour


def test_the_end_of_a_large_jpeg_is_found_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, fill = encode(plain(GREY), "JPEG"), b"\xff" * (3 << 20)
    tracemalloc.start()
    try:
        assert find_behind(picture[:-2] + fill + picture[-2:], MediaType.JPEG, start_deadline(9)) == []
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    behind = encode(plain(RED), "JPEG")
    for window in (1, 2, 3, 1000):
        monkeypatch.setattr("moderation.media.behind._WINDOW_BYTES", window)
        assert not find_behind(picture, MediaType.JPEG, start_deadline(9))
        assert len(find_behind(picture + behind, MediaType.JPEG, start_deadline(9))) == 1


def test_what_is_behind_and_shown_otherwise_by_others_is_kept() -> None:
    y, x = np.mgrid[0:60, 0:80]
    alpha = np.where((x // 20 + y // 20) % 2, 255, 20)
    colour = np.clip((alpha - 20) * 255 / alpha, 0, 255)  # 235 over white
    behind = Image.fromarray(np.stack([colour] * 3 + [alpha], -1).astype(np.uint8), "RGBA")
    media = decode(encode(Image.new("RGB", (120, 90), (235, 235, 235)), "JPEG") + encode(behind, "PNG"))
    assert Role.BACKDROP in {frame.role for frame in media.frames}


def test_the_search_behind_a_picture_keeps_the_deadline() -> None:
    data = encode(plain(GREY), "JPEG") + b"\xff\xd8\xff\xfe\0\4" * 8000
    with pytest.raises(ItemError) as ended:
        find_behind(data, MediaType.JPEG, start_deadline(0.05))
    assert ended.value.code is ErrorCode.TIMEOUT


def test_a_cut_gif_with_nothing_behind_is_truncated_as_before() -> None:
    film = moving("GIF", GREY, *[(k, 0, 90) for k in range(0, 200, 20)])
    assert decode(film[: len(film) // 2]).error in (ErrorCode.TRUNCATED, None)
    assert decode(jpegs(1)[0]).kind is Kind.IMAGE
