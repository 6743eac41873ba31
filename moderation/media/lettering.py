"""Draws words and simple signs as masks, and recompresses pictures as JPEG: for pictures that training makes."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from moderation.types import U8

_MAX_SIDE: Final = 4096  # of a mask
SIGNS: Final = ("ring", "disc", "diamond", "shield", "star", "frame", "bars", "camera")


def draw_words(text: str, font: str, size_px: int, *, outline_px: int = 0) -> U8:
    """Words as a mask, uint8 [h,w], 255 where there is ink. Several lines by newlines.

    outline_px: width of the letters' edge, drawn alone; 0: filled. font: path of a TrueType or OpenType file; "" is
    Pillow's own.
    """
    drawn = _font(font, size_px)
    spacing = max(1, size_px // 4)
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    x0, y0, x1, y1 = probe.multiline_textbbox((0, 0), text, font=drawn, spacing=spacing, stroke_width=outline_px)
    width, height = (int(min(_MAX_SIDE, max(1, np.ceil(b - a) + 2))) for a, b in ((x0, x1), (y0, y1)))
    mask = Image.new("L", (width, height), 0)
    canvas = ImageDraw.Draw(mask)
    at = (1 - x0, 1 - y0)
    if outline_px:
        canvas.multiline_text(at, text, font=drawn, spacing=spacing, fill=255, stroke_width=outline_px, stroke_fill=255)
        canvas.multiline_text(at, text, font=drawn, spacing=spacing, fill=0)
    else:
        canvas.multiline_text(at, text, font=drawn, spacing=spacing, fill=255)
    return np.array(mask, dtype=np.uint8)


def draw_sign(sign: str, size_px: int) -> U8:
    """One of `SIGNS` as a mask, uint8 [size,size]. Raises KeyError for another."""
    scale = 4  # drawn larger, so that edges become smooth
    s = max(8, size_px) * scale
    image = Image.new("L", (s, s), 0)
    _PAINTERS[sign](ImageDraw.Draw(image), s)
    return np.array(image.resize((s // scale, s // scale), Image.Resampling.BOX), dtype=np.uint8)


def turn_mask(mask: U8, degrees: float) -> U8:
    """A mask turned counter-clockwise, enlarged to hold it whole."""
    if not degrees:
        return mask
    turned = Image.fromarray(mask).rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    return np.array(turned, dtype=np.uint8)


def scale_mask(mask: U8, size: tuple[int, int]) -> U8:
    """A mask scaled to (width, height)."""
    return np.array(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR), dtype=np.uint8)


def recompress(pixels: U8, quality: int, *, subsampled: bool = True) -> U8:
    """uint8 [H,W,3] RGB through JPEG of this quality and back; same shape."""
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
        buffer.seek(0)
        with Image.open(buffer) as image:
            return np.array(image, dtype=np.uint8)


@lru_cache(maxsize=256)
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    if path:
        return ImageFont.truetype(path, size_px)
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # always so when a size is given
    return font


def _ring(canvas: ImageDraw.ImageDraw, s: int) -> None:
    canvas.ellipse((s * 0.05, s * 0.05, s * 0.95, s * 0.95), outline=255, width=s // 10)
    canvas.ellipse((s * 0.3, s * 0.3, s * 0.7, s * 0.7), fill=255)


def _disc(canvas: ImageDraw.ImageDraw, s: int) -> None:
    canvas.ellipse((s * 0.05, s * 0.05, s * 0.95, s * 0.95), fill=255)
    canvas.polygon([(s * 0.4, s * 0.28), (s * 0.4, s * 0.72), (s * 0.74, s * 0.5)], fill=0)


def _diamond(canvas: ImageDraw.ImageDraw, s: int) -> None:
    canvas.polygon([(s / 2, 0), (s, s / 2), (s / 2, s), (0, s / 2)], fill=255)
    canvas.polygon([(s / 2, s * 0.3), (s * 0.7, s / 2), (s / 2, s * 0.7), (s * 0.3, s / 2)], fill=0)


def _shield(canvas: ImageDraw.ImageDraw, s: int) -> None:
    canvas.polygon(
        [(s * 0.1, s * 0.1), (s * 0.9, s * 0.1), (s * 0.85, s * 0.6), (s / 2, s), (s * 0.15, s * 0.6)], fill=255
    )
    canvas.line([(s * 0.3, s * 0.45), (s * 0.45, s * 0.62), (s * 0.72, s * 0.3)], fill=0, width=s // 10)


def _star(canvas: ImageDraw.ImageDraw, s: int) -> None:
    angles = np.linspace(-np.pi / 2, 1.5 * np.pi, 11)[:-1]
    radii = [s * 0.5, s * 0.2] * 5
    canvas.polygon(
        [(s / 2 + r * np.cos(a), s / 2 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)], fill=255
    )


def _frame(canvas: ImageDraw.ImageDraw, s: int) -> None:
    canvas.rounded_rectangle((s * 0.05, s * 0.05, s * 0.95, s * 0.95), radius=s // 6, outline=255, width=s // 9)
    canvas.ellipse((s * 0.32, s * 0.32, s * 0.68, s * 0.68), outline=255, width=s // 10)


def _bars(canvas: ImageDraw.ImageDraw, s: int) -> None:
    for i, top in enumerate((0.5, 0.15, 0.35, 0.05)):
        canvas.rectangle((s * (0.06 + 0.24 * i), s * top, s * (0.2 + 0.24 * i), s * 0.95), fill=255)


def _camera(canvas: ImageDraw.ImageDraw, s: int) -> None:
    canvas.rounded_rectangle((0, s * 0.25, s - 1, s * 0.9), radius=s // 10, fill=255)
    canvas.rectangle((s * 0.3, s * 0.12, s * 0.6, s * 0.3), fill=255)
    canvas.ellipse((s * 0.3, s * 0.36, s * 0.7, s * 0.76), fill=0)
    canvas.ellipse((s * 0.4, s * 0.46, s * 0.6, s * 0.66), fill=255)


_PAINTERS: Final = dict(zip(SIGNS, (_ring, _disc, _diamond, _shield, _star, _frame, _bars, _camera), strict=True))
