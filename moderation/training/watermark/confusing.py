"""Look-alikes of marks: signs, shop names, subtitles, print on clothes, screens, drawn words.

A look-alike belongs to what the picture shows, or is opaque and easy to read; a mark is translucent and lies over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.media.lettering import draw_words, turn_mask
from moderation.training.watermark.fonts import chinese_fonts, latin_fonts
from moderation.training.watermark.marks import fit_mask
from moderation.types import U8

_F = npt.NDArray[np.float32]
_SIGNS: Final = ("EXIT", "STOP", "OPEN", "Platform 4", "Bus 17", "Caution", "Rue de la Paix", "出口", "小心地滑")
_SHOPS: Final = ("BAKERY", "Café Luna", "Flowers", "BOOKS & TEA", "Noodle House", "Optik Meyer", "面馆", "便利店")
_LINES: Final = (
    "I never said that.",
    "Where are we going?",
    "Wait for me outside,\nit won't take long.",
    "- No.\n- Then why ask?",
    "明天再说吧",
    "The train leaves at nine.",
)
_PRINTS: Final = ("LOVE", "NYC 1987", "Athletics", "be kind", "SURF CLUB", "23", "TOKYO", "Dream big")
_SCREEN: Final = (
    "Settings",
    "Inbox (3)",
    "Downloads",
    "File  Edit  View",
    "Search",
    "Today 14:02",
    "Share",
    "Reply",
    "Notifications",
    "确定",
)
_DRAWN: Final = ("Hello", "Sale -20%", "Happy Birthday!", "Menu", "Lesson 4", "12.50", "Chapter One", "生日快乐")


def add_confusing(pixels: _F, rng: np.random.Generator) -> tuple[_F, str]:
    """(copy of float32 [H,W,3] with a look-alike drawn into it, its kind)."""
    kind = str(rng.choice(list(_KINDS)))
    return _KINDS[kind](pixels.copy(), rng), kind


def _plate(pixels: _F, words: tuple[str, ...], rng: np.random.Generator, *, wide: bool) -> _F:
    """Words on a plate of one colour in the picture."""
    height, width = pixels.shape[:2]
    mask = _words(words, int(rng.uniform(0.05, 0.14) * height), rng)
    pad = max(3, mask.shape[0] // 3)
    plate = np.zeros((mask.shape[0] + 2 * pad, mask.shape[1] + 2 * pad), np.uint8)
    plate[pad:-pad, pad:-pad] = mask
    solid = np.full_like(plate, 255)
    if not wide:
        angle = float(rng.uniform(-12, 12))
        plate, solid = turn_mask(plate, angle), turn_mask(solid, angle)
    plate = fit_mask(plate, (int(width * 0.9), int(height * 0.6)))
    solid = fit_mask(solid, (int(width * 0.9), int(height * 0.6)))
    left, top = _anywhere(plate, pixels, rng)
    ground, ink = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    if np.abs(ground - ink).mean() < 90:
        ink = np.where(ground > 127, 0, 255).astype(np.float32)
    _blend(pixels, solid, left, top, ground, 1.0)
    _blend(pixels, plate, left, top, ink, 1.0)
    return pixels


def _sign(pixels: _F, rng: np.random.Generator) -> _F:
    return _plate(pixels, _SIGNS, rng, wide=False)


def _shop(pixels: _F, rng: np.random.Generator) -> _F:
    return _plate(pixels, _SHOPS, rng, wide=True)


def _subtitle(pixels: _F, rng: np.random.Generator) -> _F:
    """White or yellow words, opaque, edged with black, at the foot."""
    height, width = pixels.shape[:2]
    size = max(9, int(rng.uniform(0.04, 0.075) * height))
    words, font = _choose(_LINES, rng)
    inner = draw_words(words, font, size)
    edge = draw_words(words, font, size, outline_px=max(1, size // 12))
    most = (int(width * 0.95), int(height * 0.3))
    inner, edge = fit_mask(inner, most), fit_mask(edge, most)
    left = max(0, (width - edge.shape[1]) // 2)
    top = max(0, int(height * rng.uniform(0.9, 0.97)) - edge.shape[0])
    colour = np.array([255, 255, 255 if rng.random() < 0.7 else 60], np.float32)
    _blend(pixels, edge, left, top, np.zeros(3, np.float32), 1.0)
    grow = (edge.shape[1] - inner.shape[1]) // 2, (edge.shape[0] - inner.shape[0]) // 2
    _blend(pixels, inner, left + max(0, grow[0]), top + max(0, grow[1]), colour, 1.0)
    return pixels


def _print(pixels: _F, rng: np.random.Generator) -> _F:
    """Ink on cloth: opaque, but shaded by the folds of the cloth."""
    height, width = pixels.shape[:2]
    mask = fit_mask(_words(_PRINTS, int(rng.uniform(0.08, 0.2) * height), rng), (int(width * 0.6), int(height * 0.4)))
    mask = turn_mask(mask, float(rng.uniform(-10, 10)))
    left, top = _anywhere(mask, pixels, rng, middle=True)
    h, w = mask.shape
    region = pixels[top : top + h, left : left + w]
    part = mask[: region.shape[0], : region.shape[1], None].astype(np.float32) / 255
    light = region.mean(axis=2, keepdims=True)
    shade = light / max(30.0, float(light.mean())) if light.size else light
    ink = rng.uniform(0, 255, 3).astype(np.float32)
    region[:] = region * (1 - part) + (ink * np.clip(shade, 0.4, 1.6)) * part
    return pixels


def _screen(pixels: _F, rng: np.random.Generator) -> _F:
    """Bars and panels with small words, as a program shows them around a picture."""
    height, width = pixels.shape[:2]
    dark = rng.random() < 0.5
    ground = np.full(3, rng.uniform(20, 60) if dark else rng.uniform(225, 255), np.float32)
    ink = np.full(3, 235 if dark else 30, np.float32)
    size = max(9, int(0.035 * height))
    bar = int(size * rng.uniform(1.6, 3))
    places = [(0, 0, width, bar)]
    if rng.random() < 0.6:
        places.append((0, height - bar, width, height))
    if rng.random() < 0.4:
        places.append((0, bar, int(width * rng.uniform(0.15, 0.3)), height))
    for x0, y0, x1, y1 in places:
        pixels[y0:y1, x0:x1] = ground
        x, y = x0 + size // 2, y0 + max(2, (min(bar, y1 - y0) - size) // 2)
        while x < x1 - size * 3 and y < y1 - size:
            mask = _words(_SCREEN, size, rng)
            _blend(pixels, mask[:, : max(1, x1 - x)], x, y, ink, 1.0)
            x, y = (x + mask.shape[1] + size, y) if x1 - x0 == width else (x, y + int(size * 1.7))
    return pixels


def _drawn(pixels: _F, rng: np.random.Generator) -> _F:
    """Opaque words of one colour straight on the picture: a card, a meme, a lesson."""
    height, width = pixels.shape[:2]
    mask = fit_mask(_words(_DRAWN, int(rng.uniform(0.07, 0.2) * height), rng), (int(width * 0.95), int(height * 0.5)))
    left, top = _anywhere(mask, pixels, rng)
    _blend(pixels, mask, left, top, rng.choice([0, 255], 3).astype(np.float32), float(rng.uniform(0.93, 1)))
    return pixels


_KINDS: Final[dict[str, Callable[[_F, np.random.Generator], _F]]] = {
    "sign": _sign,
    "shop": _shop,
    "subtitle": _subtitle,
    "print": _print,
    "screen": _screen,
    "drawn": _drawn,
}
KINDS: Final = tuple(_KINDS)


def _choose(words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, str]:
    text = str(rng.choice(words))
    fonts = latin_fonts() if text.isascii() or "é" in text else chinese_fonts()
    return text, fonts[int(rng.integers(len(fonts)))]


def _words(words: tuple[str, ...], size: int, rng: np.random.Generator) -> U8:
    text, font = _choose(words, rng)
    return draw_words(text, font, max(8, size))


def _anywhere(mask: U8, pixels: _F, rng: np.random.Generator, *, middle: bool = False) -> tuple[int, int]:
    free_y, free_x = (max(1, side - own) for side, own in zip(pixels.shape[:2], mask.shape, strict=True))
    x, y = rng.uniform(0.25, 0.75, 2) if middle else rng.uniform(0, 1, 2)
    return int(x * free_x), int(y * free_y)


def _blend(pixels: _F, mask: U8, left: int, top: int, colour: _F, opacity: float) -> None:
    h, w = mask.shape
    region = pixels[top : top + h, left : left + w]
    alpha = mask[: region.shape[0], : region.shape[1], None].astype(np.float32) / 255 * opacity
    region[:] = region * (1 - alpha) + colour * alpha
