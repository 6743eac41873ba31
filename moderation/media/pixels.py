"""An opened Pillow image -> the pixels of a frame: loaded as far as it decodes, RGB over white, scaled, upright."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.limits import canvas_size
from moderation.types import U8, ErrorCode, Frame, Kind, Media

# What Pillow's parsers raise on bytes that lie; anything else is caught (and named) by decode_item.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


def load_partly(image: ImageFile) -> str:
    """Decode; what broke, or "". The rows before the break stay in the image, the rest is black.

    Pillow keeps them when it raises; its switch LOAD_TRUNCATED_IMAGES is of the whole process, so it is not used.
    Raises ItemError(CORRUPT) when there is not even an image buffer.
    """
    try:
        image.load()
    except DECODER_ERRORS as error:
        image.tile = []
        try:
            image.load()
        except DECODER_ERRORS:
            raise corrupt(image.format or "picture", error) from error
        return describe(error)
    return ""


def to_frame(image: Image.Image, config: MediaConfig, *, index: int = 0, time_s: float | None = None) -> Frame:
    """A loaded Pillow image as a frame. Raises ItemError(CORRUPT) when its mode cannot be converted."""
    orientation = read_orientation(image)
    size = canvas_size(*image.size, config.canvas_px)
    try:
        pixels = to_rgb(image, size)
    except DECODER_ERRORS as error:
        raise corrupt(image.format or "picture", error) from error
    return make_frame(pixels, image.size, orientation, index=index, time_s=time_s)


def make_frame(
    pixels: U8, stored: tuple[int, int], orientation: int, *, index: int = 0, time_s: float | None = None
) -> Frame:
    """A frame from pixels as stored, turned upright; `stored` is (width, height) before scaling."""
    width, height = stored if orientation < 5 else stored[::-1]
    return Frame(index=index, pixels=turn_upright(pixels, orientation), width=width, height=height, time_s=time_s)


def scale_array(pixels: U8, size: tuple[int, int]) -> U8:
    """uint8 [H,W,3] scaled to (width, height) by Pillow's antialiased bilinear filter, if it is not."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_upright(pixels: U8, orientation: int) -> U8:
    """uint8 [H,W,3] as stored -> as meant to be seen (EXIF 2.32, tag 0x0112); contiguous and writable."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def to_rgb(image: Image.Image, size: tuple[int, int]) -> U8:
    """uint8 [H,W,3] of any Pillow mode at `size` (width, height)."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_eight_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or _has_transparent_colour(image):
        return _over_white(image, size)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image)


def _over_white(image: Image.Image, size: tuple[int, int]) -> U8:
    # Premultiplied, so that the colour of invisible pixels does not bleed in when scaling.
    image = (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.array(image)
    pixels[..., :3] += 255 - pixels[..., 3:]  # cannot overflow: a premultiplied colour is at most its alpha
    return np.ascontiguousarray(pixels[..., :3])


def _has_transparent_colour(image: Image.Image) -> bool:
    if "transparency" not in image.info:
        return False
    return image.mode == "P" or (image.format == "PNG" and image.mode in ("1", "L", "RGB"))


def _to_eight_bits(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> U8:
    """[H,W] of 16 or 32 bit or float -> uint8: the high byte, as Pillow does for 16-bit colour; never clipped.

    32-bit and float files do not say their range; it is taken to be the smallest of 8, 16, 32 bits (0..1, 0..255 for
    floats) that holds the largest value.
    """
    if values.dtype.itemsize == 2:
        return (values.astype(np.uint16, copy=False) >> 8).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    top = float(finite.max(initial=0.0))
    ranges = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0, 2.0**32 - 1)
    full = next((r for r in ranges if top <= r), max(top, 1.0))
    return (finite * (255.0 / full)).astype(np.uint8)


def describe(error: BaseException | str) -> str:
    """One short line of an error, for `error_detail`."""
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__


def corrupt(what: str, error: BaseException | str) -> ItemError:
    """ItemError(CORRUPT) that names the format and what its decoder said."""
    return ItemError(ErrorCode.CORRUPT, f"{what}: {describe(error)}")


def still_media(frame: Frame, error: ErrorCode | None = None, detail: str = "") -> Media:
    return Media(
        kind=Kind.IMAGE,
        frames=(frame,),
        frames_total=1,
        width=frame.width,
        height=frame.height,
        error=error,
        error_detail=detail,
    )
