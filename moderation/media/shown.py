"""A loaded Pillow image of any mode -> what a viewer shows: RGB over white, and over black where that differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from moderation.media.colour import Colours, read_colours, to_srgb
from moderation.media.samples import as_eight_bits, is_deep, read_layout
from moderation.types import U8

_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_PROFILED_MODES = frozenset({"RGB", "L", "CMYK", "LAB"})  # modes to which a colour profile applies
_NEARLY_OPAQUE = 250  # of 255: rounding of encoders lies above
# Mean transparency of 255: a thousandth of the picture. Less is a smoothed edge.
_MIN_TRANSPARENCY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPicture:
    """uint8 [H,W,3], RGB in sRGB. on_black: None where the picture is opaque. note: what was ignored, or ""."""

    pixels: U8
    on_black: U8 | None = None
    note: str = ""


def show(image: Image.Image, size: tuple[int, int]) -> ShownPicture:
    """What a viewer shows of an image, scaled to `size` (width, height)."""
    colours, layout = read_colours(image), read_layout(image)
    transparent = _is_transparent(image)
    if is_deep(image, layout):
        image = as_eight_bits(image, layout)
    if transparent:
        return _show_over_both(image, size, colours)
    if image.mode in _ALPHA_MODES:
        image = image.convert("RGB")
    if image.mode not in _PROFILED_MODES or (image.mode == "CMYK" and colours.plain):
        image = image.convert("RGB")
    image, note = to_srgb(_scaled(image, size), colours)
    return ShownPicture(pixels=np.array(image), note=note)


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in _ALPHA_MODES:
        # Some writers of 32-bit BMP leave the fourth byte at 0; viewers show those as opaque.
        return not (image.format == "BMP" and image.getextrema()[-1] == (0, 0))
    if "transparency" not in image.info:
        return False
    return image.mode == "P" or (image.format == "PNG" and image.mode in ("1", "L", "RGB"))


def _show_over_both(image: Image.Image, size: tuple[int, int], colours: Colours) -> ShownPicture:
    # Premultiplied, so that scaling does not mix in the colour of invisible pixels.
    image = _scaled((image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa"), size)
    premultiplied = np.array(image)
    alpha = premultiplied[..., 3:]
    note = ""
    on_black = np.ascontiguousarray(premultiplied[..., :3])
    if not colours.plain:
        rgb, note = to_srgb(image.convert("RGBA").convert("RGB"), colours)
        on_black = ((np.asarray(rgb).astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
    pixels = on_black + (255 - alpha)  # cannot overflow: a premultiplied colour is at most its alpha
    used = bool(alpha.min() < _NEARLY_OPAQUE) and 255 - float(alpha.mean()) >= _MIN_TRANSPARENCY
    return ShownPicture(pixels=pixels, on_black=on_black if used else None, note=note)


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
