"""Whether the end of a video is missing, for containers without an index that would tell: MPEG-TS, MPEG-PS and FLV.

Only the last packets are looked at. A cut between two packets of a stream looks like its end. A cut is detected by an
incomplete packet, or by a length in the header that the last packet is far from.
"""

from __future__ import annotations

import struct
from typing import Final

from moderation.file_types import MediaType

_SYNC: Final = 0x47
# Bytes of a packet -> offset of its sync byte (m2ts puts a time of four bytes before it, 204 parity after the packet).
_TS_LAYOUTS: Final = {188: 0, 192: 4, 204: 0}
_TS_PACKETS_LOOKED_AT: Final = 8192  # a PES packet is 64 KiB at most, with others between its parts
_PS_PACK: Final = b"\x00\x00\x01\xba"
_PS_END: Final = 0xB9
_PS_STEPS: Final = 4096
_FLV_TYPES: Final = frozenset({8, 9, 18})  # sound, picture, script
_FLV_HEAD_BYTES: Final = 65536
_FLV_DURATION: Final = b"\x00\x08duration\x00"
# The length in a header may be that of the sound, or rounded.
_SLACK_S: Final = 2.0
_SLACK_SHARE: Final = 0.05


def is_cut(data: bytes, media_type: MediaType) -> bool:
    """Whether the file ends before it should; False where that cannot be known. Never raises."""
    look = {MediaType.MPEG_TS: _is_ts_cut, MediaType.MPEG_PS: _is_ps_cut, MediaType.FLV: _is_flv_cut}.get(media_type)
    return look is not None and look(data)


def _is_ts_cut(data: bytes) -> bool:
    layout = _find_layout(data)
    if layout is None:
        return False
    start, size, sync = layout
    whole, rest = divmod(len(data) - start, size)
    end = start + whole * size
    if rest:
        # Other data may follow the last packet.
        return rest <= sync or data[end + sync] == _SYNC
    return _has_open_stream(data, end, size, sync, min(whole, _TS_PACKETS_LOOKED_AT))


def _find_layout(data: bytes) -> tuple[int, int, int] | None:
    """(start of the first packet, bytes of a packet, offset of its sync byte)."""
    for size, sync in _TS_LAYOUTS.items():
        for start in range(size):
            places = range(start + sync, min(len(data), start + sync + 8 * size), size)
            if len(places) > 1 and all(data[place] == _SYNC for place in places):
                return start, size, sync
    return None


def _has_open_stream(data: bytes, end: int, size: int, sync: int, packets: int) -> bool:
    """Whether a stream's last PES packet states a length and does not reach it."""
    missing: dict[int, int] = {}
    for at in range(end - packets * size + sync, end, size):
        if data[at] != _SYNC:
            missing.clear()
            continue
        pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        begins, adaptation = data[at + 1] & 0x40, data[at + 3] >> 4 & 3
        if not adaptation & 1:
            continue
        body = at + 4 + (1 + data[at + 4] if adaptation & 2 else 0)
        held = max(0, at + 188 - body)
        if begins:
            missing[pid] = _announced(data, body, held)
        if pid in missing:
            missing[pid] -= held
    return any(left > 0 for left in missing.values())


def _announced(data: bytes, body: int, held: int) -> int:
    """Bytes of a PES packet with its header of six; 0 where it states no length (video mostly does not)."""
    if held < 6 or data[body : body + 3] != b"\x00\x00\x01":
        return 0
    length = int.from_bytes(data[body + 4 : body + 6], "big")
    return length + 6 if length else 0


def _is_ps_cut(data: bytes) -> bool:
    at = data.rfind(_PS_PACK)
    if at < 0:
        return False
    for _ in range(_PS_STEPS):
        if at == len(data):
            return False
        if at + 6 > len(data):
            # Zeros may fill the last sector.
            return any(data[at:])
        if data[at : at + 3] != b"\x00\x00\x01" or data[at + 3] == _PS_END:
            return False
        length = _ps_length(data, at)
        if length is None or at + length > len(data):
            return True
        at += length
    return False


def _ps_length(data: bytes, at: int) -> int | None:
    """Bytes of a pack header, or of a packet with its header; None where even the header is cut."""
    if data[at : at + 4] != _PS_PACK:
        return 6 + int.from_bytes(data[at + 4 : at + 6], "big")
    if data[at + 4] >> 6 != 1:
        return 12  # MPEG-1
    return 14 + (data[at + 13] & 7) if at + 14 <= len(data) else None


def _is_flv_cut(data: bytes) -> bool:
    last_s = _last_tag_s(data)
    if last_s is None:
        return True
    announced_s = _announced_s(data)
    return announced_s is not None and announced_s - last_s > max(_SLACK_S, _SLACK_SHARE * announced_s)


def _last_tag_s(data: bytes) -> float | None:
    """The time of the last tag; None where it is incomplete. Each tag is followed by its length."""
    length = int.from_bytes(data[-4:], "big")
    at = len(data) - 4 - length
    if length < 11 or at < 9 or data[at] & 0x1F not in _FLV_TYPES:
        return None
    if int.from_bytes(data[at + 1 : at + 4], "big") + 11 != length:
        return None
    return (int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24) / 1000


def _announced_s(data: bytes) -> float | None:
    place = data.find(_FLV_DURATION, 0, _FLV_HEAD_BYTES)
    if place < 0:
        return None
    (seconds,) = struct.unpack_from(">d", data[place + len(_FLV_DURATION) :][:8].ljust(8, b"\0"))
    return float(seconds) if 0 < seconds < 1e6 else None
