"""An opened Pillow image -> the pixels of a frame: loaded as far as it decodes, as shown, scaled, upright."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.limits import canvas_size
from moderation.media.orientation import read_orientations
from moderation.media.samples import mend_tiff
from moderation.media.shown import ShownPicture, show
from moderation.types import U8, ErrorCode, Frame, Kind, Media, Role

# Errors of Pillow's parsers on malformed bytes; decode_item catches and names all others.
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
    """Decode; return what broke, or "". The rows before the break stay in the image, the rest is black.

    Pillow keeps them when it raises. Its switch LOAD_TRUNCATED_IMAGES is process-wide, so it is not used.
    Raises ItemError(CORRUPT) when there is not even an image buffer.
    """
    mend_tiff(image)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture as a frame; where transparent, also over black; as other viewers show it; what was ignored, or ""."""

    frame: Frame
    backdrop: Frame | None = None
    variants: tuple[Frame, ...] = ()
    note: str = ""


def to_picture(image: Image.Image, config: MediaConfig, *, index: int = 0, time_s: float | None = None) -> Picture:
    """A loaded Pillow image as a frame. Raises ItemError(CORRUPT) when its mode cannot be converted."""
    orientations = read_orientations(image, read_orientation(image))
    size = canvas_size(*image.size, config.canvas_px)
    try:
        shown = show(image, size)
    except DECODER_ERRORS as error:
        raise corrupt(image.format or "picture", error) from error
    return make_picture(shown, image.size, orientations, index=index, time_s=time_s)


def make_picture(
    shown: ShownPicture,
    stored: tuple[int, int],
    orientations: tuple[int, ...],
    *,
    index: int = 0,
    time_s: float | None = None,
) -> Picture:
    """A frame from stored pixels, turned by the first orientation; `stored` is (width, height) before scaling."""
    orientation = orientations[0]
    frame = _make_frame(shown.pixels, stored, orientation, index, time_s)
    others = [(pixels, orientation) for pixels in shown.others] + [(shown.pixels, o) for o in orientations[1:]]
    variants = (_make_frame(pixels, stored, o, index, time_s) for pixels, o in others)
    backdrop = None
    if shown.on_black is not None:
        over_black = _make_frame(shown.on_black, stored, orientation, index, time_s)
        backdrop = replace(over_black, role=Role.BACKDROP)
    return Picture(
        frame=frame,
        backdrop=backdrop,
        variants=tuple(replace(variant, role=Role.VARIANT) for variant in variants),
        note=shown.note,
    )


def _make_frame(pixels: U8, stored: tuple[int, int], orientation: int, index: int, time_s: float | None) -> Frame:
    width, height = stored if orientation < 5 else stored[::-1]
    return Frame(index=index, pixels=turn_upright(pixels, orientation), width=width, height=height, time_s=time_s)


def gather_frames(pictures: Sequence[Picture], total: int) -> tuple[Frame, ...]:
    """The pictures' frames, followed by their versions over black and their variants, numbered from `total` on."""
    extras = [p.backdrop for p in pictures if p.backdrop is not None]
    extras += [variant for p in pictures for variant in p.variants]
    frames = [p.frame for p in pictures]
    return (*frames, *(replace(extra, index=total + k) for k, extra in enumerate(extras)))


def scale_array(pixels: U8, size: tuple[int, int]) -> U8:
    """uint8 [H,W,3] scaled to (width, height) by Pillow's antialiased bilinear filter, where the size differs."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is missing or broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_upright(pixels: U8, orientation: int) -> U8:
    """uint8 [H,W,3] as stored -> upright (EXIF 2.32, tag 0x0112); contiguous and writable."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def describe(error: BaseException | str) -> str:
    """An error in one short line, for `error_detail`."""
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__


def corrupt(what: str, error: BaseException | str) -> ItemError:
    """ItemError(CORRUPT) with the format and the decoder's message."""
    return ItemError(ErrorCode.CORRUPT, f"{what}: {describe(error)}")


def still_media(picture: Picture, error: ErrorCode | None = None, detail: str = "") -> Media:
    """A picture as an item of one frame."""
    return Media(
        kind=Kind.IMAGE,
        frames=gather_frames([picture], 1),
        frames_total=1,
        width=picture.frame.width,
        height=picture.frame.height,
        error=error,
        error_detail="; ".join(filter(None, (detail, picture.note))),
    )


def drop_xmp(image: Image.Image) -> None:
    """Drop XMP from an opened image: Pillow would apply its orientation where EXIF has none, which no viewer does."""
    for name in ("xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        image.info.pop(name, None)
