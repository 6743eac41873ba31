"""Still pictures: every mode comes out as upright RGB, over white and over black, at canvas size."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media import jpeg
from moderation.media.image import decode_image
from moderation.media.limits import canvas_size, start_deadline
from moderation.types import ErrorCode, Frame, Media, Role
from tests.drawn_media import draw, encode

CONFIG = MediaConfig()
PHOTOGRAPHS = Path(__file__).parents[3].parent / "shared" / "data" / "images"


def only_frame(media: Media) -> Frame:
    assert media.error is None
    assert len(media.frames) == 1
    frame = media.frames[0]
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.shape[2] == 3
    assert frame.pixels.flags.writeable
    assert frame.pixels.flags.c_contiguous
    return frame


def flat(mode: str, colour: object, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]  # Pillow's own union of colours


def over_both(media: Media) -> tuple[Frame, Frame]:
    assert media.error is None
    assert media.frames_total == 1
    white, black, *variants = media.frames
    assert all(v.role is Role.VARIANT for v in variants)
    assert (white.role, black.role, black.index, black.parent) == (Role.FRAME, Role.BACKDROP, 1, None)
    return white, black


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF", "TIFF", "JPEG2000"])
def test_alpha_is_laid_over_white_and_over_black(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    white, black = over_both(decode_image(encode(flat("RGBA", (200, 0, 0, 128)), format_, **options), CONFIG))
    assert np.abs(white.pixels[9, 9].astype(int) - (227, 127, 127)).max() <= 3
    assert np.abs(black.pixels[9, 9].astype(int) - (100, 0, 0)).max() <= 3


def test_invisible_pixels_show_the_background_whatever_their_colour_also_when_scaled() -> None:
    white, black = over_both(decode_image(encode(flat("RGBA", (90, 0, 0, 0), (900, 900)), "PNG"), CONFIG))
    assert white.pixels.min() == 255
    assert black.pixels.max() == 0


def test_a_transparent_palette_entry_shows_the_background() -> None:
    palette = flat("P", 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    white, black = over_both(decode_image(encode(palette, "PNG", transparency=0), CONFIG))
    assert (white.pixels == 255).all()
    assert (black.pixels == 0).all()


def test_a_transparent_colour_of_an_rgb_png_shows_the_background() -> None:
    data = encode(flat("RGB", (9, 8, 7)), "PNG", transparency=(9, 8, 7))
    white, black = over_both(decode_image(data, CONFIG))
    assert (white.pixels == 255).all()
    assert (black.pixels == 0).all()


@pytest.mark.parametrize("alpha", [255, 251])
def test_an_alpha_channel_that_hides_nothing_leaves_one_frame(alpha: int) -> None:
    only_frame(decode_image(encode(flat("RGBA", (9, 90, 9, alpha)), "PNG"), CONFIG))


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("value", [0, 300, 32768, 65535])
def test_sixteen_bits_are_scaled_down_not_clipped(value: int, format_: str) -> None:
    data = encode(Image.fromarray(np.full((20, 20), value, np.uint16)), format_)
    assert (only_frame(decode_image(data, CONFIG)).pixels == value >> 8).all()


@pytest.mark.parametrize("top", [1.0, 255.0, 9000.0])
def test_floats_fill_the_range_that_their_maximum_says(top: float) -> None:
    ramp = np.linspace(0, top, 400, dtype=np.float32).reshape(20, 20)
    pixels = only_frame(decode_image(encode(Image.fromarray(ramp), "TIFF"), CONFIG)).pixels
    assert pixels.min() == 0
    assert pixels.max() == (255 if top != 9000.0 else 35)


@pytest.mark.parametrize("mode", ["CMYK", "L", "YCbCr"])
def test_other_colour_spaces_of_jpeg_come_out_as_rgb(mode: str) -> None:
    data = encode(flat("RGB", (200, 200, 200)).convert(mode), "JPEG")
    assert np.abs(only_frame(decode_image(data, CONFIG)).pixels.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_once(orientation: int, format_: str) -> None:
    upright = draw(160, 80)
    undo = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    media = decode_image(encode(stored, format_, exif=exif), CONFIG)
    followed_by_some = format_ in ("PNG", "WEBP") and orientation != 1
    assert [f.role for f in media.frames] == [Role.FRAME, *[Role.VARIANT] * followed_by_some]
    frame = media.frames[0]
    assert (frame.width, frame.height) == (160, 80)
    assert np.abs(frame.pixels.astype(int) - np.asarray(upright)).mean() < 12


def test_a_large_jpeg_is_scaled_to_the_canvas_and_keeps_its_size_on_record() -> None:
    frame = only_frame(decode_image(encode(draw(2000, 1500), "JPEG"), CONFIG))
    assert frame.pixels.shape == (448, 597, 3)
    assert (frame.width, frame.height) == (2000, 1500)


def test_a_small_picture_keeps_its_pixels() -> None:
    picture = draw(300, 200)
    assert np.array_equal(only_frame(decode_image(encode(picture, "PNG"), CONFIG)).pixels, np.asarray(picture))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((448, 448), (448, 448)),
        ((900, 600), (672, 448)),
        ((100, 50_000), (4, 1792)),
        ((300, 200), (300, 200)),
        ((600, 450), (600, 450)),
        ((600, 515), (600, 515)),
        ((600, 516), (521, 448)),
        ((5000, 450), (1792, 161)),
    ],
)
def test_the_canvas_bounds_both_sides(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert canvas_size(*size, 448) == expected


def test_pixels_are_counted_before_decoding_and_pillows_own_limit_is_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encode(flat("1", 0, (12_000, 12_000)), "PNG")
    with pytest.raises(ItemError) as caught:
        decode_image(data, CONFIG)
    assert caught.value.code is ErrorCode.TOO_MANY_PIXELS
    media = decode_image(data, CONFIG.model_copy(update={"max_pixels": 200_000_000}))
    assert (media.width, media.frames[0].pixels.shape) == (12_000, (448, 448, 3))
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_text_chunk_that_unpacks_to_megabytes_is_not_unpacked() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "x" * 50_000_000, zip=True)
    picture = draw()
    frame = only_frame(decode_image(encode(picture, "PNG", pnginfo=info), CONFIG))
    assert np.array_equal(frame.pixels, np.asarray(picture))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("size", [(320, 240), (2000, 1500)])
def test_a_jpeg_cut_anywhere_after_its_head_is_truncated(share: float, size: tuple[int, int]) -> None:
    data = encode(draw(*size), "JPEG")
    media = decode_image(data[: int(len(data) * share)], CONFIG)
    assert media.error is ErrorCode.TRUNCATED
    assert (media.width, media.height) == size
    assert len(media.frames) == 1


def test_heic_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # what a missing package looks like to `import`
    with pytest.raises(ItemError) as caught:
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), CONFIG)
    assert caught.value.code is ErrorCode.UNSUPPORTED_TYPE
    assert "pip install 'pillow-heif>=1.0'" in caught.value.detail


def test_heic_with_its_package_decodes_upright() -> None:
    heif = pytest.importorskip("pillow_heif")
    upright = draw(320, 160)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = heif.from_pillow(upright.transpose(Image.Transpose.ROTATE_90))

    buffer = io.BytesIO()
    stored.save(buffer, quality=90, exif=exif.tobytes())
    frame = only_frame(decode_image(buffer.getvalue(), CONFIG))
    assert (frame.width, frame.height) == (320, 160)
    assert np.abs(frame.pixels.astype(int) - np.asarray(upright)).mean() < 15


@pytest.mark.shared
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="../shared/data/images is not there")
def test_the_fast_jpeg_decoder_gives_pillows_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    if jpeg.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    encoded = [path.read_bytes() for path in sorted(PHOTOGRAPHS.iterdir())[::5]]
    fast = [decode_image(data, CONFIG) for data in encoded]
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for data, media in zip(encoded, fast, strict=True):
        assert np.array_equal(decode_image(data, CONFIG).frames[0].pixels, media.frames[0].pixels)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1000, 903), (1901, 1850), (3701, 3601)])  # scaled by 2, 4 and 8
def test_the_fast_jpeg_decoder_scales_as_pillow_does(
    size: tuple[int, int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if jpeg.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    data = encode(draw(*size).convert(mode), "JPEG", quality=85)
    called: list[bytes] = []
    decode_fast = jpeg._decode_fast

    def count(data: bytes, *given: Any) -> Any:
        called.append(data)
        return decode_fast(data, *given)

    monkeypatch.setattr(jpeg, "_decode_fast", count)
    fast = only_frame(decode_image(data, CONFIG))
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    plain = only_frame(decode_image(data, CONFIG))
    assert called == [data]
    assert np.array_equal(fast.pixels, plain.pixels)
    assert (fast.width, fast.height) == (plain.width, plain.height) == size


def test_a_large_jpeg_that_is_cut_off_keeps_its_head() -> None:
    data = encode(draw(1901, 1850), "JPEG", quality=85)
    media = decode_image(data[: len(data) * 2 // 3], CONFIG)
    assert media.error is ErrorCode.TRUNCATED
    assert len(media.frames) == 1


@pytest.mark.parametrize(("size", "block_bytes"), [((400, 400), 65536), ((2000, 1000), 8000), ((4000, 3000), 2048)])
def test_a_progressive_jpeg_is_read_in_blocks_by_its_pixels(size: tuple[int, int], block_bytes: int) -> None:
    """Each block may hold a scan of all pixels every 40 bytes; small pictures need no small blocks."""
    sink = io.BytesIO()
    Image.new("L", size).save(sink, "JPEG", progressive=True)
    opened = jpeg._open_jpeg(sink.getvalue(), MediaConfig(), start_deadline(60))
    assert opened.decodermaxblock == block_bytes
