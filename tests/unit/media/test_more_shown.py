"""What a player shows besides the frames (transparency, a second view, drawn subtitles) keeps a video from a pass."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moderation.errors import ItemError
from moderation.media.announced import announced_samples
from moderation.media.bitstream import unit_heads
from moderation.media.more_shown import _has_second_view
from moderation.types import ErrorCode
from tests.drawn_media import encode, jpegs, mp4
from tests.unit.media.test_video_matrix import B_FRAMES, decode, draw, ffmpeg, needs_ffmpeg, remux

FLAT = ["-f", "lavfi", "-i", "color=gray:s=160x120:r=25:d=1"]
PATTERN = ["-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=1"]


def lengths(*units: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def start_codes(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


AVCC, HVCC = b"\1" + bytes(3) + b"\xff", b"\1" + bytes(20) + b"\xff"
IDR, VIEW = b"\x65picture", b"\x74picture"
BASE, LAYER, LAYER_HEADER = b"\x26\x01picture", b"\x26\x09picture", b"\x40\x09header"


@pytest.mark.parametrize(
    ("codec", "units", "more"),
    [
        ("h264", [IDR], False),
        ("h264", [b"\x67sps", b"\x68pps", IDR, VIEW], True),
        ("hevc", [BASE], False),
        ("hevc", [BASE, LAYER_HEADER], False),
        ("hevc", [BASE, LAYER], True),
        ("hevc", [BASE] * 200 + [LAYER], True),
    ],
)
def test_units_of_a_second_view_are_told_from_the_first(codec: str, units: list[bytes], more: bool) -> None:
    extradata = AVCC if codec == "h264" else HVCC
    assert _has_second_view(codec, extradata, lengths(*units)) == more
    assert _has_second_view(codec, b"", start_codes(*units)) == more


@pytest.mark.parametrize("packet", [b"", b"\0\0\1", b"\0\0\0\1\x26", b"\xff\xff\xff\xff\x26\x01", bytes(9)])
def test_units_of_broken_packets_end(packet: bytes) -> None:
    for extradata in (b"", HVCC):
        assert len(list(unit_heads("hevc", extradata, packet))) <= 1
        assert not _has_second_view("hevc", extradata, packet)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webm", "-pix_fmt yuva420p -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -auto-alt-ref 0"),
        ("b.webm", "-pix_fmt yuva420p -c:v libvpx -deadline realtime -cpu-used 8 -auto-alt-ref 0"),
        ("c.mov", "-pix_fmt yuva444p10le -c:v prores_ks -profile:v 4444"),
        ("d.mkv", "-pix_fmt yuva420p -c:v ffv1"),
    ],
)
def test_a_picture_drawn_by_transparency_is_unseen(name: str, options: str, tmp_path: Path) -> None:
    merged = ["-filter_complex", "[1]format=gray[alpha];[0][alpha]alphamerge"]
    media = decode(remux(tmp_path / name, *FLAT, *PATTERN, *merged, *options.split()))
    assert media.error is None and media.frames and media.unseen == ("track",)


@pytest.mark.parametrize("behind", [b"", encode(Image.new("RGB", (64, 48), "red"), "JPEG")])
def test_a_jpeg_behind_each_picture_is_unseen(behind: bytes) -> None:
    pictures = [picture + behind for picture in jpegs(4, 64, 48)]
    assert decode(mp4(pictures, size=(64, 48))).unseen == (("track",) if behind else ())


def bitmap_subtitle(width: int = 160, height: int = 120) -> bytes:
    """One PGS subtitle that covers the picture for two seconds."""

    def segment(kind: int, body: bytes, pts: int = 9000) -> bytes:
        return b"PG" + struct.pack(">IIBH", pts, 0, kind, len(body)) + body

    line = (bytes([0, 0xC0 | width >> 8, width & 255, 1]) if width > 63 else bytes([0, 0x80 | width, 1])) + b"\0\0"
    shape = struct.pack(">HH", width, height) + line * height
    window = segment(0x17, struct.pack(">BBHHHH", 1, 0, 0, 0, width, height))
    screen = struct.pack(">HHB", width, height, 0x10)
    shown = segment(0x16, screen + struct.pack(">HBBBBHBBHH", 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0)) + window
    drawn = segment(0x14, bytes([0, 0, 1, 81, 240, 90, 255]))
    drawn += segment(0x15, struct.pack(">HBBI", 0, 0, 0xC0, len(shape))[:4] + (len(shape)).to_bytes(3, "big") + shape)
    return shown + drawn + segment(0x80, b"")


@needs_ffmpeg
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "copy"), ("b.mkv", "dvdsub"), ("c.ts", "dvbsub")])
def test_subtitles_that_are_pictures_are_unseen(name: str, codec: str, tmp_path: Path) -> None:
    (tmp_path / "a.sup").write_bytes(bitmap_subtitle())
    inputs = [*PATTERN, "-i", tmp_path / "a.sup", "-map", "0", "-map", "1"]
    media = decode(remux(tmp_path / name, *inputs, *B_FRAMES.split(), "-c:s", codec))
    assert media.error is None and media.frames and media.unseen == ("track",)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec", "words", "unseen"),
    [
        ("a.mkv", "ass", "Hello", ()),
        ("b.mkv", "ass", r"{\p1}m 0 0 l 160 0 160 120 0 120{\p0}", ("track",)),
        ("c.mkv", "srt", "Hello", ()),
        ("d.mp4", "mov_text", "Hello", ()),
    ],
)
def test_subtitles_that_are_text_are_let_be(
    name: str, codec: str, words: str, unseen: tuple[str, ...], tmp_path: Path
) -> None:
    fields = "Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text"
    line = f"Dialogue: 0,0:00:00.10,0:00:00.90,Default,,0,0,0,,{words}"
    (tmp_path / "a.ass").write_text(f"[Script Info]\n[Events]\nFormat: {fields}\n{line}\n", encoding="ascii")
    inputs = [*PATTERN, "-i", tmp_path / "a.ass", "-map", "0", "-map", "1"]
    assert decode(remux(tmp_path / name, *inputs, *B_FRAMES.split(), "-c:s", codec)).unseen == unseen


@needs_ffmpeg
def test_an_encrypted_film_is_not_scored(tmp_path: Path) -> None:
    keys = f"-encryption_scheme cenc-aes-ctr -encryption_key {'76' * 16} -encryption_kid {'a7' * 16}"
    data = remux(tmp_path / "a.mp4", *PATTERN, *B_FRAMES.split(), *keys.split())
    with pytest.raises(ItemError) as raised:
        decode(data)
    assert raised.value.code is ErrorCode.UNSUPPORTED_TYPE


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_second_view_is_unseen(name: str, tmp_path: Path) -> None:
    options = ["-c:v", "libx265", "-x265-params", "log-level=none:keyint=25:bframes=0"]
    first, second = (remux(tmp_path / f"{n}.hevc", *source, *options) for n, source in enumerate((FLAT, PATTERN)))
    views = zip(access_units(first), access_units(second), strict=True)
    (tmp_path / "both.hevc").write_bytes(b"".join(a + in_layer_1(b) for a, b in views))
    ffmpeg("-r", "25", "-f", "hevc", "-i", tmp_path / "both.hevc", "-c", "copy", tmp_path / name)
    media = decode((tmp_path / name).read_bytes())
    assert media.frames and media.unseen == ("track",)


def access_units(stream: bytes) -> list[bytes]:
    """A stream with one slice a picture, cut behind each slice."""
    units = [unit for unit in re.split(b"\0\0\0?\1", stream) if unit]
    pictures, current = [], b""
    for unit in units:
        current += b"\0\0\0\1" + unit
        if unit[0] >> 1 & 0x3F < 32:
            pictures.append(current)
            current = b""
    return pictures


def in_layer_1(picture: bytes) -> bytes:
    units = [unit for unit in picture.split(b"\0\0\0\1") if unit]
    return b"".join(b"\0\0\0\1" + bytes([unit[0], unit[1] | 8]) + unit[2:] for unit in units)


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def edit_list(*edits: tuple[float, float]) -> bytes:
    """edits: (length, begin) in seconds."""
    entries = [struct.pack(">IiHH", int(length * 1000), int(begin * 12800), 1, 0) for length, begin in edits]
    return box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)), *entries))


def movie_of(*tracks: tuple[int, int]) -> bytes:
    """The boxes of a movie; tracks: (id, samples)."""
    numbers = [(struct.pack(">I", number), struct.pack(">I", samples)) for number, samples in tracks]
    traks = [
        box(b"trak", box(b"tkhd", bytes(12), n, bytes(68)), box(b"mdia", box(b"minf", box(b"stbl", size))))
        for n, count in numbers
        for size in [box(b"stsz", bytes(8), count)]
    ]
    return box(b"ftyp", b"isom") + box(b"moov", *traks)


def fragment(number: int, *runs: int) -> bytes:
    truns = [box(b"trun", bytes(4), struct.pack(">I", samples)) for samples in runs]
    return box(b"moof", box(b"traf", box(b"tfhd", bytes(4), struct.pack(">I", number)), *truns))


def test_the_pictures_that_a_movie_announces_are_counted() -> None:
    assert announced_samples(b"") == announced_samples(movie_of()) == []
    assert announced_samples(movie_of((1, 75), (2, 40))) == [75, 40]
    assert announced_samples(movie_of((1, 0), (2, 0)) + fragment(2, 25, 25) + fragment(1, 10) + fragment(2, 5)) == [
        10,
        55,
    ]
    assert announced_samples(movie_of((1, 3), (1, 4))) == [3, 4]


@given(st.data())
def test_broken_movies_are_survived(data: st.DataObject) -> None:
    film = bytearray(movie_of((1, 75), (2, 40)) + fragment(1, 25))
    for _ in range(data.draw(st.integers(1, 4))):
        film[data.draw(st.integers(0, len(film) - 1))] = data.draw(st.integers(0, 255))
    assert all(count >= 0 for count in announced_samples(bytes(film[: data.draw(st.integers(0, len(film)))])))


@needs_ffmpeg
@pytest.mark.parametrize("edits", [[(1, 0.08), (1, 2.08)], [(1, 2.08), (1, 0.08)], [(0.8, 2.1)], [(1, 50)]])
def test_what_an_edit_list_leaves_out_is_seen(edits: list[tuple[float, float]], tmp_path: Path) -> None:
    """Players that know lists of one entry only (Firefox, Android) show the second in white between two entries."""
    film = draw(tmp_path / "a.mp4", B_FRAMES)
    start, moov, trak = film.index(b"edts") - 4, film.rindex(b"moov") - 4, film.index(b"trak") - 4
    end = start + int.from_bytes(film[start : start + 4], "big")
    scale = film.index(b"mdhd") + 16
    assert film[scale : scale + 4] == struct.pack(">I", 12800)
    new = edit_list(*edits)
    data = bytearray(film[:start] + new + film[end:])
    for at in (moov, trak):
        size = int.from_bytes(data[at : at + 4], "big") + len(new) - (end - start)
        data[at : at + 4] = struct.pack(">I", size)
    media = decode(bytes(data))
    assert media.error is None and any(frame.pixels.mean() > 240 for frame in media.frames)
    for before in (box(b"\xa9abc"), fragment(99)):  # FFmpeg reads over both
        media = decode(bytes(data[:moov]) + before + bytes(data[moov:]))
        assert media.unseen or any(frame.pixels.mean() > 240 for frame in media.frames)


@needs_ffmpeg
def test_a_track_of_which_an_edit_list_shows_nothing_is_told(tmp_path: Path) -> None:
    inputs = "-f lavfi -i color=black:s=160x120:r=25:d=9 -f lavfi -i color=white:s=160x120:r=25:d=9 -map 0 -map 1"
    film = bytearray(remux(tmp_path / "two.mp4", *inputs.split(), *B_FRAMES.split()))
    entry = film.rindex(b"elst") + 4 + 4 + 4  # the second track's: its first entry
    film[entry + 4 : entry + 8] = b"\xff" * 4  # media_time -1: an empty edit
    media = decode(bytes(film))
    assert media.unseen or any(frame.pixels.mean() > 240 for frame in media.frames)


@needs_ffmpeg
def test_pictures_that_the_index_of_an_avi_leaves_out_are_seen(tmp_path: Path) -> None:
    film = bytearray(draw(tmp_path / "a.avi", B_FRAMES))
    index = film.rindex(b"idx1") + 8
    for entry in range(20, 55):  # the second in white: all point to one picture before it
        film[index + 16 * entry + 8 : index + 16 * entry + 12] = film[index + 168 : index + 172]
    media = decode(bytes(film))
    assert media.error is None and any(frame.pixels.mean() > 240 for frame in media.frames)


@needs_ffmpeg
@pytest.mark.parametrize("kind", [b"tfdt", b"stts"])
def test_pictures_at_one_time_are_seen_or_told(kind: bytes, tmp_path: Path) -> None:
    fragmented = " -movflags frag_keyframe+empty_moov" if kind == b"tfdt" else ""
    film = bytearray(draw(tmp_path / "a.mp4", B_FRAMES + fragmented))
    for found in list(re.finditer(kind, bytes(film))):
        at = found.start() + (4 if kind == b"tfdt" else 12)
        if kind == b"tfdt":
            film[at + 4 : at + (12 if film[at] else 8)] = bytes(8 if film[at] else 4)
        else:
            for entry in range(int.from_bytes(film[found.start() + 8 : found.start() + 12], "big")):
                film[at + 8 * entry + 4 : at + 8 * entry + 8] = bytes(4)
    media = decode(bytes(film))
    assert media.unseen or media.error or any(frame.pixels.mean() > 240 for frame in media.frames)


@needs_ffmpeg
def test_pictures_that_grow_behind_a_tiny_first_one_keep_their_size(tmp_path: Path) -> None:
    """decord scales all pictures to the size of the first."""
    vp9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"]
    draw_of = {"a.ivf": "color=gray:s=16x16:r=25:d=1", "b.ivf": "testsrc2=s=160x120:r=25:d=1"}
    for name, picture in draw_of.items():
        remux(tmp_path / name, "-f", "lavfi", "-i", picture, *vp9)
    (tmp_path / "list.txt").write_text("file a.ivf\nfile b.ivf\n", encoding="ascii")
    media = decode(remux(tmp_path / "a.webm", "-f", "concat", "-i", tmp_path / "list.txt", "-c", "copy"))
    assert {(frame.width, frame.height) for frame in media.frames} == {(16, 16), (160, 120)}
