"""What decoding takes is told from headers, for any bytes, and is about what it takes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.media.limits import MAX_FRAMES_BYTES
from moderation.media.need import estimate_need
from moderation.types import Item, Kind, MediaObject
from tests.drawn_media import jpegs, mp4

CONFIG = MediaConfig()
MIB = 1 << 20


def item_of(count: int = 1, kind: Kind | None = None) -> Item:
    objects = tuple(MediaObject(uri=f"{n}", name=f"{n}") for n in range(count))
    return Item(item_id="i", uri="i", objects=objects, kind=kind)


def picture(format_: str, mode: str = "RGB", size: tuple[int, int] = (4000, 3000), **options: object) -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size).save(sink, format_, **options)
    return sink.getvalue()


def need(data: bytes, **limits: object) -> int:
    return estimate_need(item_of(), [data], CONFIG.model_copy(update=limits))


def test_sizes_and_modes_decide_whatever_the_bytes_are() -> None:
    plain, clear = picture("PNG"), picture("PNG", "RGBA")
    assert len(plain) < 100_000
    assert need(plain) == pytest.approx(8 * 12_000_000, rel=0.1)
    assert need(clear) > need(plain)
    assert need(picture("JPEG")) < need(picture("JPEG", progressive=True)) / 4  # scaled while it is decoded
    assert need(picture("WEBP")) > 90 * MIB
    assert need(picture("TIFF")) > 90 * MIB
    short, hour = (mp4([jpegs(1)[0]] * 3, frame_s=frame_s) for frame_s in (1.0, 1200.0))
    assert need(hour) > need(short) + 300 * MIB
    assert need(short) > 96 * MIB


def test_what_will_be_refused_takes_nothing() -> None:
    assert need(picture("PNG"), max_pixels=1000) == 0
    assert need(b"no picture") == 0
    assert estimate_need(item_of(0), [], CONFIG) == 0


def test_a_png_that_pillow_refuses_for_a_comment_counts() -> None:
    body = b"tEXt" + b"a\0" + b"x" * 10
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body) ^ 1)
    data = picture("PNG")
    assert need(data[:33] + chunk + data[33:]) == need(data)


def test_an_album_takes_its_largest_picture_and_all_of_its_frames() -> None:
    small, large = jpegs(1)[0], picture("PNG")
    album = estimate_need(item_of(50, Kind.ALBUM), [small] * 49 + [large], CONFIG)
    assert need(large) < album < need(large) + 50 * need(small)
    many = estimate_need(item_of(5000, Kind.ALBUM), [large] * 5000, CONFIG)
    assert many <= need(large) + MAX_FRAMES_BYTES


HEADS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM"]


@given(st.binary(max_size=200), st.sampled_from(HEADS))
def test_no_bytes_make_it_fail(data: bytes, head: bytes) -> None:
    assert estimate_need(item_of(), [head + data], CONFIG) >= 0
    assert estimate_need(item_of(), [b"RIFF\0\0\0\0WEBPVP8X" + data], CONFIG) >= 0


MEASURE = """
import io, resource, sys
from PIL import Image
from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.media.need import estimate_need
from moderation.types import Item, MediaObject
data = sys.stdin.buffer.read()
item = Item(item_id="i", uri="i", objects=(MediaObject(uri="i", name="i"),))
warm = io.BytesIO()
Image.new("RGB", (500, 500)).save(warm, sys.argv[1])
decode_item(item, [warm.getvalue()], MediaConfig())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decode_item(item, [data], MediaConfig()).frames
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, estimate_need(item, [data], MediaConfig()))
"""


@pytest.mark.parametrize(
    ("format_", "options"), [("PNG", {}), ("PNG", {"mode": "RGBA"}), ("JPEG", {"progressive": True}), ("TIFF", {})]
)
def test_the_estimate_is_not_far_below_what_decoding_takes(format_: str, options: dict[str, object]) -> None:
    data = picture(format_, size=(8000, 6000), **options)
    told = subprocess.run([sys.executable, "-c", MEASURE, format_], input=data, capture_output=True, check=True).stdout
    taken, estimated = map(int, told.split())
    assert estimated > 0.7 * taken


def test_an_album_of_more_pictures_than_are_held_says_what_was_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = jpegs(12)
    whole = decode_item(item_of(12, Kind.ALBUM), pictures, CONFIG)
    assert len(whole.frames) == 12 and not whole.unseen
    monkeypatch.setattr("moderation.media.album.MAX_FRAMES_BYTES", 5 * whole.frames[0].pixels.nbytes)
    part = decode_item(item_of(12, Kind.ALBUM), pictures, CONFIG)
    assert len(part.frames) == 5 and part.unseen == ("picture",) and part.error is None
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(part.frames, whole.frames, strict=False))
