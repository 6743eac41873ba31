"""Bytes of unknown type: are they surely not a picture or a video?

Only then may they be skipped. Texts qualify unless they draw or carry pictures; so do programs, arrays and the like,
told by their first bytes. All else is unknown, and some viewer may show it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from enum import Enum

# Pictures or videos without a decoder here: never skipped, whatever `media.unknown` is. The first are texts.
_MEDIA_TEXT = re.compile(
    rb"YUV4MPEG2 |FUJIFILMCCD-RAW|#\?R(?:ADIANCE|GBE)|SIMPLE  =|/\* XPM|P[1-7]\s+[0-9#W]|P[Ff]\n|\{\\rtf"
    rb"|\s*%!PS|PS-Adobe|# ImageMagick pixel enumeration"
)
_MEDIA_SIGNS: tuple[tuple[int, bytes], ...] = (
    *((0, sign) for sign in (
        b"\x06\x0e\x2b\x34", b"DKIF", b"\x1f\x07\x00", b"\x12\x00\x0a",  # MXF, IVF, DV, AV1
        b"\x00\x00\x01\x00", b"\x00\x00\x02\x00", b"icns",  # icons, cursors
        b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"II\x1a\x00", b"FOVb", b"\x00MRM",  # camera raw
        b"II\xbc\x01", b"WMPHOTO", b"qoif", b"FLIF", b"BPG\xfb", b"gimp xcf", b"8BPS", b"SDPX", b"XPDS",
        b"\x80\x2a\x5f\xd7", b"\x01\xda", b"\x59\xa6\x6a\x95", b"\xabKTX ", b"\x8aMNG", b"\x8bJNG", b"FORM",
        b"AT&TFORM", b"RIFF", b"RIFX", b"FWS", b"CWS", b"ZWS", b"nut/multimedia", b"NSVf", b"BIK", b"KB2", b"SMK",
        b"\xd7\xcd\xc6\x9a", b"\xc5\xd0\xd3\xc6", b"ID3", b"fLaC", b"\xb7\xd8\x00\x20", b"\x0a\x05\x01",
    )),
    (4, b"\x12\xaf"), (4, b"\x11\xaf"), (4, b"RED"), (40, b" EMF"), (128, b"DICM"),
)  # fmt: skip
# Elementary streams: a start code, then a codec's first bytes.
_START_CODE = re.compile(rb"\x00\x00\x00?\x01[\x00-\xff]")
_PDF = b"%PDF-"
_PDF_WITHIN = 1024

# Neither text nor picture. No viewer shows an array or a model.
_OTHER_SIGNS = (
    b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\x00asm", b"\x93NUMPY", b"crc\x00",
    b"\x00\x05\x16\x07", b"\x00\x05\x16\x00", b"wOFF", b"wOF2", b"\x00\x00\x00\x01Bud1",
)  # fmt: skip
_CONTROLS = bytes(b for b in (*range(32), 127) if b not in b"\t\n\r\f\x1b\b")
# A text that draws a picture, or embeds one that viewers of the text show.
_PICTURE_IN_TEXT = re.compile(
    rb"<(?:[\w.-]+:)?svg[\s/>:]|\x1bP[\d;]*q|data:\s*(?:image|video)/|content-type:\s*(?:image|video)/|^begin [0-7]{3} "
    rb"|\]\]><svg|<v:imagedata|<pkg:binarydata|<w:bindata|static (?:unsigned )?char \w+_bits|#define \w+_width ",
    re.IGNORECASE | re.MULTILINE,
)
_PIECE = 1024 * 1024
_OVERLAP = 256
# The most accented letters in a text in an older code page; a raw picture has far more high bytes.
_MAX_HIGH_SHARE = 0.1
_HIGH = bytes(range(128, 256))


class Looks(Enum):
    """What bytes of unknown type look like."""

    MEDIA = "media"  # a picture, a video or a document of pages without a decoder here
    OTHER = "other"  # surely none of these: a text, a program, an array
    UNKNOWN = "unknown"


def look_at(data: bytes) -> Looks:
    """Whether some viewer may show these bytes of unknown type as a picture."""
    if data.startswith(_OTHER_SIGNS):
        return Looks.OTHER
    if _MEDIA_TEXT.match(data) or _PDF in data[:_PDF_WITHIN]:
        return Looks.MEDIA
    if _is_text(data):
        return Looks.MEDIA if _carries_pictures(data) else Looks.OTHER
    if _START_CODE.match(data) or any(data.startswith(sign, offset) for offset, sign in _MEDIA_SIGNS):
        return Looks.MEDIA
    return Looks.UNKNOWN


def _is_text(data: bytes) -> bool:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decodes(data, "utf-16")
    if any(len(piece.translate(None, _CONTROLS)) < len(piece) for piece in _pieces(data, 0)):
        return False
    if data.isascii() or _decodes(data, "utf-8"):
        return True
    high = sum(len(piece) - len(piece.translate(None, _HIGH)) for piece in _pieces(data, 0))
    return high <= _MAX_HIGH_SHARE * len(data)


def _decodes(data: bytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in _pieces(data, 0):
            if encoding == "utf-16" and "\0" in decoder.decode(piece):
                return False
            if encoding != "utf-16":
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _carries_pictures(data: bytes) -> bool:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.replace(b"\0", b"")  # the patterns are ASCII
    return any(_PICTURE_IN_TEXT.search(piece) for piece in _pieces(data, _OVERLAP))


def _pieces(data: bytes, overlap: int) -> Iterator[bytes]:
    return (data[start : start + _PIECE + overlap] for start in range(0, len(data), _PIECE))
