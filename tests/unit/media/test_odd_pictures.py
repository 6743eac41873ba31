"""Pictures that viewers show in more than one way: each way is among the frames, or the row does not pass.

Every kind was tried in Chromium 150, OpenCV, FFmpeg, libvips and ImageMagick; each test failed before.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from moderation.config.model import MediaConfig
from moderation.media.limits import start_deadline
from moderation.media.objects import decode_object
from moderation.types import U8, ErrorCode, Media, Role
from tests.drawn_media import draw, encode, jpegs, mp4

CONFIG = MediaConfig()
PICTURE, OTHER = draw(160, 120), draw(160, 120, shift=2)
SHOWN, GREY = np.asarray(PICTURE), np.asarray(PICTURE.convert("L"))
JPEG, PNG = encode(PICTURE, "JPEG", quality=95), encode(PICTURE, "PNG")
HEIGHT, WIDTH = GREY.shape


def decode(data: bytes, **limits: object) -> Media:
    return decode_object(True, data, CONFIG.model_copy(update=limits), start_deadline(60))


def shows(media: Media, expected: U8, role: Role | None = None) -> bool:
    """Whether one of the frames (of this role) looks like uint8 [H,W,3]."""
    return any(
        frame.pixels.shape == expected.shape and np.abs(frame.pixels.astype(int) - expected).mean() < 6
        for frame in media.frames
        if role is None or frame.role is role
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed(samples: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in samples))


def png(samples: np.ndarray, bits: int, colours: int, *chunks: bytes) -> bytes:
    """A PNG of the samples, packed as they are: [H, bytes] or [H,W,C]."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colours, 0, 0, 0)
    pieces = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", packed(samples)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def in_front(*chunks: bytes) -> bytes:
    """The picture as a PNG with these chunks before its pixels."""
    at = PNG.index(b"IDAT") - 4
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*segments: bytes, at: int = 2) -> bytes:
    return JPEG[:at] + b"".join(segments) + JPEG[at:]


# Orientation.


def exif(*values: int, kind: int = 3, count: int = 1) -> bytes:
    """EXIF whose first directory states these orientations."""
    form = "<HHIHH" if kind == 3 else "<HHII"
    entries = b"".join(struct.pack(form, 0x112, kind, count, v, *([0] if kind == 3 else [])) for v in values)
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4)


APP1, HEAD = 0xE1, b"Exif\0\0"
DISPUTED = {
    "stated twice, 1 first": jpeg_with(segment(APP1, HEAD + exif(1)), segment(APP1, HEAD + exif(6))),
    "stated twice, 6 first": jpeg_with(segment(APP1, HEAD + exif(6)), segment(APP1, HEAD + exif(1))),
    "twice in one": jpeg_with(segment(APP1, HEAD + exif(6, 1))),
    "as a long": jpeg_with(segment(APP1, HEAD + exif(6, kind=4))),
    "two values": jpeg_with(segment(APP1, HEAD + exif(6, count=2))),
    "another head": jpeg_with(segment(APP1, b"Exif\0\xff" + exif(6))),
    "PNG": in_front(chunk(b"eXIf", exif(6))),
    "WebP": encode(PICTURE, "WEBP", quality=95, exif=exif(6)),
}


@pytest.mark.parametrize("name", DISPUTED)
def test_an_orientation_that_only_some_viewers_follow_is_shown_both_ways(name: str) -> None:
    media = decode(DISPUTED[name])
    assert media.error is None
    assert shows(media, SHOWN)
    assert shows(media, np.rot90(SHOWN, 3))


def test_an_orientation_that_all_viewers_follow_is_shown_once() -> None:
    media = decode(jpeg_with(segment(APP1, HEAD + exif(6))))
    assert [f.role for f in media.frames] == [Role.FRAME]
    assert shows(media, np.rot90(SHOWN, 3))


# Colours.


def swapped_profile() -> bytes:
    """sRGB with red and blue swapped."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[132 + 12 * k :][:4]): 136 + 12 * k for k in range(int.from_bytes(profile[128:132], "big"))}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile)


SWAPPED = swapped_profile()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def icc(profile: bytes, number: int = 1, total: int = 1) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, total]) + profile)


PROFILED: dict[str, Callable[[], bytes]] = {
    "ordinary": lambda: jpeg_with(icc(SWAPPED)),
    "behind the frame header": lambda: jpeg_with(icc(SWAPPED), at=JPEG.index(b"\xff\xda")),
    "two whole ones": lambda: jpeg_with(icc(SRGB), icc(SWAPPED)),
    "one of two pieces": lambda: jpeg_with(icc(SWAPPED, 1, 2)),
    "of another class": lambda: jpeg_with(icc(SWAPPED[:12] + b"abst" + SWAPPED[16:])),
    "of another length": lambda: jpeg_with(icc(b"\0\0\0\x80" + SWAPPED[4:])),
    "PNG": lambda: in_front(chunk(b"iCCP", b"x\0\0" + zlib.compress(SWAPPED))),
    "WebP": lambda: encode(PICTURE, "WEBP", quality=95, icc_profile=SWAPPED),
}


@pytest.mark.parametrize("name", PROFILED)
def test_a_profile_that_changes_the_picture_is_both_applied_and_ignored(name: str) -> None:
    managed = ImageCms.profileToProfile(PICTURE, ImageCms.ImageCmsProfile(io.BytesIO(SWAPPED)), io.BytesIO(SRGB))
    assert managed is not None
    media = decode(PROFILED[name]())
    assert shows(media, SHOWN)
    assert shows(media, np.asarray(managed))


@pytest.mark.parametrize("transfer", [8, 16])
@pytest.mark.parametrize("format_", ["PNG", "AVIF"])
def test_code_points_of_colours_are_followed_and_ignored(transfer: int, format_: str) -> None:
    if format_ == "PNG":
        data = in_front(chunk(b"cICP", bytes([1, transfer, 0, 1])))
    else:
        data = encode(PICTURE, "AVIF", quality=90)
        at = data.index(b"colrnclx") + 10
        data = data[:at] + transfer.to_bytes(2, "big") + data[at + 2 :]
    media = decode(data)
    assert [f.role for f in media.frames] == [Role.FRAME, Role.VARIANT]
    assert shows(media, SHOWN, Role.VARIANT)


@pytest.mark.parametrize("values", [(300_000, 45_455), (45_455, 300_000)])
def test_the_first_gamma_of_a_png_counts(values: tuple[int, int]) -> None:
    chunks = [chunk(b"gAMA", struct.pack(">I", value)) for value in values]
    assert shows(decode(in_front(*chunks)), decode(in_front(chunks[0])).frames[0].pixels, Role.FRAME)


def test_what_a_png_says_of_colours_behind_its_pixels_is_ignored() -> None:
    at = PNG.index(b"IEND") - 4
    assert shows(decode(PNG[:at] + chunk(b"gAMA", struct.pack(">I", 300_000)) + PNG[at:]), SHOWN, Role.FRAME)


def test_a_jpeg_that_stores_rgb_is_also_shown_as_ffmpeg_shows_it() -> None:
    media = decode(encode(PICTURE, "JPEG", keep_rgb=True, quality=95))
    as_ycbcr = np.asarray(Image.merge("YCbCr", PICTURE.split()).convert("RGB"))
    assert shows(media, SHOWN, Role.FRAME)
    assert shows(media, as_ycbcr, Role.VARIANT)


# Transparency.


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_what_transparency_hides_is_looked_at(format_: str) -> None:
    rgba = PICTURE.convert("RGBA")
    rgba.putalpha(0)
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    media = decode(encode(rgba, format_, **options))
    assert [f.role for f in media.frames] == [Role.FRAME, Role.BACKDROP, Role.VARIANT]
    assert shows(media, SHOWN, Role.VARIANT)


def test_a_smoothed_edge_hides_nothing() -> None:
    alpha = np.where(np.indices((HEIGHT, WIDTH))[1] < 80, 255, 0).astype(np.uint8)
    rgba = np.dstack([np.where(alpha[..., None] > 0, SHOWN, 255), alpha]).astype(np.uint8)
    assert [f.role for f in decode(encode(Image.fromarray(rgba), "PNG")).frames] == [Role.FRAME, Role.BACKDROP]


def keyed(bits: int) -> bytes:
    """White and nearly white; the latter is transparent, and draws the picture."""
    bright = GREY > 120
    top = (1 << bits) - 1
    if bits == 16:
        return png(np.where(bright, top, top - 1).astype(">u2"), 16, 0, chunk(b"tRNS", struct.pack(">H", top - 1)))
    values = np.where(bright, top, top - 1).astype(np.uint8)
    per_byte = 8 // bits
    rows = np.zeros((HEIGHT, WIDTH // per_byte), np.uint8)
    for k in range(per_byte):
        rows |= (values[:, k::per_byte] << (8 - bits * (k + 1))).astype(np.uint8)
    return png(rows, bits, 0, chunk(b"tRNS", struct.pack(">H", top - 1)))


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_transparent_value_of_grey_is_seen_over_black(bits: int) -> None:
    drawn = np.repeat(np.where(GREY > 120, 255, 0)[..., None], 3, axis=2)
    assert shows(decode(keyed(bits)), drawn, Role.BACKDROP)


def test_a_transparent_colour_of_16_bits_is_told_by_all_of_them() -> None:
    bright = (GREY > 120)[..., None]
    samples = np.where(bright, 0xFF00, 0xFF01).astype(">u2").repeat(3, axis=2)
    media = decode(png(samples, 16, 2, chunk(b"tRNS", struct.pack(">3H", 0xFF01, 0xFF01, 0xFF01))))
    assert shows(media, np.where(bright, 255, 0).repeat(3, axis=2), Role.BACKDROP)


# Animations.


def control(number: int, **fields: int) -> bytes:
    values = {"left": 0, "top": 0, "num": 1, "den": 2, "dispose": 0, "blend": 0} | fields
    form = struct.pack(
        ">5I", number, values.get("width", WIDTH), values.get("height", HEIGHT), values["left"], values["top"]
    )
    return chunk(b"fcTL", form + struct.pack(">2H2B", *(values[n] for n in ("num", "den", "dispose", "blend"))))


def apng(*pieces: bytes, frames: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
    total = chunk(b"acTL", struct.pack(">2I", frames, 0))
    return b"\x89PNG\r\n\x1a\n" + header + total + b"".join(pieces) + chunk(b"IEND", b"")


def test_an_area_that_an_apng_clears_is_transparent() -> None:
    corner = packed(np.asarray(OTHER)[:60, :80])
    pieces = (control(0, dispose=1), chunk(b"IDAT", packed(SHOWN)), control(1, width=80, height=60))
    media = decode(apng(*pieces, chunk(b"fdAT", bytes([0, 0, 0, 2]) + corner), frames=2))
    expected = np.full_like(SHOWN, 255)
    expected[:60, :80] = np.asarray(OTHER)[:60, :80]
    assert shows(media, expected, Role.FRAME)
    assert shows(media, np.where(expected == 255, 0, expected), Role.BACKDROP)


def test_frames_of_an_apng_out_of_order_are_seen() -> None:
    pieces = (control(0), chunk(b"IDAT", packed(SHOWN)), control(5))
    media = decode(apng(*pieces, chunk(b"fdAT", bytes([0, 0, 0, 9]) + packed(np.asarray(OTHER))), frames=2))
    assert shows(media, np.asarray(OTHER), Role.FRAME)


PALETTE = PICTURE.quantize(64, dither=Image.Dither.NONE)


def gif(*layers: tuple[Image.Image, int, int, int], screen: tuple[int, int] = (WIDTH, HEIGHT), key: int = -1) -> bytes:
    """A GIF of palette pictures, each with its left, top and disposal. key: the transparent colour."""
    colours = bytes(PALETTE.getpalette() or ()).ljust(768, b"\0")[:768]
    parts = [b"GIF89a" + struct.pack("<2H3B", *screen, 0xF7, 0, 0) + colours]
    for image, left, top, disposal in layers:
        still = encode(image, "GIF", interlace=0)
        at = still.index(b",", 13 + 3 * (2 << (still[10] & 7)))
        parts.append(b"!\xf9\x04" + struct.pack("<BHB", disposal << 2 | (key >= 0), 50, max(key, 0)) + b"\0")
        parts.append(b"," + struct.pack("<4HB", left, top, *image.size, 0) + still[at + 10 : -1])
    return b"".join((*parts, b";"))


def flat(size: tuple[int, int] = (WIDTH, HEIGHT), index: int = 0) -> Image.Image:
    image = Image.new("P", size, index)
    image.putpalette(PALETTE.getpalette() or [])
    return image


@pytest.mark.parametrize("disposal", [2, 3])
def test_what_a_gif_disposes_of_is_transparent_again(disposal: int) -> None:
    small = flat((40, 30))
    media = decode(gif((flat(), 0, 0, disposal), (small, 0, 0, 0)))
    last = [f.pixels for f in media.frames if f.role is Role.FRAME][-1]
    assert (last[60:] == 255).all()


def test_a_first_frame_larger_than_its_screen_is_seen_whole() -> None:
    media = decode(gif((PALETTE, 40, 30, 0), screen=(80, 60)))
    assert (media.frames[0].width, media.frames[0].height) == (200, 150)
    assert np.abs(media.frames[0].pixels[30:, 40:].astype(int) - np.asarray(PALETTE.convert("RGB"))).mean() < 10


def test_a_later_frame_with_transparency_is_seen_over_black() -> None:
    media = decode(gif((PALETTE, 0, 0, 2), (PALETTE, 0, 0, 0), key=int(np.asarray(PALETTE)[0, 0])))
    assert [f.role for f in media.frames].count(Role.BACKDROP) == 2


def test_many_frames_that_draw_nothing_end_at_the_deadline() -> None:
    empty = b"," + bytes(9) + b"\x08\0"
    data = gif((PALETTE, 0, 0, 0))[:-1] + empty * 300_000 + b";"
    assert decode_object(True, data, CONFIG, start_deadline(0.5)).error is ErrorCode.TIMEOUT


def test_an_animated_webp_that_announces_no_transparency_has_it() -> None:
    rgba = PICTURE.convert("RGBA")
    rgba.putalpha(Image.fromarray(np.where(np.indices((HEIGHT, WIDTH))[1] < 80, 255, 0).astype(np.uint8)))
    data = encode(rgba, "WEBP", save_all=True, append_images=[OTHER.convert("RGBA")], duration=300)
    media = decode(data[:20] + bytes([data[20] & ~0x10]) + data[21:])
    assert Role.BACKDROP in [f.role for f in media.frames]


# More than one picture.

FRONT = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF"]
REST: dict[str, Callable[[], bytes]] = {
    **{name: (lambda name=name: encode(OTHER, name)) for name in ("PNG", "BMP", "TIFF", "JPEG2000", "AVIF")},
    "MP4": lambda: mp4(jpegs(4)),
    "PDF": lambda: b"%PDF-1.4\n1 0 obj <</Type/Catalog>> endobj",
    "PSD": lambda: b"8BPS\0\1" + bytes(80),
}


@pytest.mark.parametrize(
    ("front", "rest"), [(f, r) for k, f in enumerate(FRONT) for j, r in enumerate(REST) if (k + j) % 3 == 0]
)
def test_what_is_joined_to_a_picture_is_seen_or_said(front: str, rest: str) -> None:
    media = decode(encode(PICTURE, front) + REST[rest](), max_frames=6)
    assert media.error is None, media.error_detail
    assert media.unseen or sum(f.role is Role.FRAME for f in media.frames) > 1


PREVIEW = encode(OTHER.resize((80, 60)), "JPEG")


@pytest.mark.parametrize(
    "body", [HEAD + exif() + PREVIEW, b"Photoshop 3.0\x008BIM" + PREVIEW], ids=["exif", "photoshop"]
)
def test_a_thumbnail_of_another_picture_is_looked_at(body: bytes) -> None:
    media = decode(jpeg_with(segment(APP1 if body.startswith(HEAD) else 0xED, body)))
    assert [(f.width, f.height) for f in media.frames] == [(160, 120), (80, 60)]


@pytest.mark.parametrize("turned", [False, True])
def test_a_thumbnail_of_the_picture_is_nothing_new(turned: bool) -> None:
    small = Image.new("RGB", (80, 68))
    small.paste(PICTURE.resize((80, 60)), (0, 4))
    thumbnail = encode(small.rotate(90, expand=True) if turned else small, "JPEG")
    assert len(decode(jpeg_with(segment(APP1, HEAD + exif() + thumbnail))).frames) == 1


def test_a_picture_that_readers_of_pdf_take_for_a_document_is_not_seen_whole() -> None:
    media = decode(jpeg_with(segment(0xFE, b"%PDF-1.4 1 0 obj")))
    assert (media.error, media.unseen) == (None, ("document",))


def test_a_subdirectory_of_a_tiff_is_looked_at() -> None:
    first, second = encode(PICTURE, "TIFF"), encode(OTHER, "TIFF")
    data = bytearray(first + bytes(len(first) % 2) + second)
    shift, at = len(data) - len(second), int.from_bytes(first[4:8], "little")
    sub = shift + int.from_bytes(second[4:8], "little")
    # Strips of the second are referred to from the start of its own file.
    count = int.from_bytes(data[sub : sub + 2], "little")
    for entry in range(sub + 2, sub + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from("<HHII", data, entry)
        if tag == 273 or number * {3: 2, 4: 4, 5: 8}.get(kind, 1) > 4:
            struct.pack_into("<I", data, entry + 8, value + shift)
    entries = int.from_bytes(data[at : at + 2], "little")
    body = bytes(data[at + 2 : at + 2 + 12 * entries]) + struct.pack("<HHII", 330, 4, 1, sub)
    moved = len(data)
    data += struct.pack("<H", entries + 1) + body + bytes(4)
    struct.pack_into("<I", data, 4, moved)
    media = decode(bytes(data))
    assert shows(media, SHOWN)
    assert shows(media, np.asarray(OTHER))


# BMP, TIFF and tables of colours.


def bmp(size: int, bits: int, packing: int, pixels: bytes, rest: bytes = b"", palette: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", size, WIDTH, HEIGHT, 1, bits, packing, len(pixels), 0, 0, len(palette) // 4, 0)
    start = 14 + size + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + rest + palette + pixels


BGR = np.ascontiguousarray(SHOWN[::-1, :, ::-1])


def test_a_profile_in_a_bmp_is_followed() -> None:
    rest = bytes(16) + b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + BGR.nbytes, len(SWAPPED), 0)
    media = decode(bmp(124, 24, 0, BGR.tobytes(), rest) + SWAPPED)
    assert [f.role for f in media.frames] == [Role.FRAME, Role.VARIANT]
    assert shows(media, SHOWN, Role.VARIANT)


def test_primaries_in_a_bmp_are_followed() -> None:
    swapped = (0.15, 0.06, 0.79, 0.3, 0.6, 0.1, 0.64, 0.33, 0.03)
    rest = bytes(20) + struct.pack("<9i", *(int(v * 2**30) for v in swapped)) + struct.pack("<3I", *[144179] * 3)
    media = decode(bmp(108, 24, 0, BGR.tobytes(), rest))
    assert shows(media, SHOWN[..., ::-1], Role.FRAME)


def test_the_unused_byte_of_a_bmp_may_be_alpha() -> None:
    white = np.dstack([np.full_like(BGR, 255), GREY[::-1]])
    assert shows(decode(bmp(40, 32, 0, np.ascontiguousarray(white).tobytes())), GREY[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("skipped", [True, False])
def test_a_bmp_that_leaves_pixels_out_is_not_shown_as_if_it_had_them(skipped: bool) -> None:
    line = bytes([80, 1]) + (b"" if skipped else bytes([80, 2])) + b"\0\0"
    media = decode(bmp(40, 8, 1, line * HEIGHT + b"\0\1", palette=bytes(1024)))
    assert (media.error is ErrorCode.UNSUPPORTED_TYPE) == skipped


def test_planes_of_deep_samples_are_not_taken_for_bytes() -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    planes = np.moveaxis(SHOWN.astype(np.uint16) * 257, 2, 0)
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate")
    assert decode(buffer.getvalue()).error is ErrorCode.UNSUPPORTED_TYPE


@pytest.mark.parametrize("type_", [np.int8, np.int16])
def test_signed_samples_are_also_shown_as_viewers_show_them_that_know_none(type_: type[np.signedinteger]) -> None:
    tifffile = pytest.importorskip("tifffile")
    factor = 256 if type_ is np.int16 else 1
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, ((GREY.astype(int) - 128) * factor).astype(type_), photometric="minisblack")
    media = decode(buffer.getvalue())
    assert shows(media, GREY[..., None].repeat(3, axis=2), Role.FRAME)
    assert shows(media, (GREY ^ 128)[..., None].repeat(3, axis=2), Role.VARIANT)


def test_colours_stored_times_alpha_are_shown_though_alpha_is_0() -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    samples = np.dstack([SHOWN, np.zeros_like(GREY)])
    tifffile.imwrite(buffer, samples, photometric="rgb", extrasamples=["assocalpha"])
    assert shows(decode(buffer.getvalue()), SHOWN)


@pytest.mark.parametrize("colours", [0, 2])
def test_numbers_without_a_colour_are_said(colours: int) -> None:
    table = chunk(b"PLTE", bytes(3 * colours)) if colours else b""
    assert decode(png(GREY, 8, 3, table)).error in (ErrorCode.TRUNCATED, ErrorCode.CORRUPT)
