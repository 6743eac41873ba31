"""Samples that are not 8-bit unsigned -> eight bits as viewers show them: scaled, never clipped or inverted.

Works in strips: a float picture of 100 MP takes 400 MB, and a copy in another type would take as much again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from moderation.errors import ItemError
from moderation.types import ErrorCode

_STRIP_PIXELS = 1 << 20
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF 6.0
_PLANAR, _IN_PLANES = 284, 2
_WHITE_IS_ZERO = 0
_SIGNED = 2
# Pillow's raw modes of big-endian samples -> those of the machine's order.
_PREMULTIPLIED = "RGBa"
PREMULTIPLIED = "premultiplied"  # in `info`: the colours are stored times alpha
_MACHINE_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "I;32B": "I;32N", "F;32BF": "F;32NF", "F;64BF": "F;64NF"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLayout:
    """What the numbers of a grey picture mean. bits: per stored sample, 0 where the file does not state it."""

    bits: int = 0
    signed: bool = False
    white_is_zero: bool = False


def read_layout(image: Image.Image) -> SampleLayout:
    """The layout stated by a TIFF; for other formats their only deep layout: unsigned, black is zero."""
    if not isinstance(image, TiffImageFile):
        return SampleLayout()
    tags = image.tag_v2
    return SampleLayout(
        bits=_first(tags.get(_BITS_PER_SAMPLE), 1),
        signed=_first(tags.get(_SAMPLE_FORMAT), 1) == _SIGNED,
        white_is_zero=_first(tags.get(_PHOTOMETRIC), _WHITE_IS_ZERO) == _WHITE_IS_ZERO,
    )


def is_deep(image: Image.Image, layout: SampleLayout) -> bool:
    """Whether Pillow's own conversion to RGB would clip, wrap or invert it."""
    return image.mode.startswith("I") or image.mode == "F" or (image.mode == "L" and layout.signed)


def mend_tiff(image: Image.Image) -> None:
    """Call before loading: libtiff returns numbers in the machine's order, which Pillow (13.0) swaps once more.

    It does so with signed and float samples of compressed big-endian files, which came out as an even grey.
    Raises ItemError(UNSUPPORTED_TYPE) for planes of deep samples, which Pillow takes for planes of bytes.
    """
    if not isinstance(image, TiffImageFile):
        return
    if image.tag_v2.get(_PLANAR) == _IN_PLANES and len(image.getbands()) > 1 and read_layout(image).bits > 8:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, "tiff: planes of more than 8 bits per sample")
    if any(_raw_mode(tile.args) == _PREMULTIPLIED for tile in image.tile):
        # Pillow would divide, and lose the colours beneath alpha 0, which OpenCV and FFmpeg show.
        image.info[PREMULTIPLIED] = True
    image.tile = [tile._replace(args=_mend_args(tile.args, tile.codec_name)) for tile in image.tile]


def _mend_args(args: tuple[Any, ...] | str | None, codec: str) -> tuple[Any, ...] | str | None:
    if not isinstance(args, tuple) or not args:
        return args
    if args[0] == _PREMULTIPLIED:
        return ("RGBA", *args[1:])
    return (_in_machine_order(args[0]), *args[1:]) if codec == "libtiff" else args


def _raw_mode(args: object) -> object:
    return args[0] if isinstance(args, tuple) and args else None


def _in_machine_order(raw_mode: object) -> object:
    return _MACHINE_ORDER.get(raw_mode, raw_mode) if isinstance(raw_mode, str) else raw_mode


def as_eight_bits(image: Image.Image, layout: SampleLayout) -> Image.Image:
    """A grey picture with 8-bit signed, 12, 16 or 32-bit or float samples as mode L.

    16 bits keep the high byte, as Pillow does for 16-bit colour. 32-bit and float files do not state their range; it is
    the smallest of 8 and 16 bits (0..1, 0..255, 0..65535 for floats) that holds the largest value, else that value.
    """
    if image.mode.startswith("I;16"):
        shift = max(0, layout.bits - 8) if 8 < layout.bits <= 16 else 8
        strips = (np.minimum(s.astype(np.uint16, copy=False) >> shift, 255) for s in _strips(image, layout))
    else:
        low, high = _range_of(image, layout)
        strips = (_scale(s, low, high) for s in _strips(image, layout))
    grey = Image.new("L", image.size)
    top = 0
    for strip in strips:
        eight = strip.astype(np.uint8)
        if layout.white_is_zero and image.mode != "L":  # Pillow inverts samples of up to eight bits itself
            eight = 255 - eight
        grey.paste(Image.fromarray(eight), (0, top))
        top += eight.shape[0]
    return grey


def as_unsigned(image: Image.Image, layout: SampleLayout) -> Image.Image | None:
    """Signed samples as mode L by the many viewers that take them for unsigned ones; None: they are not signed."""
    if not layout.signed or layout.bits not in (8, 16, 32) or image.mode not in ("L", "I"):
        return None
    if image.mode == "L":
        return image
    high = layout.bits - 8
    grey = Image.new("L", image.size)
    top = 0
    for strip in _strips(image, layout):
        eight = (strip >> high & 255).astype(np.uint8)
        grey.paste(Image.fromarray(eight), (0, top))
        top += eight.shape[0]
    return grey


def _strips(image: Image.Image, layout: SampleLayout) -> Iterator[npt.NDArray[Any]]:
    """Strips of numbers, in the type of the file's samples."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        numbers = np.asarray(image.crop((0, top, width, min(height, top + rows))))
        if image.mode == "I" and layout.bits == 32 and not layout.signed:
            numbers = numbers.view(np.uint32)  # Pillow has no unsigned mode: the upper half is negative
        elif image.mode == "L":
            numbers = numbers.view(np.int8)
        yield numbers


def _range_of(image: Image.Image, layout: SampleLayout) -> tuple[float, float]:
    """The numbers that mean black and white."""
    low, high = np.inf, -np.inf
    for strip in _strips(image, layout):
        finite = strip[np.isfinite(strip)] if image.mode == "F" else strip
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return 0.0, 1.0  # the picture has no finite number
    if low < 0:
        return (low, high) if image.mode == "F" else _signed_range(low, high)
    return 0.0, _full_scale(high, image.mode, layout)


def _signed_range(low: float, high: float) -> tuple[float, float]:
    """The smallest signed type that holds both; its middle is grey."""
    bits = next(b for b in (8, 16, 32) if low >= -(2 ** (b - 1)) and high < 2 ** (b - 1))
    return float(-(2 ** (bits - 1))), float(2 ** (bits - 1) - 1)


def _full_scale(high: float, mode: str, layout: SampleLayout) -> float:
    if mode == "F":
        steps: tuple[float, ...] = (1.0, 255.0, 65535.0)
    elif layout.signed and layout.bits in (8, 16):
        steps = (127.0,) if layout.bits == 8 else (255.0, 32767.0)
    else:
        # The full 32-bit range only where something is visible with it.
        steps = (255.0, 65535.0) if high < 2**24 else (2.0**31 - 1 if layout.signed else 2.0**32 - 1,)
    return next((step for step in steps if high <= step), max(high, 1.0))


def _scale(numbers: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    # float32 holds 24 bits, and eight are needed.
    scaled = numbers.astype(np.float32)
    if low:
        scaled -= np.float32(low)
    scaled *= np.float32(255.0 / (high - low)) if high > low else np.float32(0.0)
    return np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0).clip(0.0, 255.0)


def _first(value: object, default: int) -> int:
    """The first number of a tag."""
    number = value[0] if isinstance(value, tuple) and value else value
    return number if isinstance(number, int) else default
