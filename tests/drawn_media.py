"""Pictures and videos that tests draw themselves: four coloured quadrants, and Motion JPEG in containers by hand."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

QUADRANTS = ((220, 40, 40), (40, 180, 60), (40, 60, 210), (240, 220, 60))  # top left, top right, bottom left, right


def draw(width: int = 320, height: int = 240, *, shift: int = 0) -> Image.Image:
    """Four coloured quadrants with a soft texture, so that encoders have something to do; `shift` turns the colours."""
    pixels = np.zeros((height, width, 3), np.int16)
    for k in range(4):
        rows = slice(0, height // 2) if k < 2 else slice(height // 2, height)
        columns = slice(0, width // 2) if k % 2 == 0 else slice(width // 2, width)
        pixels[rows, columns] = QUADRANTS[(k + shift) % 4]
    texture = np.random.default_rng(7).integers(-9, 10, (height, width, 1), dtype=np.int16)
    return Image.fromarray((pixels + texture).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    """`image` as bytes of a Pillow format."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def jpegs(count: int, width: int = 320, height: int = 240) -> list[bytes]:
    """`count` frames of a film: the quadrants' colours turn from frame to frame."""
    kinds = [encode(draw(width, height, shift=k), "JPEG", quality=85) for k in range(4)]
    return [kinds[k % 4] for k in range(count)]


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _full(kind: bytes, *parts: bytes) -> bytes:
    return _box(kind, b"\0\0\0\0", *parts)


_MATRIX = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def mp4(
    frames: Sequence[bytes],
    *,
    frame_s: float = 0.5,
    size: tuple[int, int] = (320, 240),
    moov_last: bool = False,
    matrix: bytes = _MATRIX,
    audio_only: bool = False,
) -> bytes:
    """A QuickTime file of JPEG frames, each shown for `frame_s` seconds; `audio_only`: a sound track instead."""
    head = _box(b"ftyp", b"qt  \0\0\2\0qt  isom")
    ticks = round(frame_s * 600)
    duration = ticks * len(frames)
    width, height = size
    if audio_only:
        entry = _box(b"sowt", bytes(6), b"\0\1", bytes(8), struct.pack(">HHHHI", 1, 16, 0, 0, 8000 << 16))
        media_header, handler = _full(b"smhd", bytes(4)), b"soun"
    else:
        entry = _box(
            b"jpeg",
            bytes(6),
            b"\0\1",
            bytes(16),
            struct.pack(">HHIIIH", width, height, 72 << 16, 72 << 16, 0, 1),
            bytes(32),
            struct.pack(">Hh", 24, -1),
        )
        media_header, handler = _box(b"vmhd", b"\0\0\0\1", bytes(8)), b"vide"

    def moov(first: int) -> bytes:
        offsets = [first + sum(len(f) for f in frames[:k]) for k in range(len(frames))]
        table = _box(
            b"stbl",
            _full(b"stsd", struct.pack(">I", 1), entry),
            _full(b"stts", struct.pack(">3I", 1, len(frames), ticks)),
            _full(b"stsc", struct.pack(">4I", 1, 1, 1, 1)),
            _full(b"stsz", struct.pack(">2I", 0, len(frames)), *(struct.pack(">I", len(f)) for f in frames)),
            _full(b"stco", struct.pack(">I", len(frames)), *(struct.pack(">I", o) for o in offsets)),
        )
        data_info = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _box(b"url ", b"\0\0\0\1")))
        media = _box(
            b"mdia",
            _full(b"mdhd", struct.pack(">4I2H", 0, 0, 600, duration, 0, 0)),
            _full(b"hdlr", b"mhlr", handler, bytes(12), b"\0"),
            _box(b"minf", media_header, data_info, table),
        )
        track = _box(
            b"tkhd",
            b"\0\0\0\7",
            struct.pack(">5I", 0, 0, 1, 0, duration),
            bytes(16),
            matrix,
            struct.pack(">2I", width << 16, height << 16),
        )
        movie = _full(
            b"mvhd",
            struct.pack(">4I", 0, 0, 600, duration),
            struct.pack(">IH", 65536, 256),
            bytes(10),
            _MATRIX,
            bytes(24),
            struct.pack(">I", 2),
        )
        return _box(b"moov", movie, _box(b"trak", track, media))

    content = _box(b"mdat", *frames)
    if moov_last:
        return head + content + moov(len(head) + 8)
    return head + moov(len(head) + len(moov(0)) + 8) + content


def _element(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _number(kind: int, value: int) -> bytes:
    return _element(kind, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def matroska(
    frames: Sequence[bytes], *, frame_s: float = 0.5, size: tuple[int, int] = (320, 240), audio_only: bool = False
) -> bytes:
    """A Matroska file of JPEG frames, a cluster each."""
    header = _element(
        0x1A45DFA3, _number(0x4286, 1), _element(0x4282, b"matroska"), _number(0x4287, 4), _number(0x4285, 2)
    )
    duration = _element(0x4489, struct.pack(">d", len(frames) * frame_s * 1000))
    info = _element(0x1549A966, _number(0x2AD7B1, 1_000_000), duration)
    if audio_only:
        codec = _element(0x86, b"A_PCM/INT/LIT") + _element(
            0xE1, _element(0xB5, struct.pack(">d", 8000.0)), _number(0x9F, 1)
        )
    else:
        codec = _element(0x86, b"V_MJPEG") + _element(0xE0, _number(0xB0, size[0]), _number(0xBA, size[1]))
    kind = 2 if audio_only else 1
    track = _element(0xAE, _number(0xD7, 1), _number(0x73C5, 1), _number(0x83, kind), codec)
    clusters = [
        _element(0x1F43B675, _number(0xE7, round(k * frame_s * 1000)), _element(0xA3, b"\x81\0\0\x80", frame))
        for k, frame in enumerate(frames)
    ]
    return header + _element(0x18538067, info, _element(0x1654AE6B, track), *clusters)


def _chunk(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def avi(frames: Sequence[bytes], *, fps: int = 2, size: tuple[int, int] = (320, 240)) -> bytes:
    """An AVI file of JPEG frames with an index."""
    width, height = size
    biggest = max(len(f) for f in frames)
    main = struct.pack("<14I", 1_000_000 // fps, 0, 0, 16, len(frames), 0, 1, biggest, width, height, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        b"vids",
        b"MJPG",
        0,
        0,
        0,
        0,
        1,
        fps,
        0,
        len(frames),
        biggest,
        10000,
        0,
        0,
        0,
        width,
        height,
    )
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    header = _chunk(
        b"LIST",
        b"hdrl",
        _chunk(b"avih", main),
        _chunk(b"LIST", b"strl", _chunk(b"strh", stream), _chunk(b"strf", bitmap)),
    )
    movie, index, offset = [], [], 4
    for frame in frames:
        chunk = _chunk(b"00dc", frame)
        movie.append(chunk)
        index.append(struct.pack("<4sIII", b"00dc", 16, offset, len(frame)))
        offset += len(chunk)
    return _chunk(b"RIFF", b"AVI ", header, _chunk(b"LIST", b"movi", *movie), _chunk(b"idx1", *index))
