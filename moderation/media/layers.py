"""The layers of a GIF or APNG, each as a still file of its own: what is laid where over the earlier ones.

Read here because Pillow composes otherwise than browsers do: what they leave transparent it paints. Only lengths are
followed, within bounds. Layouts: GIF89a, 20 to 26; PNG (third edition), 11.3.6.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from moderation.errors import ItemError
from moderation.media.ends import MAX_BLOCKS, colours_bytes
from moderation.media.png import SIGNATURE, chunks
from moderation.types import ErrorCode

_PALETTE = 3  # colour type of a PNG
_PNG_HEAD = frozenset({b"PLTE", b"tRNS"})


class Disposal(Enum):
    """What becomes of a layer's area before the next one is laid."""

    KEEP = 0
    CLEAR = 1  # transparent
    RESTORE = 2  # as it was before


# 4 is not defined: browsers take it for 3.
_GIF_DISPOSALS = {2: Disposal.CLEAR, 3: Disposal.RESTORE, 4: Disposal.RESTORE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """still: the layer as a file. over: blended with what lies below, else it replaces that. shown_s: as stated.

    alone: a default image, which only viewers without animation show: nothing of it stays. colours: in its table; None
    where it needs none.
    """

    still: bytes
    left: int
    top: int
    width: int
    height: int
    shown_s: float = 0.0
    disposal: Disposal = Disposal.KEEP
    over: bool = True
    alone: bool = False
    colours: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Control:
    """A GIF's graphic control: the block itself, its disposal and time."""

    block: bytes = b""
    disposal: Disposal = Disposal.KEEP
    shown_s: float = 0.0


def gif_layers(data: bytes) -> Iterator[Layer]:
    """The layers of a GIF, also behind bytes that are no block. Raises ItemError(UNSUPPORTED_TYPE): too many blocks."""
    screen, table_end = data[6:13], 13 + colours_bytes(data, 10)
    colours = data[13:table_end]
    position, blocks, control = table_end, 0, _Control()
    while position < len(data) and blocks < MAX_BLOCKS:
        mark, start = data[position], position
        if mark == 0x3B:
            return
        if mark == 0x21:
            position, blocks = _end_of_parts(data, position + 2, blocks)
            if data[start + 1 : start + 3] == b"\xf9\x04":
                control = _read_control(data[start : start + 8])
        elif mark == 0x2C:
            head = data[start : start + 10].ljust(10, b"\0")
            body = start + 10 + colours_bytes(data, start + 9)
            position, blocks = _end_of_parts(data, body + 1, blocks)
            left, top, width, height = struct.unpack_from("<4H", head, 1)
            size = struct.pack("<2H", width, height)
            parts = (
                b"GIF89a",
                size,
                screen[4:],
                colours,
                control.block,
                b",\0\0\0\0",
                size,
                data[start + 9 : position],
            )
            yield Layer(
                still=b"".join((*parts, b";")),
                left=left,
                top=top,
                width=width,
                height=height,
                shown_s=control.shown_s,
                disposal=control.disposal,
                colours=(colours_bytes(data, start + 9) or len(colours)) // 3,
            )
            control = _Control()
        else:
            position, blocks = position + 1, blocks + 1
    if blocks >= MAX_BLOCKS:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"gif: more than {MAX_BLOCKS} blocks")


def _end_of_parts(data: bytes, position: int, blocks: int) -> tuple[int, int]:
    while position < len(data) and blocks < MAX_BLOCKS:
        size = data[position]
        position, blocks = position + 1 + size, blocks + 1
        if size == 0:
            break
    return position, blocks


def _read_control(block: bytes) -> _Control:
    if len(block) < 8:
        return _Control()
    disposal = _GIF_DISPOSALS.get(block[3] >> 2 & 7, Disposal.KEEP)
    return _Control(block=block, disposal=disposal, shown_s=int.from_bytes(block[4:6], "little") / 100)


def png_layers(data: bytes) -> Iterator[Layer]:
    """The layers of an APNG; of a PNG that does not move its picture alone."""
    header, head = data[8:33], b""
    control: bytes | None = None
    pieces: list[bytes] = []
    for kind, start, end in chunks(data):
        if kind == b"fcTL":
            yield from _png_layer(header, head, control, pieces)
            control, pieces = data[start + 8 : end - 4], []
        elif kind == b"IDAT":
            pieces.append(data[start:end])
        elif kind == b"fdAT":
            pieces.append(_chunk(b"IDAT", data[start + 12 : end - 4]))
        elif kind in _PNG_HEAD and not pieces:
            head += data[start:end]
    yield from _png_layer(header, head, control, pieces)


def _png_layer(header: bytes, head: bytes, control: bytes | None, pieces: list[bytes]) -> Iterator[Layer]:
    """The layer of these pieces, if there are any. control: None for a picture that is not part of the animation."""
    if not pieces:
        return
    width, height = struct.unpack_from(">2I", header, 8)
    left, top, number, parts, disposal, blend = 0, 0, 0, 0, 0, 0
    if control is not None and len(control) >= 26:
        width, height, left, top, number, parts, disposal, blend = struct.unpack_from(">4I2H2B", control, 4)
    own = _chunk(b"IHDR", struct.pack(">2I", width, height) + header[16:21])
    yield Layer(
        still=b"".join((SIGNATURE, own, head, *pieces, _chunk(b"IEND", b""))),
        left=left,
        top=top,
        width=width,
        height=height,
        shown_s=number / (parts or 100),
        disposal=Disposal(disposal) if disposal <= Disposal.RESTORE.value else Disposal.KEEP,
        over=blend == 1,
        alone=control is None,
        colours=_count_colours(head) if header[17] == _PALETTE else None,
    )


def _count_colours(head: bytes) -> int:
    """Of the table among these chunks."""
    at = 0
    while at + 12 <= len(head):
        size = int.from_bytes(head[at : at + 4], "big")
        if head[at + 4 : at + 8] == b"PLTE":
            return size // 3
        at += size + 12
    return 0


def lacks_colours(image: Image.Image, colours: int | None) -> bool:
    """Whether a loaded layer has numbers for which there is no colour: viewers differ in what they show for them."""
    if colours is None or colours >= 256 or image.mode not in ("P", "L", "1"):
        return False
    return int(np.asarray(image).max(initial=0)) >= colours


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
