"""A loaded Pillow image of any mode -> what viewers show: over white, and where it differs over black or otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from moderation.media.colour import STORED_GREY, Colours, is_grey, read_colours, to_srgb
from moderation.media.likeness import shows_another
from moderation.media.samples import PREMULTIPLIED, as_eight_bits, as_unsigned, is_deep, read_layout
from moderation.types import U8

_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_PROFILED_MODES = frozenset({"RGB", "L", "CMYK", "LAB"})  # modes to which a colour profile applies
_NEARLY_OPAQUE = 250  # of 255: rounding of encoders lies above
# Mean transparency of 255: a thousandth of the picture. Less is a smoothed edge.
_MIN_TRANSPARENCY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPicture:
    """uint8 [H,W,3], RGB in sRGB. on_black: None where the picture is opaque. note: what was ignored, or "".

    others: as viewers show it that read its colours otherwise, or ignore its transparency; only what looks different.
    """

    pixels: U8
    on_black: U8 | None = None
    others: tuple[U8, ...] = ()
    note: str = ""


def show(image: Image.Image, size: tuple[int, int]) -> ShownPicture:
    """What viewers show of an image, scaled to `size` (width, height)."""
    readings, layout = read_colours(image), read_layout(image)
    transparent = _is_transparent(image)
    other = as_unsigned(image, layout)
    if is_deep(image, layout):
        image = _with_key(image, as_eight_bits(image, layout))
    if transparent:
        return _show_over_both(image, size, readings)
    if image.mode in _ALPHA_MODES:
        image = image.convert("RGB")
    if image.mode not in _PROFILED_MODES or (image.mode == "CMYK" and readings[0].plain):
        image = image.convert("RGB")
    shown = show_readings(_scaled(image, size), readings)
    if other is None:
        return shown
    others = list(shown.others)
    _add_if_new(others, np.array(_scaled(other, size).convert("RGB")), shown.pixels)
    return replace(shown, others=tuple(others))


def show_readings(image: Image.Image, readings: tuple[Colours, ...]) -> ShownPicture:
    """An opaque picture of mode L, RGB, CMYK or LAB by the first of these readings, and by others that differ."""
    first, note = to_srgb(image, readings[0])
    pixels = np.array(first)
    others: list[U8] = []
    for reading in readings[1:]:
        other, _ = to_srgb(image, reading)
        if other is not first:
            _add_if_new(others, np.array(other), pixels)
    return ShownPicture(pixels=pixels, others=tuple(others), note=note)


def as_layer(image: Image.Image) -> Image.Image:
    """A loaded picture as mode RGBA, to be laid over others. Its colours stay as they are stored."""
    layout = read_layout(image)
    if is_deep(image, layout):
        image = _with_key(image, as_eight_bits(image, layout))
    return image.convert("RGBA")


def as_in_file(canvas: Image.Image, file: Image.Image) -> Image.Image:
    """A composed picture (RGBA) with what its file states of colours and orientation; mode RGB where it is opaque."""
    shown = canvas.convert("RGB") if canvas.getextrema()[-1] == (255, 255) else canvas.copy()
    shown.info = {name: value for name, value in file.info.items() if name != "transparency"}
    shown.format = file.format
    if is_grey(file):
        shown.info[STORED_GREY] = True
    return shown


def _add_if_new(others: list[U8], pixels: U8, *known: U8) -> None:
    if all(shows_another(pixels, k) for k in (*known, *others)):
        others.append(pixels)


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in _ALPHA_MODES:
        # Some writers of 32-bit BMP leave the fourth byte at 0; viewers show those as opaque.
        return not (image.format == "BMP" and image.getextrema()[-1] == (0, 0))
    if "transparency" not in image.info:
        return False
    return image.mode == "P" or (image.format == "PNG" and image.mode in ("1", "L", "RGB", "I;16"))


def _with_key(deep: Image.Image, eight: Image.Image) -> Image.Image:
    """The picture in eight bits, with alpha where a PNG's 16-bit grey names a transparent value."""
    key = deep.info.get("transparency")
    if deep.format != "PNG" or not isinstance(key, int):
        return eight
    eight.putalpha(Image.fromarray(np.where(np.asarray(deep) == key, 0, 255).astype(np.uint8)))
    return eight


def _show_over_both(image: Image.Image, size: tuple[int, int], readings: tuple[Colours, ...]) -> ShownPicture:
    # Premultiplied, so that scaling does not mix in the colour of invisible pixels.
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    stored = PREMULTIPLIED in image.info
    layer = Image.frombytes("RGBa", rgba.size, rgba.tobytes()) if stored else rgba.convert("RGBa")
    layer = _scaled(layer, size)
    alpha = np.array(layer)[..., 3:]
    on_black, note = _over_black(layer, alpha, readings[0])
    # Cannot overflow, unless stored so: a premultiplied colour is at most its alpha.
    pixels = np.minimum(on_black, alpha) + (255 - alpha) if stored else on_black + (255 - alpha)
    used = bool(alpha.min() < _NEARLY_OPAQUE) and 255 - float(alpha.mean()) >= _MIN_TRANSPARENCY
    others: list[U8] = []
    if used:  # OpenCV and others drop the alpha channel, and show what it hides
        hidden, _ = to_srgb(_scaled(rgba.convert("RGB"), size), readings[0])
        _add_if_new(others, np.array(hidden), pixels, on_black)
    for reading in readings[1:]:
        black, _ = _over_black(layer, alpha, reading)
        _add_if_new(others, black + (255 - alpha), pixels)
        if used:
            _add_if_new(others, black, on_black)
    return ShownPicture(pixels=pixels, on_black=on_black if used else None, others=tuple(others), note=note)


def _over_black(layer: Image.Image, alpha: U8, reading: Colours) -> tuple[U8, str]:
    """A premultiplied picture over black, uint8 [H,W,3]; and why its profile was ignored, or ""."""
    if reading.plain:
        return np.ascontiguousarray(np.array(layer)[..., :3]), ""
    rgb, note = to_srgb(layer.convert("RGBA").convert("RGB"), reading)
    return ((np.asarray(rgb).astype(np.uint16) * alpha + 127) // 255).astype(np.uint8), note


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
