"""PNG: the decoder gets only the chunks that decide what is shown.

A text of 2 MB, a wrong checksum in a comment, or a short pHYs makes Pillow refuse pixels that every viewer shows.
Layout: PNG (third edition), 5.3 and 11.3. Only lengths are followed, and checksums of the few chunks kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from moderation.errors import ItemError
from moderation.types import ErrorCode

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000  # as many as an hour of APNG has
_PROFILE_BYTES = 5 * 1024 * 1024  # unpacked; colour.py refuses profiles over 4 MiB

# Kept unchanged. The decoder needs all chunks of an animation.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
# Kept where sound: type -> the right length, None: any.
_SHOWING: dict[bytes, int | None] = {
    b"tRNS": None,
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"eXIf": None,
    b"cICP": 4,
}
_READ = frozenset({*_SHOWING, b"iCCP"})
# Viewers take the first of each, and none behind the pixels but EXIF.
_IN_FRONT = frozenset({b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"})
# Bits per sample and colour type of grey -> the factor to eight bits.
_FEW_BITS = {b"\x02\0": 85, b"\x04\0": 17}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPng:
    """A PNG without the chunks that do not change what is shown.

    icc: its colour profile, unpacked here because Pillow refuses the whole file for one over 1 MiB. note: what of its
    colours was broken, or "". code_points: (primaries, transfer) of its cICP chunk.
    """

    data: bytes
    icc: bytes | None = None
    code_points: tuple[int, int] | None = None
    note: str = ""


def keep_what_shows(data: bytes) -> KeptPng:
    """Reduce a PNG to what its decoder needs."""
    pieces, told, broken, end = _choose_chunks(data)
    rest = b"" if pieces[-1][4:8] == b"IEND" else data[end:]  # truncated: the decoder tells where
    points = told.get(b"cICP")
    return KeptPng(
        data=b"".join([*_announce_frames(pieces), rest]),
        icc=told.get(b"iCCP"),
        code_points=None if points is None else (points[8], points[9]),
        note=_say_ignored(broken),
    )


def _choose_chunks(data: bytes) -> tuple[list[bytes], dict[bytes, bytes], str, int]:
    """(chunks for the decoder, what is told of colours and so on, a broken one of these or "", where they end)."""
    pieces, told = [data[:8]], dict[bytes, bytes]()
    broken, end, skipped = "", 8, frozenset[bytes]()
    for kind, start, end in chunks(data):
        if kind == b"IDAT":
            skipped = _IN_FRONT
        if kind in _NEEDED:
            pieces.append(data[start:end])
        elif kind in _READ and kind not in told and kind not in skipped:
            shown = _read_chunk(kind, data[start:end], data[24:26])
            if shown is None:
                broken = kind.decode()
                continue
            told[kind] = shown
            pieces.append(b"" if kind == b"iCCP" else shown)
    return pieces, told, broken, end


def _read_chunk(kind: bytes, chunk: bytes, layout: bytes) -> bytes | None:
    """A chunk for the decoder, or an unpacked profile; None: broken. layout: bits per sample and colour type."""
    if kind == b"iCCP":
        return _unpack_profile(chunk)
    if not _is_sound(chunk, _SHOWING[kind]):
        return None
    if kind == b"tRNS" and layout in _FEW_BITS:
        # Pillow spreads the samples over 0..255, but not the value that is transparent.
        body = kind + (_FEW_BITS[layout] * chunk[9]).to_bytes(2, "big")
        return b"\0\0\0\x02" + body + zlib.crc32(body).to_bytes(4, "big")
    return chunk


def _announce_frames(pieces: list[bytes]) -> list[bytes]:
    """The chunks with one acTL of as many frames as there are: some viewers count, others believe what it says."""
    kinds = [piece[4:8] for piece in pieces]
    frames = kinds.count(b"fcTL")
    if not frames or b"fdAT" not in kinds or b"IDAT" not in kinds:
        return pieces
    # Pillow takes a file with two of them, or with 2^31 frames, for a still.
    if kinds.count(b"acTL") == 1 and frames <= _frames_told(pieces[: kinds.index(b"IDAT")]) < 1 << 31:
        return pieces
    body = b"acTL" + frames.to_bytes(4, "big") + bytes(4)
    right = (8).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    others = [piece for piece in pieces if piece[4:8] != b"acTL"]
    return [*others[:2], right, *others[2:]]


def _frames_told(pieces: list[bytes]) -> int:
    """How many frames the first sound acTL announces; 0 where there is none."""
    told = (piece for piece in pieces if piece[4:8] == b"acTL" and len(piece) == 20)
    return next((int.from_bytes(piece[8:12], "big") for piece in told), 0)


def _say_ignored(chunk: str) -> str:
    return f"{chunk} ignored: it is broken" if chunk else ""


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each complete chunk, up to the first IEND or to data that is not a chunk.

    Raises ItemError(UNSUPPORTED_TYPE): too many chunks.
    """
    offset = 8
    for _ in range(MAX_CHUNKS):
        kind = data[offset + 4 : offset + 8]
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if len(kind) < 4 or not kind.isalpha() or end > len(data):
            return
        yield kind, offset, end
        if kind == b"IEND":
            return
        offset = end
    raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"png: more than {MAX_CHUNKS} chunks")


def end_of_png(data: bytes) -> int | None:
    """Where the PNG ends; None: it is truncated."""
    return next((end for kind, _, end in chunks(data) if kind == b"IEND"), None)


def _is_sound(chunk: bytes, length: int | None) -> bool:
    right_length = length is None or len(chunk) == length + 12
    return right_length and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _unpack_profile(chunk: bytes) -> bytes | None:
    """The profile of a sound iCCP chunk: a name, method 0, a stream that ends within bounds."""
    name, _, rest = chunk[8:-4].partition(b"\0")
    if not _is_sound(chunk, None) or not 1 <= len(name) <= 79 or rest[:1] != b"\0":
        return None
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(rest[1:], _PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None
