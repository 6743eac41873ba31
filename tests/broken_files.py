"""Forty broken files, each with the code that it must get, and the good neighbours that must come out unharmed.

All are drawn or written here. `LIMITS` are the limits under which the codes hold; everything else is at its default.
Codes that no file can show (not_found, forbidden, fetch_failed, decoder_crashed, out_of_memory, score_failed) are
provoked where they arise.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moderation.config.model import MediaConfig
from moderation.types import ErrorCode, Kind
from tests.drawn_media import avi, draw, encode, jpegs, matroska, mp4

LIMITS = MediaConfig(max_bytes=4 * 1024 * 1024, max_seconds=3600, decode_timeout_s=5)

_TIMEOUT_SCANS = 30_000  # of 6 MP: 20 s of decoding in 1.2 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """What a good file must decode to. `coloured`: its first frame shows the four quadrants of `drawn_media.draw`."""

    kind: Kind
    width: int = 320
    height: int = 240
    frames_total: int = 1
    coloured: bool = True


def make_broken_files(folder: Path) -> dict[str, ErrorCode]:
    """Write the broken files into `folder` (made if missing); name -> expected code."""
    files = {**_not_media(), **_mislabelled(), **_truncated(), **_corrupt(), **_over_limits()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: code for name, (_, code) in files.items()}


def make_good_files(folder: Path) -> dict[str, Good]:
    """Write a good file of each format into `folder` (made if missing); name -> what it must decode to."""
    files = {**_good_jpegs(), **_good_pictures(), **_good_animations(), **_good_videos()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: good for name, (_, good) in files.items()}


_Broken = dict[str, tuple[bytes, ErrorCode]]
_Good = dict[str, tuple[bytes, Good]]


def _not_media() -> _Broken:
    code = ErrorCode.NOT_MEDIA
    return {
        "README.md": (b"# Pictures\n\nGathered in May.\n", code),
        "cut.json": (json.dumps({"caption": "beside its picture"}).encode(), code),
    }


def _mislabelled() -> _Broken:
    code = ErrorCode.UNSUPPORTED_TYPE
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "text")
    return {
        "text.jpg": (b"This is a text, whatever its name says.\n" * 30, code),
        "page.png": (b"<!doctype html><html><title>404</title></html>", code),
        "archive.webp": (archive.getvalue(), code),
        "document.jpg": (b"%PDF-1.7\n1 0 obj <<>> endobj\n%%EOF\n", code),
        "program.gif": (b"\x7fELF\x02\x01\x01" + bytes(200), code),
        "next_generation.jxl": (b"\xff\x0a" + bytes(100), code),
    }


def _truncated() -> _Broken:
    code = ErrorCode.TRUNCATED
    picture = draw(640, 480)
    films = [draw(200, 150, shift=k) for k in range(6)]
    frames = jpegs(12)

    def cut(data: bytes, share: float = 0.6) -> bytes:
        return data[: int(len(data) * share)]

    return {
        "cut.jpg": (cut(encode(picture, "JPEG")), code),
        "cut_progressive.jpg": (cut(encode(picture, "JPEG", progressive=True)), code),
        "cut.png": (cut(encode(picture, "PNG")), code),
        "cut.gif": (cut(encode(picture, "GIF", interlace=0)), code),
        "cut.webp": (cut(encode(picture, "WEBP")), code),
        "cut.bmp": (cut(encode(picture, "BMP")), code),
        "cut_animation.gif": (cut(encode(films[0], "GIF", **_film(films))), code),
        "cut_animation.webp": (cut(encode(films[0], "WEBP", **_film(films))), code),
        "cut_in_the_middle.mp4": (cut(mp4(frames)), code),
        "cut_in_the_middle.webm": (cut(matroska(frames)), code),
        "cut_in_the_middle.avi": (cut(avi(frames)), code),
    }


def _corrupt() -> _Broken:
    code = ErrorCode.CORRUPT
    picture = draw()
    noise = random.Random(5).randbytes
    ftyp = b"\0\0\0\x18ftyp%s\0\0\0\0%smif1"
    return {
        "head_only.jpg": (encode(picture, "JPEG")[:180], code),
        "noise.jpg": (b"\xff\xd8\xff\xe0" + noise(3000), code),
        "noise.png": (encode(picture, "PNG")[:33] + noise(3000), code),
        "noise.gif": (b"GIF89a" + noise(3000), code),
        "noise.webp": (b"RIFF" + struct.pack("<I", 3012) + b"WEBPVP8 " + noise(3000), code),
        "noise.tiff": (b"II*\0" + struct.pack("<I", 8) + noise(3000), code),
        "noise.jp2": (encode(picture, "JPEG2000")[:40] + noise(3000), code),
        "noise.avif": (ftyp % (b"avif", b"avif") + noise(3000), code),
        "noise.mp4": (ftyp % (b"isom", b"mp42") + noise(3000), code),
        "noise.webm": (b"\x1aE\xdf\xa3" + noise(3000), code),
        "cut_before_moov.mp4": (mp4(jpegs(12), moov_last=True)[:50_000], code),
    }


def _over_limits() -> _Broken:
    picture = encode(draw(), "JPEG")
    return {
        "empty.jpg": (b"", ErrorCode.EMPTY),
        "bomb.png": (_bomb_png(30_000), ErrorCode.TOO_MANY_PIXELS),
        "huge.gif": (_patched(encode(draw(), "GIF"), 6, struct.pack("<HH", 65_000, 65_000)), ErrorCode.TOO_MANY_PIXELS),
        "huge.bmp": (
            _patched(encode(draw(), "BMP"), 18, struct.pack("<ii", 90_000, 90_000)),
            ErrorCode.TOO_MANY_PIXELS,
        ),
        "huge.jpg": (_patched(picture, picture.index(b"\xff\xc0") + 5, b"\xfd\xe8\xfd\xe8"), ErrorCode.TOO_MANY_PIXELS),
        "huge.webp": (_huge_webp(), ErrorCode.TOO_MANY_PIXELS),
        "too_large.jpg": (picture + bytes(LIMITS.max_bytes), ErrorCode.TOO_LARGE),
        "too_long.mp4": (mp4(jpegs(4), frame_s=3600), ErrorCode.TOO_LONG),
        "sound_only.mp4": (mp4([bytes(4000)] * 4, audio_only=True), ErrorCode.NO_FRAMES),
        "many_scans.jpg": (many_scans_jpeg(_TIMEOUT_SCANS), ErrorCode.TIMEOUT),
    }


def many_scans_jpeg(scans: int, side: int = 2448) -> bytes:
    """A progressive JPEG of side x side that repeats a scan: 40 bytes each, each a walk over the whole picture."""
    data = encode(draw(side, side).convert("L").point(lambda _: 90), "JPEG", progressive=True)
    starts = [i for i in range(len(data)) if data.startswith(b"\xff\xda", i)]
    last = data[starts[-1] : -2]
    return data[:-2] + last * scans + data[-2:]


def _film(pictures: list[object]) -> dict[str, object]:
    return {"save_all": True, "append_images": pictures[1:], "duration": 200, "loop": 0}


def _bomb_png(side: int) -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(side // 8 + 1)
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _huge_webp() -> bytes:
    side = (16_383).to_bytes(3, "little")
    still = encode(draw(), "WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<II", 10, 2) + side + side + still
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def _good_jpegs() -> _Good:
    picture, image = draw(), Good(kind=Kind.IMAGE)
    turns: dict[int, Callable[[], object]] = {
        3: lambda: picture.rotate(180),
        6: lambda: picture.rotate(90, expand=True),
        8: lambda: picture.rotate(-90, expand=True),
    }
    files: _Good = {
        "plain.jpg": (encode(picture, "JPEG"), image),
        "progressive.jpg": (encode(picture, "JPEG", progressive=True), image),
        "full_colour.jpg": (encode(picture, "JPEG", subsampling=0), image),
        "grey.jpg": (encode(picture.convert("L"), "JPEG"), Good(kind=Kind.IMAGE, coloured=False)),
        "cmyk.jpg": (encode(picture.convert("CMYK"), "JPEG"), image),
        "large.jpg": (encode(draw(3000, 2000), "JPEG"), Good(kind=Kind.IMAGE, width=3000, height=2000)),
        "really_a_png.jpg": (encode(picture, "PNG"), image),
    }
    for orientation, turned in turns.items():
        exif = picture.getexif()
        exif[0x0112] = orientation
        files[f"turned_{orientation}.jpg"] = (encode(turned(), "JPEG", exif=exif.tobytes()), image)
    return files


def _good_pictures() -> _Good:
    picture, image = draw(), Good(kind=Kind.IMAGE)
    deep = picture.convert("L").point(lambda v: v * 257, "I").convert("I;16")
    files: _Good = {
        "plain.png": (encode(picture, "PNG"), image),
        "palette.png": (encode(picture.quantize(64), "PNG"), image),
        "alpha.png": (encode(picture.convert("RGBA"), "PNG"), image),
        "sixteen_bit.png": (encode(deep, "PNG"), Good(kind=Kind.IMAGE, coloured=False)),
        "one_bit.png": (encode(picture.convert("1"), "PNG"), Good(kind=Kind.IMAGE, coloured=False)),
        "plain.webp": (encode(picture, "WEBP"), image),
        "lossless.webp": (encode(picture, "WEBP", lossless=True), image),
        "plain.avif": (encode(picture, "AVIF"), image),
        "plain.gif": (encode(picture, "GIF"), image),
        "plain.bmp": (encode(picture, "BMP"), image),
        "plain.tiff": (encode(picture, "TIFF", compression="tiff_lzw"), image),
        "plain.jp2": (encode(picture, "JPEG2000"), image),
    }
    return files


def _good_animations() -> _Good:
    pictures = [draw(shift=k) for k in range(5)]
    film = Good(kind=Kind.ANIMATION, frames_total=5)
    return {
        "film.gif": (encode(pictures[0], "GIF", **_film(pictures)), film),
        "film.png": (encode(pictures[0], "PNG", **_film(pictures)), film),
        "film.webp": (encode(pictures[0], "WEBP", **_film(pictures)), film),
        "film.avif": (encode(pictures[0], "AVIF", **_film(pictures)), film),
        "pages.tiff": (encode(pictures[0], "TIFF", save_all=True, append_images=pictures[1:]), film),
    }


def _good_videos() -> _Good:
    film = Good(kind=Kind.VIDEO, frames_total=8)
    frames = jpegs(8)
    return {
        "film.mov": (mp4(frames), film),
        "moov_last.mp4": (mp4(frames, moov_last=True), film),
        "film.mkv": (matroska(frames), film),
        "film.avi": (avi(frames), film),
        "really_a_video.jpg": (mp4(frames), film),
    }
