"""Only what is surely no picture and no video is skipped."""

from __future__ import annotations

import io
import pickle
import random
import struct

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.media.unknown import Looks, look_at
from moderation.types import ErrorCode, Item, MediaObject
from tests.drawn_media import draw

REVIEW, SKIP = MediaConfig(), MediaConfig(unknown="skip")
NOISE = random.Random(4).randbytes(3000)


def code_of(data: bytes, name: str = "upload", config: MediaConfig = REVIEW, **facts: str) -> ErrorCode | None:
    item = Item(item_id="x", uri=name, objects=(MediaObject(uri=name, name=name, **facts),))  # type: ignore[arg-type]
    return decode_item(item, [data], config).error


def saved(format_: str) -> bytes:
    out = io.BytesIO()
    draw().save(out, format_)
    return out.getvalue()


TEXTS = {
    "ascii": b"# Notes\n\nGathered in May.\n",
    "utf-8": "Grüße, 東京, \U0001f600\n".encode() * 50,
    "utf-16": "Grüße aus 東京\r\n".encode("utf-16"),
    "latin-1": "Une journée à la plage, avec des amis\n".encode("latin-1") * 9,
    "json": b'{"caption": "beside its picture"}',
    "html": b"<!doctype html><html><title>404</title></html>",
    "log": b"\x1b[31merror\x1b[0m: it failed\n" * 9,
    "like signs": b"ID3 tags, BIKEs, SMKs, FORMs and P1 to P6",
    "base64": b"/9j/4AAQSkZJRgABAQ" * 9,
    "elf": b"\x7fELF\x02\x01\x01" + bytes(200),
    "numpy": b"\x93NUMPY\x01\x00v\x00" + NOISE,
    "apple": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ",
    "crc": b"crc\x00\x00\x00\x02\x00\xde\xad\xbe\xef",
}
MEDIA = {
    "h264": b"\x00\x00\x00\x01\x67\x42\x00\x1e" + NOISE,
    "h264-short": b"\x00\x00\x01\x67\x42\x00\x1e" + NOISE,
    "hevc": b"\x00\x00\x00\x01\x40\x01\x0c\x01" + NOISE,
    "mpeg4": b"\x00\x00\x01\xb0\x01\x00\x00\x01\xb5" + NOISE,
    "ivf": b"DKIF\x00\x00\x20\x00VP80" + NOISE,
    "obu": b"\x12\x00\x0a\x0b" + NOISE,
    "mxf": bytes.fromhex("060e2b34020501010d01020101020400") + NOISE,
    "y4m": b"YUV4MPEG2 W32 H32 F25:1 C420\nFRAME\n" + b"d" * 1536,
    "dv": b"\x1f\x07\x00\xbf" + NOISE,
    "raf": b"FUJIFILMCCD-RAW 0201FF" + NOISE,
    "jxr": b"II\xbc\x01\x08\x00\x00\x00" + NOISE,
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>',
    "svg-late": b"<!-- " + b"x" * 9000 + b' --><svg width="9"/>',
    "svg-prefixed": b'<s:svg xmlns:s="http://www.w3.org/2000/svg"/>',
    "svg-utf16": '<svg xmlns="http://www.w3.org/2000/svg"/>'.encode("utf-16"),
    "ico": saved("ICO"),
    "ico-many": struct.pack("<HHH", 0, 1, 300) + NOISE,
    "cur": struct.pack("<HHH", 0, 2, 1) + NOISE,
    "pdf": b"%PDF-1.7\n1 0 obj <<>> endobj\n%%EOF\n",
    "pdf-late": b"\n" * 500 + b"%PDF-1.4\n",
    "eps": saved("EPS"),
    "ppm-ascii": b"P3\n2 2\n255\n" + b"255 0 0 " * 4,
    "pcx": saved("PCX"),
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n",
    "xbm": b"#define im_width 8\n#define im_height 1\nstatic char im_bits[] = {0x00};\n",
    "html-data": b'<img src="data:image/png;base64,iVBORw0KGgo">',
    "mail": b"MIME-Version: 1.0\nContent-Type: image/jpeg\n\n/9j/4AAQ\n",
    "rtf": b"{\\rtf1{\\pict\\pngblip 8950}}",
    "swf": b"CWS\x0a" + NOISE,
    "mp3": b"ID3\x03\x00" + NOISE,
}
UNKNOWN = {
    "noise": NOISE,
    "zip": b"PK\x03\x04" + NOISE,
    "office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + NOISE,
    "pickle": pickle.dumps(NOISE),
    "raw-yuv": np.linspace(16, 235, 3000).astype(np.uint8).tobytes(),
    "grey": bytes([128]) * 3000,
    "text-then-noise": b"just a text\n" * 1000 + NOISE,
    "zeros": bytes(3000),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_programs_and_arrays_are_skipped(name: str) -> None:
    assert look_at(TEXTS[name]) is Looks.OTHER
    assert code_of(TEXTS[name]) is ErrorCode.NOT_MEDIA
    assert code_of(TEXTS[name], "a.jpg") is ErrorCode.UNSUPPORTED_TYPE


@pytest.mark.parametrize("config", [REVIEW, SKIP])
@pytest.mark.parametrize("name", MEDIA)
def test_media_that_nothing_decodes_is_never_skipped(name: str, config: MediaConfig) -> None:
    assert look_at(MEDIA[name]) is Looks.MEDIA
    for called in ("upload", "notes.txt", "._x"):
        assert code_of(MEDIA[name], called, config) not in (ErrorCode.NOT_MEDIA, None)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_unknown_follows_the_configuration(name: str) -> None:
    assert look_at(UNKNOWN[name]) is Looks.UNKNOWN
    assert code_of(UNKNOWN[name]) is ErrorCode.UNSUPPORTED_TYPE
    assert code_of(UNKNOWN[name], "model.bin", SKIP) is ErrorCode.NOT_MEDIA


def test_what_the_store_says_of_the_type_is_a_claim() -> None:
    assert code_of(TEXTS["html"], content_type="image/jpeg") is ErrorCode.UNSUPPORTED_TYPE
    assert code_of(NOISE, config=SKIP, content_type="Video/mp4") is ErrorCode.UNSUPPORTED_TYPE
    assert code_of(TEXTS["html"], content_type="text/html") is ErrorCode.NOT_MEDIA


def test_what_macos_keeps_beside_a_picture_is_skipped_though_it_is_named_like_one() -> None:
    assert code_of(TEXTS["apple"] + NOISE, "in/._photo.jpg") is ErrorCode.NOT_MEDIA
    assert code_of(TEXTS["apple"] + NOISE, "in/photo.jpg") is ErrorCode.UNSUPPORTED_TYPE
    picture = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(picture, "PNG")
    assert code_of(picture.getvalue(), "in/._photo.jpg") is None
