"""How many pictures an MP4 announces for each track, whatever its edit lists and times say.

FFmpeg, and so every reader here, leaves out what an edit list cuts, and fragments whose times start over. Players
differ: several know edit lists of one entry only, and show what lies between two. Layouts: ISO/IEC 14496-12, 8.7.3
(`stsz`), 8.8.8 (`trun`).
"""

from __future__ import annotations

from collections.abc import Iterator

from moderation.media.container import boxes

_INNER = frozenset({b"mdia", b"minf", b"stbl", b"traf"})
_NO_ID = -1


def announced_samples(data: bytes) -> list[int]:
    """The number of samples of each track of the movie, in order; fragments included. Broken boxes count as none."""
    by_id: dict[int, int] = {}
    for kind, start, end in boxes(data, 0, len(data)):
        for inner, body, stop in boxes(data, start, min(end, len(data))) if kind in (b"moov", b"moof") else ():
            if (kind, inner) not in ((b"moov", b"trak"), (b"moof", b"traf")):
                continue
            track, samples = _count(data, body, min(stop, len(data)))
            if inner == b"trak" and track in by_id:
                track = _NO_ID - len(by_id)  # an id twice: the order of the tracks stays
            by_id[track] = by_id.get(track, 0) + samples
    return list(by_id.values())


def _count(data: bytes, start: int, end: int) -> tuple[int, int]:
    """(track id, samples) of a `trak` or a `traf`."""
    track, samples = _NO_ID, 0
    for kind, body in _leaves(data, start, end):
        if kind == b"tkhd":
            track = _number(data, body + (20 if data[body : body + 1] == b"\1" else 12))
        elif kind == b"tfhd":
            track = _number(data, body + 4)
        elif kind == b"trun":
            samples += _number(data, body + 4)
        elif kind in (b"stsz", b"stz2"):
            samples += _number(data, body + 8)
    return track, samples


def _leaves(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    for kind, body, stop in boxes(data, start, end):
        if kind in _INNER:
            yield from _leaves(data, body, min(stop, end))
        else:
            yield kind, body


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
