"""The end of a film without an index is missing where that can be known, and never where it is whole."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.config.model import MediaConfig
from moderation.file_types import MediaType
from moderation.media.cut_ends import is_cut
from moderation.media.limits import start_deadline
from moderation.media.objects import decode_object
from moderation.types import ErrorCode

CASES = {"mpegts": MediaType.MPEG_TS, "vob": MediaType.MPEG_PS, "flv": MediaType.FLV}
CODECS = {"mpegts": "mpeg2video", "vob": "mpeg2video", "flv": "flv"}


def film(container: str, frames: int = 50) -> bytes:
    random = np.random.default_rng(1)
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as output:
        stream = output.add_stream(CODECS[container], rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for _ in range(frames):
            pixels = random.integers(0, 255, (128, 160, 3), dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return sink.getvalue()


@pytest.mark.parametrize("container", CASES)
def test_a_whole_film_is_not_cut_and_one_cut_within_a_packet_is(container: str) -> None:
    data = film(container)
    media_type = CASES[container]
    assert not is_cut(data, media_type)
    assert decode_object(True, data, MediaConfig(), start_deadline(60)).error is None
    for length in (len(data) // 3 + 5, len(data) - 7):
        assert is_cut(data[:length], media_type)
    media = decode_object(True, data[: len(data) * 2 // 3 + 5], MediaConfig(), start_deadline(60))
    assert media.error is ErrorCode.TRUNCATED and media.frames


def test_a_length_in_the_header_that_nothing_reaches_is_told() -> None:
    data = film("flv", frames=200)
    # The end of a tag is where the length of the one before stands.
    end = data.find(b"\x09", len(data) // 2)
    while is_cut_within_a_tag(data[:end]):
        end += 1
    assert is_cut(data[:end], MediaType.FLV)


def is_cut_within_a_tag(data: bytes) -> bool:
    length = int.from_bytes(data[-4:], "big")
    return length < 11 or length > 1 << 20 or data[len(data) - 4 - length] != 9


@pytest.mark.parametrize("size", [188, 192, 204])
def test_packets_of_every_layout_are_found(size: int) -> None:
    packet = b"\x47\x1f\xff\x10" + b"\xff" * 184
    row = {188: packet, 192: b"\0\0\0\0" + packet, 204: packet + b"\0" * 16}[size]
    assert not is_cut(row * 20, MediaType.MPEG_TS)
    assert is_cut((row * 20)[:-50], MediaType.MPEG_TS)
    assert not is_cut(row * 20 + b"some junk", MediaType.MPEG_TS)


def test_a_stream_that_states_its_length_and_does_not_reach_it_is_cut() -> None:
    head = b"\x47\x41\x00\x10" + b"\x00\x00\x01\xc0" + (300).to_bytes(2, "big")
    first, second = head.ljust(188, b"a"), b"\x47\x01\x00\x11".ljust(188, b"a")
    assert is_cut(first * 8 + first, MediaType.MPEG_TS)
    assert not is_cut((first + second) * 8, MediaType.MPEG_TS)


@given(st.binary(max_size=600), st.sampled_from(list(CASES.values())))
def test_no_bytes_make_it_fail(data: bytes, media_type: MediaType) -> None:
    is_cut(data, media_type)
    is_cut(b"\x47" + data, media_type)
    is_cut(b"\x00\x00\x01\xba" + data, media_type)
    is_cut(b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x12" + b"\x00\x08duration\x00" + data, media_type)
