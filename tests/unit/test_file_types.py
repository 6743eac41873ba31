"""Type by content, and what a name claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.file_types import HEAD_BYTES, MediaType, names_media, sniff
from tests.drawn_media import avi, draw, encode, jpegs, matroska, mp4

ENCODED = {
    "JPEG": MediaType.JPEG,
    "PNG": MediaType.PNG,
    "WEBP": MediaType.WEBP,
    "AVIF": MediaType.AVIF,
    "GIF": MediaType.GIF,
    "BMP": MediaType.BMP,
    "TIFF": MediaType.TIFF,
    "JPEG2000": MediaType.JPEG2000,
}


@pytest.mark.parametrize(("format_", "expected"), ENCODED.items())
def test_a_picture_is_known_by_its_head(format_: str, expected: MediaType) -> None:
    assert sniff(encode(draw(), format_)[:HEAD_BYTES]) is expected
    assert not expected.is_video


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (mp4(jpegs(2)), MediaType.MP4),
        (mp4(jpegs(2))[24:], MediaType.MP4),  # an old movie without `ftyp`
        (matroska(jpegs(2)), MediaType.MATROSKA),
        (avi(jpegs(2)), MediaType.AVI),
        ((b"G" + bytes(187)) * 4, MediaType.MPEG_TS),
        ((bytes(4) + b"G" + bytes(187)) * 4, MediaType.MPEG_TS),
        (b"FLV\x01\x05", MediaType.FLV),
    ],
)
def test_a_video_is_known_by_its_head(data: bytes, expected: MediaType) -> None:
    assert sniff(data[:HEAD_BYTES]) is expected
    assert expected.is_video


@pytest.mark.parametrize(
    ("brands", "expected"),
    [
        (b"heic\0\0\0\0mif1heic", MediaType.HEIC),
        (b"mif1\0\0\0\0mif1heic", MediaType.HEIC),
        (b"mif1\0\0\0\0mif1avif", MediaType.AVIF),
        (b"avis\0\0\0\0msf1miaf", MediaType.AVIF),
        (b"isom\0\0\2\0isomavif", MediaType.MP4),
        (b"M4A \0\0\0\0M4A isom", MediaType.MP4),
        (b"crx \0\0\0\1crx isom", MediaType.OTHER),
    ],
)
def test_the_major_brand_decides_between_picture_and_movie(brands: bytes, expected: MediaType) -> None:
    assert sniff((len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands) is expected


@pytest.mark.parametrize(
    "text",
    [b"", b"BMW makes cars, " * 9, b"GIF is a word", b"RIFF____WAVE", b"Good " * 200, b"{}", b"%PDF-1.7", b"PK\3\4"],
)
def test_what_is_no_media_is_none(text: bytes) -> None:
    assert sniff(text) is None


@given(st.binary(max_size=600))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert sniff(data) in {None, *MediaType}


@pytest.mark.parametrize("name", ["a.jpg", "b/c.JPEG", "x.y/z.MP4", "clip.webm", "i.heic"])
def test_a_name_may_claim_to_be_media(name: str) -> None:
    assert names_media(name)


@pytest.mark.parametrize("name", ["README.md", "jpg", "a.jpg/readme", "a.json", "", "a.jpg.txt", "song.mp3"])
def test_other_names_claim_nothing(name: str) -> None:
    assert not names_media(name)
