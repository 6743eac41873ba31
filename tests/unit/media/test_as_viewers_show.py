"""Pictures whose numbers differ from what is shown: the frames hold the harshest of what viewers show.

Drawn here, in a table; also the files of ../shared/cases/pictures. References: Pillow with colour management, and
OpenCV. One kind per test; each failed before.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from moderation.config.model import MediaConfig
from moderation.media.limits import start_deadline
from moderation.media.objects import decode_object
from moderation.types import U8, ErrorCode, Media, Role
from tests.drawn_media import draw, encode, jpegs, mp4

CONFIG = MediaConfig()
CASES = Path(__file__).parents[3].parent / "shared" / "cases" / "pictures"
PICTURE = draw(160, 120)
SHOWN = np.asarray(PICTURE)
GREY = np.asarray(PICTURE.convert("L"))


def decode(data: bytes, **limits: object) -> Media:
    config = CONFIG.model_copy(update=limits)
    return decode_object(True, data, config, start_deadline(60))


def apart(pixels: U8, expected: U8) -> float:
    """Mean difference of uint8 [H,W,3], or of grey [H,W]."""
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    return float(np.abs(pixels.astype(int) - expected).mean())


def tiff(
    samples: np.ndarray,
    *,
    photometric: int = 1,
    sample_format: int = 1,
    order: str = "<",
    bits: int | None = None,
    packed: bool = False,
) -> bytes:
    """A grey TIFF of one strip, written by hand: Pillow writes few of these. packed: by zlib."""
    height, width = samples.shape
    body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    body = zlib.compress(body) if packed else body
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits or samples.dtype.itemsize * 8),
        (259, 3, 8 if packed else 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(body)),
        (339, 3, sample_format),
    ]
    entries = b"".join(
        struct.pack(order + "HHI", t, k, 1)
        + struct.pack(order + ("HH" if k == 3 else "I"), *((v, 0) if k == 3 else (v,)))
        for t, k, v in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def png_chunk(kind: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def with_chunk(data: bytes, chunk: bytes, *, before: bytes = b"IDAT") -> bytes:
    at = data.index(before) - 4
    return data[:at] + chunk + data[at:]


PNG = encode(PICTURE, "PNG")
JPEG = encode(PICTURE, "JPEG", quality=95)
OTHER_JPEG = encode(draw(160, 120, shift=2), "JPEG", quality=95)


# Orientation, by EXIF alone.


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_turns_nothing(format_: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    if format_ == "PNG":
        data = with_chunk(PNG, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    elif format_ == "TIFF":
        data = encode(PICTURE, "TIFF", tiffinfo={700: xmp})
    else:
        data = encode(PICTURE, format_, xmp=xmp)
    assert apart(decode(data).frames[0].pixels, SHOWN) < 12


# Samples of TIFF and BMP.


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "meaning"),
    [
        (65535 - GREY.astype(np.uint16) * 257, {"photometric": 0}),
        (GREY.astype(np.uint32) * 16843009, {}),
        ((GREY.astype(np.int16) - 128).astype(np.int8), {"sample_format": 2}),
        ((GREY.astype(np.int32) * 257 - 32768).astype(np.int16), {"sample_format": 2}),
        ((GREY.astype(np.int64) * 16843009 - 2**31).astype(np.int32), {"sample_format": 2}),
        (GREY.astype(np.float32) / 255, {"sample_format": 3}),
        (GREY.astype(np.float32), {"sample_format": 3}),
        (1 - GREY.astype(np.float32) / 255, {"sample_format": 3, "photometric": 0}),
    ],
    ids=["white-is-zero", "uint32", "int8", "int16", "int32", "float-1", "float-255", "float-white-is-zero"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_samples_are_shown_whole_and_not_as_a_negative(
    samples: np.ndarray, meaning: dict[str, int], order: str, packed: bool
) -> None:
    media = decode(tiff(samples, order=order, packed=packed, **meaning))
    unread = samples.dtype == np.uint32 or (samples.dtype == np.uint16 and meaning.get("photometric") == 0)
    if order == ">" and unread:
        # Pillow has no mode for them: never as they are not shown elsewhere.
        assert media.error is ErrorCode.UNSUPPORTED_TYPE and not media.frames
        return
    assert media.error is None, media.error_detail
    # For floats only the largest value tells the range.
    assert apart(media.frames[0].pixels, GREY) <= 3


def test_a_float_of_nothing_but_nan_is_black() -> None:
    assert not decode(tiff(np.full((8, 8), np.nan, np.float32), sample_format=3)).frames[0].pixels.any()


def bmp(alpha: int) -> bytes:
    """A 32-bit BMP with a mask for alpha (BITMAPV4HEADER)."""
    rgba = np.dstack([SHOWN[::-1, :, ::-1], np.full(SHOWN.shape[:2], alpha, np.uint8)])
    height, width = SHOWN.shape[:2]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = (
        struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, rgba.nbytes, 2835, 2835, 0, 0) + masks + bytes(52)
    )
    return b"BM" + struct.pack("<IHHI", 122 + rgba.nbytes, 0, 0, 122) + header + rgba.tobytes()


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_without_any_alpha_is_opaque(alpha: int) -> None:
    media = decode(bmp(alpha))
    assert len(media.frames) == 1
    assert np.array_equal(media.frames[0].pixels, SHOWN)


def test_a_bmp_with_alpha_is_shown_over_both() -> None:
    assert [f.role for f in decode(bmp(60)).frames[:2]] == [Role.FRAME, Role.BACKDROP]


# Colours.


def swapped_profile() -> bytes:
    """sRGB with red and blue swapped, named sRGB."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[132 + 12 * k :][:4]): 136 + 12 * k for k in range(int.from_bytes(profile[128:132], "big"))}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile)


def managed(image: Image.Image, icc: bytes) -> U8:
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert shown is not None
    return np.asarray(shown)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("side", [160, 1200])
def test_a_profile_says_what_the_numbers_mean(format_: str, side: int) -> None:
    icc = swapped_profile()
    picture = draw(side, side * 3 // 4)
    media = decode(encode(picture, format_, icc_profile=icc))
    assert (media.error, media.error_detail) == (None, "")
    height, width = media.frames[0].pixels.shape[:2]
    expected = managed(picture, icc)
    reference = np.asarray(Image.fromarray(expected).resize((width, height), Image.Resampling.BILINEAR))
    assert apart(media.frames[0].pixels, reference) < 8
    assert apart(media.frames[0].pixels, reference[..., ::-1]) > 30


def test_a_profile_is_applied_beneath_transparency() -> None:
    icc = swapped_profile()
    rgba = PICTURE.copy()
    rgba.putalpha(128)
    white, black, *_ = decode(encode(rgba, "PNG", icc_profile=icc)).frames
    expected = managed(PICTURE, icc).astype(int)
    assert apart(black.pixels, (expected * 128 // 255).astype(np.uint8)) < 3
    assert apart(white.pixels, (expected * 128 // 255 + 127).astype(np.uint8)) < 3


def test_the_profile_of_srgb_changes_no_pixel() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(encode(PICTURE, "PNG", icc_profile=icc)).frames[0].pixels, SHOWN)


@pytest.mark.parametrize("icc", [b"no profile at all", swapped_profile()[:200], bytes(5 * 1024 * 1024)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_broken_profile_is_left_aside_and_said(icc: bytes, format_: str) -> None:
    if format_ == "JPEG" and len(icc) > 2**22:
        pytest.skip("more than a JPEG's segments hold")
    media = decode(encode(PICTURE, format_, icc_profile=icc))
    assert media.error is None
    assert "ignored" in media.error_detail
    assert apart(media.frames[0].pixels, SHOWN) < 6


@pytest.mark.parametrize("gamma", [0.1, 1.0, 3.0])
def test_a_png_of_another_gamma_is_shown_by_it(gamma: float) -> None:
    data = with_chunk(PNG, png_chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000))))
    light = (SHOWN / 255.0) ** (1 / gamma)
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert apart(decode(data).frames[0].pixels, expected.astype(np.uint8)) < 1


def test_a_png_with_the_gamma_of_srgb_keeps_its_pixels() -> None:
    data = with_chunk(PNG, png_chunk(b"gAMA", struct.pack(">I", 45455)))
    assert np.array_equal(decode(data).frames[0].pixels, SHOWN)


def test_the_primaries_of_a_png_are_followed() -> None:
    swapped = struct.pack(">8I", 31270, 32900, 15000, 6000, 30000, 60000, 64000, 33000)
    data = with_chunk(PNG, png_chunk(b"gAMA", struct.pack(">I", 45455)) + png_chunk(b"cHRM", swapped))
    assert apart(decode(data).frames[0].pixels, SHOWN[..., ::-1]) < 6


# PNG: broken data beside the pixels.


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 2_000_000)),
        png_chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
        png_chunk(b"tEXt", b"comment\0text", crc=7),
        png_chunk(b"pHYs", b"\0\0\1"),
        png_chunk(b"sRGB", b""),
        png_chunk(b"gAMA", b"\0"),
        png_chunk(b"cHRM", b"\0" * 9),
        png_chunk(b"tIME", b""),
        png_chunk(b"iCCP", b"name\0\1" + zlib.compress(b"x")),
        png_chunk(b"iCCP", b"name\0\0no stream"),
        png_chunk(b"eXIf", b"", crc=1),
        png_chunk(b"prVt", b"\xff" * 50, crc=3),
    ],
)
def test_a_broken_chunk_beside_the_pixels_of_a_png_does_not_matter(chunk: bytes, before: bytes) -> None:
    media = decode(with_chunk(PNG, chunk, before=before))
    assert media.error is None, media.error_detail
    assert np.array_equal(media.frames[0].pixels, SHOWN)


# JPEG: the end, and the data behind it.


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("side", [160, 1600])
@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(40)])
def test_a_jpeg_that_lacks_only_its_end_mark_is_whole(progressive: bool, side: int, tail: bytes) -> None:
    whole = encode(draw(side, side), "JPEG", progressive=progressive)
    media = decode(whole[:-2] + tail)
    assert media.error is None, media.error_detail
    assert np.array_equal(media.frames[0].pixels, decode(whole).frames[0].pixels)


@pytest.mark.parametrize("missing", [30, 200, 2000])
def test_a_jpeg_that_lacks_a_piece_of_its_pixels_is_truncated(missing: int) -> None:
    assert decode(encode(draw(400, 300), "JPEG")[:-missing]).error is ErrorCode.TRUNCATED


def multi_picture() -> bytes:
    return encode(PICTURE, "MPO", save_all=True, append_images=[draw(160, 120, shift=2)], quality=95)


BEHIND: dict[str, Callable[[], bytes]] = {
    "mpo": multi_picture,
    "concatenated": lambda: JPEG + OTHER_JPEG,
    "with padding": lambda: JPEG + bytes(77) + OTHER_JPEG,
    "behind a PNG": lambda: PNG + OTHER_JPEG,
    "a PNG behind": lambda: JPEG + encode(draw(160, 120, shift=2), "PNG"),
    "without the first one's end": lambda: JPEG[:-2] + OTHER_JPEG,
}


@pytest.mark.parametrize("name", BEHIND)
def test_a_second_picture_is_a_frame_too(name: str) -> None:
    media = decode(BEHIND[name]())
    assert media.error is None, media.error_detail
    assert media.unseen == ()
    assert media.frames_total == 2
    assert [f.index for f in media.frames] == [0, 1]
    assert apart(media.frames[0].pixels, SHOWN) < 6
    assert apart(media.frames[1].pixels, np.asarray(draw(160, 120, shift=2))) < 12


def test_the_video_of_a_motion_photo_is_looked_at() -> None:
    media = decode(JPEG + mp4(jpegs(4)))
    assert media.unseen == ()
    assert media.frames_total == 5
    assert len(media.frames) >= 2


def test_what_lies_behind_and_cannot_be_decoded_is_unseen() -> None:
    film = mp4(jpegs(4))
    assert decode(JPEG + film[:60] + bytes(len(film))).unseen == ("track",)
    cut = OTHER_JPEG[: OTHER_JPEG.index(b"\xff\xda") + 14]
    assert decode(JPEG + cut).unseen == ("picture",)


def test_more_pictures_than_may_be_scored_are_unseen() -> None:
    media = decode(JPEG + OTHER_JPEG * 5, max_frames=3)
    assert len(media.frames) == 3
    assert media.unseen == ("picture",)


def test_a_preview_behind_its_picture_is_nothing_new() -> None:
    preview = encode(draw(640, 480).resize((160, 120)), "JPEG")
    media = decode(encode(draw(640, 480), "JPEG") + preview)
    assert (len(media.frames), media.frames_total, media.unseen) == (1, 1, ())


@pytest.mark.parametrize("tail", [b"\0" * 99, b"\xff\xd8\xff" + b"junk" * 9, b"SEFT" * 9])
def test_a_tail_that_is_no_picture_does_not_matter(tail: bytes) -> None:
    media = decode(JPEG + tail)
    assert (media.error, len(media.frames), media.unseen) == (None, 1, ())


# Camera raw.


def raw_tiff(photometric: int) -> bytes:
    """A thumbnail, and a sensor's picture in a subdirectory."""
    small = tiff(GREY[::4, ::4].copy())
    at = len(small)
    sub = struct.pack("<H", 4) + b"".join(
        struct.pack("<HHII", t, 4, 1, v) for t, v in ((254, 0), (256, 160), (257, 120), (262, photometric))
    )
    directory = int.from_bytes(small[4:8], "little")
    count = int.from_bytes(small[directory : directory + 2], "little")
    entries = small[directory + 2 : directory + 2 + 12 * count]
    entry = struct.pack("<HHII", 330, 4, 1, at + len(sub) + 4)
    reduced = struct.pack("<HHII", 254, 4, 1, 1)
    tags = b"".join(sorted([entries[12 * k : 12 * k + 12] for k in range(count)] + [entry, reduced], key=_tag))
    moved = small[:4] + struct.pack("<I", at + len(sub) + 4 + len(sub) + 4)
    return moved + small[8:] + bytes(len(sub) + 4) + sub + bytes(4) + struct.pack("<H", count + 2) + tags + bytes(4)


def _tag(entry: bytes) -> int:
    return int.from_bytes(entry[:2], "little")


@pytest.mark.parametrize("photometric", [32803, 34892, 2])
def test_a_thumbnail_does_not_stand_for_a_camera_raw_file(photometric: int) -> None:
    media = decode(raw_tiff(photometric))
    assert media.error is ErrorCode.UNSUPPORTED_TYPE
    assert "raw" in media.error_detail


@pytest.mark.parametrize("head", [b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"FOVb\0\0\2\0"])
def test_other_raw_files_are_unsupported(head: bytes) -> None:
    assert decode(head + bytes(500)).error is ErrorCode.UNSUPPORTED_TYPE


# The files of ../shared/cases, against Pillow with colour management and OpenCV.


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases/pictures is not there")
@pytest.mark.parametrize("path", sorted(CASES.glob("*")), ids=lambda p: p.name)
def test_the_cases_are_shown_as_viewers_show_them(path: Path) -> None:
    data = path.read_bytes()
    media = decode(data)
    if path.suffix == ".dng":
        assert media.error is ErrorCode.UNSUPPORTED_TYPE
        return
    assert media.error is None, media.error_detail
    if path.name == "png-white-in-alpha.png":
        assert media.frames[1].role is Role.BACKDROP
        assert media.frames[1].pixels.std() > 40
        return
    assert len(media.frames) == (2 if path.name in ("mpo-two.jpg", "icc-swapped.jpg") else 1)
    assert apart(media.frames[0].pixels, _reference(path, data)) < 3


def _reference(path: Path, data: bytes) -> U8:
    cv2 = pytest.importorskip("cv2")
    if path.name == "icc-swapped.jpg":
        image = Image.open(path)
        return managed(image, image.info["icc_profile"])
    if path.name.startswith(("gray16", "tif-uint32")):
        samples = np.asarray(Image.open(path))
        return 255 - (samples >> 8).astype(np.uint8) if samples.dtype == np.uint16 else (samples.view(np.uint32) >> 24)
    if path.name == "jpg-noeoi.jpg":
        data += b"\xff\xd9"
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(shown[..., ::-1])
