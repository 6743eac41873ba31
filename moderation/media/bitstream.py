"""The first bytes of a video packet: can decoding really begin here?

A container's list of keyframes may be wrong or forged. A reader that seeks by it would show grey or another picture.
bitstream specifications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

_H264_IDR = 5
_H264_SLICES = range(1, 6)
_HEVC_IDR = (19, 20)
_H264_SPS, _HEVC_SPS = 7, 33
_LENGTH_AT = {"h264": 4, "hevc": 21}  # the byte of `avcC` and `hvcC` with the bytes of a length
_HEVC_SLICES = range(32)
_AV1_SEQUENCE, _AV1_FRAME_HEADER, _AV1_FRAME = 1, 3, 6
_MAX_UNITS = 64  # parameter sets and messages before the first slice
_MAX_HEADS = 4096  # of one picture: a slice per row of blocks, in several layers
_START_CODE = b"\0\0\1"


def is_closed_keyframe(codec: str, extradata: bytes, packet: bytes, size: tuple[int, int] | None = None) -> bool:
    """Whether a decoder that starts at this packet shows it and all later frames as if it had read all before.

    False also where that is unknown: an open group of pictures, another codec, another layout. size: (width, height) by
    the header; False, too, where a picture may have another one, as far as this is known here (not in vp9 and av1).
    """
    check = _CHECKS.get(codec)
    return (
        bool(packet) and check is not None and check(extradata, packet) and _keeps_size(codec, extradata, packet, size)
    )


def _keeps_size(codec: str, extradata: bytes, packet: bytes, size: tuple[int, int] | None) -> bool:
    if codec == "vp8" and size is not None:  # RFC 6386, 9.1
        return tuple(int.from_bytes(packet[at : at + 2], "little") & 0x3FFF for at in (6, 8)) == size
    if codec not in _LENGTH_AT:
        return True
    # A packet's own parameter set, unless it repeats one of the header's.
    length = _length_size(extradata, _LENGTH_AT[codec])
    offset = 0
    for head in _units(packet, length):
        end = offset + length + int.from_bytes(packet[offset : offset + length], "big")
        is_set = head[0] & 0x1F == _H264_SPS if codec == "h264" else (head[0] >> 1) & 0x3F == _HEVC_SPS
        if is_set and packet[offset + length : end] not in extradata:
            return False
        offset = end
    return True


def _is_h264_idr(extradata: bytes, packet: bytes) -> bool:
    length = _length_size(extradata, 4)
    types = (unit[0] & 0x1F for unit in _units(packet, length))
    return next((t for t in types if t in _H264_SLICES), None) == _H264_IDR


def _is_hevc_idr(extradata: bytes, packet: bytes) -> bool:
    length = _length_size(extradata, 21)
    types = ((unit[0] >> 1) & 0x3F for unit in _units(packet, length))
    return next((t for t in types if t in _HEVC_SLICES), None) in _HEVC_IDR


def _length_size(extradata: bytes, offset: int) -> int:
    """Bytes of the length before each unit (`avcC`, `hvcC`); 0: start codes, or unknown."""
    if len(extradata) <= offset or extradata[0] != 1:
        return 0
    return (extradata[offset] & 3) + 1


def unit_heads(codec: str, extradata: bytes, packet: bytes) -> Iterator[bytes]:
    """The first two bytes of each unit of an h264 or hevc packet, with lengths or with start codes before them."""
    length = _length_size(extradata, _LENGTH_AT[codec])
    if length:
        yield from _units(packet, length, _MAX_HEADS)
        return
    offset = packet.find(_START_CODE)
    for _ in range(_MAX_HEADS):
        if offset < 0 or not (head := packet[offset + 3 : offset + 5]):
            return
        yield head
        offset = packet.find(_START_CODE, offset + 3)


def _units(packet: bytes, length_size: int, most: int = _MAX_UNITS) -> Iterator[bytes]:
    """The first two bytes of each unit of the packet."""
    offset = 0
    for _ in range(most if length_size else 0):
        size = int.from_bytes(packet[offset : offset + length_size], "big")
        head = packet[offset + length_size : offset + length_size + 2]
        if size < 1 or not head:
            return
        yield head
        offset += length_size + size


def _is_vp8_key(_: bytes, packet: bytes) -> bool:
    return packet[0] & 1 == 0


def _is_vp9_key(_: bytes, packet: bytes) -> bool:
    first = packet[0]
    profile_3 = first & 0x30 == 0x30
    shown_again, not_key = (first & 0x04, first & 0x02) if profile_3 else (first & 0x08, first & 0x04)
    return first >> 6 == 2 and not shown_again and not not_key


def _is_av1_key(_: bytes, packet: bytes) -> bool:
    """A sequence header, followed by a key frame that is shown."""
    has_sequence = False
    for kind, first in _av1_units(packet):
        has_sequence = has_sequence or kind == _AV1_SEQUENCE
        if kind in (_AV1_FRAME, _AV1_FRAME_HEADER):
            return has_sequence and first & 0xF0 == 0x10  # not shown again, type 0, show_frame
    return False


def _av1_units(packet: bytes) -> Iterator[tuple[int, int]]:
    """(type, first byte of the body) of each unit that has a size field."""
    offset = 0
    for _ in range(_MAX_UNITS):
        if offset + 2 > len(packet) or not packet[offset] & 0x02:
            return
        kind = (packet[offset] >> 3) & 0x0F
        start = offset + 1 + (packet[offset] >> 2 & 1)
        size, start = _leb128(packet, start)
        if start >= len(packet) and size:
            return
        yield kind, packet[start] if size else 0
        offset = start + size


def _leb128(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[offset : offset + 8]):
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, offset + place + 1
    return value, len(data)


_CHECKS: dict[str, Callable[[bytes, bytes], bool]] = {
    "h264": _is_h264_idr,
    "hevc": _is_hevc_idr,
    "vp8": _is_vp8_key,
    "vp9": _is_vp9_key,
    "av1": _is_av1_key,
}
