"""Which side of a picture is up: the orientations (EXIF 2.32, tag 0x0112) by which viewers may show it.

Most files state one in the way that every viewer follows. Viewers differ where it is stated twice, in another type, or
in a format whose EXIF only some of them read; then the picture is shown as stored, too. Only lengths are followed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from PIL import Image

_ORIENTATION, _SHORT = 0x0112, 3
_MAX_ENTRIES = 512
_FORMS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of EXIF: whole numbers
# Formats whose EXIF orientation some viewers follow and others do not: Chromium does for PNG and not for WebP, OpenCV
# and libvips do for WebP, ImageMagick 6 for neither.
_FOLLOWED_BY_SOME = frozenset({"PNG", "WEBP"})
AS_STORED = 1


def read_orientations(image: Image.Image, stated: int, app1: Sequence[bytes] | None = None) -> tuple[int, ...]:
    """The orientations to show a picture in, the likeliest first.

    stated: what its decoder read, 1 to 8. app1: the segments of a JPEG, whose EXIF is read here again.
    """
    if app1 is None:
        both = image.format in _FOLLOWED_BY_SOME and stated != AS_STORED
        return (stated, AS_STORED) if both else (stated,)
    entries = list(_entries_of_jpeg(app1))
    if not entries or entries == [(stated, True)]:
        return (stated,)
    values = [value for value, _ in entries if 1 <= value <= 8]
    return tuple(dict.fromkeys([stated, *values, AS_STORED]))


def _entries_of_jpeg(app1: Sequence[bytes]) -> Iterator[tuple[int, bool]]:
    """(value, whether it is stated as the standard asks) of each orientation in front of the first scan."""
    for body in app1:
        if body.startswith(b"Exif\0"):
            sound = body[5:6] == b"\0"
            yield from ((value, sound and plain) for value, plain in _entries(body[6:]))


def _entries(exif: bytes) -> Iterator[tuple[int, bool]]:
    """Of the first directory; the second describes the thumbnail."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return
    (at,) = struct.unpack_from(order + "I", exif, 4)
    if at + 2 > len(exif):
        return
    (count,) = struct.unpack_from(order + "H", exif, at)
    for k in range(min(count, _MAX_ENTRIES)):
        entry = exif[at + 2 + 12 * k : at + 14 + 12 * k]
        if len(entry) < 10:
            return
        entry = entry.ljust(12, b"\0")
        tag, kind, number = struct.unpack_from(order + "HHI", entry)
        if tag == _ORIENTATION and kind in _FORMS:
            yield struct.unpack_from(order + _FORMS[kind], entry, 8)[0], kind == _SHORT and number == 1
