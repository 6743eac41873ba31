"""Composites: a background, perhaps with a look-alike of a mark, perhaps with marks; then scaled and recompressed.

A composite follows from its seed alone. Boxes are x0, y0, x1, y1 in 0..1 of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.media.lettering import recompress
from moderation.media.pixels import scale_array
from moderation.training.watermark.confusing import add_confusing
from moderation.training.watermark.marks import Family, draw_mark, fit_mask, place_turned
from moderation.types import U8

_F = npt.NDArray[np.float32]
SIDE_PX: Final = 384  # of a background, before it is scaled
_MAX_TILES: Final = 60
_MIN_CONTRAST: Final = 60.0  # of 255, before blending, to the mean of the pixels under the mark
_MIN_VISIBLE: Final = 0.35  # share of a mark's ink within the picture; with less nobody could call it a mark
FAINT: Final = 1.0  # contrast under which a mark is hardly seen: the shipped network before found 2 of 11 such marks
_NOISE: Final = 6.0  # of 255: what JPEG and the eye take from a mark on an even ground
_STEP_PX: Final = 3  # texture is told by pixels this far apart, about a stroke of a small mark


_Mark = tuple[float, float, float, float, float]  # its box, and its contrast


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """pixels: uint8 [H,W,3]. boxes: float32 [n,4] of its marks, n = 0 in a clean picture. family: "" where clean.

    contrasts: float32 [n], how much each mark changes what is under it, over how much that differs within itself.
    """

    pixels: U8
    boxes: _F
    contrasts: _F
    family: str
    confusing: str  # the kind of look-alike; "" where none was added


def make_composite(
    background: U8, families: Sequence[Family], seed: Sequence[int], *, marked: bool, confusing: bool
) -> Composite:
    """One composite. families: one of them is drawn for its marks."""
    rng = np.random.default_rng(list(seed))
    pixels = _crop(background, rng).astype(np.float32)
    kind = ""
    if confusing:
        pixels, kind = add_confusing(pixels, rng)
    marks: list[_Mark] = []
    family = families[int(rng.integers(len(families)))]
    if marked:
        pixels, marks = _add_marks(pixels, family, rng)
    return _finish(_degrade(pixels.clip(0, 255).astype(np.uint8), rng), marks, family, kind)


def make_large_composite(
    background: U8, families: Sequence[Family], seed: Sequence[int], *, side_px: int, marked: bool
) -> Composite:
    """A picture whose short side is `side_px`, with one mark no larger than on one of `SIDE_PX`; then recompressed."""
    rng = np.random.default_rng(list(seed))
    scale = side_px / min(background.shape[:2])
    size = (round(background.shape[1] * scale), round(background.shape[0] * scale))
    pixels = scale_array(background, size).astype(np.float32)
    family = families[int(rng.integers(len(families)))]
    marks: list[_Mark] = []
    if marked:
        pixels, marks = _add_marks(pixels, family, rng, tiled=False)
    whole = recompress(pixels.clip(0, 255).astype(np.uint8), int(rng.integers(70, 96)), subsampled=True)
    return _finish(whole, marks, family, "")


def _finish(pixels: U8, marks: Sequence[_Mark], family: Family, confusing: str) -> Composite:
    rows = np.array(marks, dtype=np.float32).reshape(-1, 5)
    return Composite(
        pixels=pixels,
        boxes=rows[:, :4],
        contrasts=rows[:, 4],
        family=family.name if marks else "",
        confusing=confusing,
    )


def _crop(background: U8, rng: np.random.Generator) -> U8:
    """Most of a background, its short side scaled to `SIDE_PX`; perhaps mirrored."""
    height, width = background.shape[:2]
    h, w = (max(1, int(side * rng.uniform(0.7, 1))) for side in (height, width))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    part = background[top : top + h, left : left + w]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    scale = SIDE_PX / min(h, w)
    size = (min(2 * SIDE_PX, max(1, round(w * scale))), min(2 * SIDE_PX, max(1, round(h * scale))))
    return scale_array(np.ascontiguousarray(part), size)


def _add_marks(
    pixels: _F, family: Family, rng: np.random.Generator, *, tiled: bool | None = None
) -> tuple[_F, list[_Mark]]:
    height, width = pixels.shape[:2]
    style = str(rng.choice(["filled", "filled", "outline", "raised"]))
    if tiled is None:
        tiled = rng.random() < (0.6 if family.tiled else 0.12)
    letters = (
        int(rng.uniform(0.03, 0.07) * SIDE_PX) if tiled else int(np.exp(rng.uniform(*np.log((0.028, 0.16)))) * SIDE_PX)
    )
    mask = draw_mark(family, letters, rng, outline=style == "outline")
    mask = fit_mask(mask, (int(width * 0.95), int(height * 0.8)))
    mask = place_turned(mask, rng, steep=tiled or (letters > 0.09 * SIDE_PX and rng.random() < 0.5))
    opacity = float(rng.uniform(0.3, 0.7))
    places = _tile(mask, (width, height), rng) if tiled else _single(mask, (width, height), rng)
    colour = _colour(pixels, mask, places[len(places) // 2], rng)
    marks: list[_Mark] = []
    for left, top in places:
        pasted = _paste(pixels, mask, left, top, colour=colour, opacity=opacity, raised=style == "raised")
        if pasted is not None:
            (x0, y0, x1, y1), contrast = pasted
            marks.append((x0 / width, y0 / height, x1 / width, y1 / height, contrast))
    return pixels, marks


def _colour(pixels: _F, mask: U8, place: tuple[int, int], rng: np.random.Generator) -> _F:
    """The colour of a mark: mostly white; another where white would hardly show, as a person would choose."""
    left, top = max(0, place[0]), max(0, place[1])
    under = pixels[top : place[1] + mask.shape[0], left : place[0] + mask.shape[1]]
    behind = under.mean(axis=(0, 1)) if under.size else pixels.mean(axis=(0, 1))
    colour = np.full(3, 255, np.float32)
    for _ in range(20):
        kind = rng.random()
        if kind < 0.55:
            colour = np.full(3, 255, np.float32)
        elif kind < 0.75:
            colour = np.full(3, rng.uniform(0, 60), np.float32)
        else:
            colour = rng.uniform(0, 255, 3).astype(np.float32)
        if np.abs(colour - behind).mean() >= _MIN_CONTRAST:
            break
    return colour


def _single(mask: U8, size: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """The place of one mark: in a corner, along an edge, in the middle, anywhere, or cut off by an edge."""
    h, w = mask.shape
    free_x, free_y = max(1, size[0] - w), max(1, size[1] - h)
    margin = float(rng.uniform(0.01, 0.06))
    x, y = rng.uniform(0, 1, 2)
    kind = rng.random()
    if kind < 0.45:
        x, y = (margin if rng.random() < 0.35 else 1 - margin), (margin if rng.random() < 0.25 else 1 - margin)
    elif kind < 0.6:
        x, y = 0.5 + rng.uniform(-0.05, 0.05), float(rng.choice([margin, 0.5, 1 - margin]))
    left, top = int(x * free_x), int(y * free_y)
    if kind > 0.93:
        left += int(w * 0.4 * rng.choice([-1, 1]))
    return [(left, top)]


def _tile(mask: U8, size: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
    h, w = mask.shape
    gap_x, gap_y = (int(side * rng.uniform(0.15, 0.9)) + 6 for side in (w, h))
    shift = int(rng.integers(0, w + 1))
    offset = float(rng.choice([0, 0.5]))
    places = []
    for row, top in enumerate(range(-h // 2, size[1], h + gap_y)):
        begin = -shift - int(offset * (row % 2) * (w + gap_x))
        places += [(left, top) for left in range(begin, size[0], w + gap_x)]
    return places[:_MAX_TILES]


def _paste(
    pixels: _F, mask: U8, left: int, top: int, *, colour: _F, opacity: float, raised: bool
) -> tuple[tuple[int, int, int, int], float] | None:
    """Blend a mark into float32 [H,W,3] in place; returns its box and contrast.

    None where too little of it is in the picture.
    """
    height, width = pixels.shape[:2]
    h, w = mask.shape
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + w), min(height, top + h)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return None
    part = mask[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32) / np.float32(255)
    ink, before = part, _grey(pixels[y0:y1, x0:x1])
    if raised:
        # Light from above left, shade below right, and a little of the colour between.
        light = np.clip(part - np.roll(part, (1, 1), (0, 1)), 0, 1)
        shade = np.clip(part - np.roll(part, (-1, -1), (0, 1)), 0, 1)
        region = pixels[y0:y1, x0:x1]
        region += (light * opacity * 200)[..., None]
        region -= (shade * opacity * 200)[..., None]
        part = part * 0.35
    alpha = (part * opacity)[..., None]
    pixels[y0:y1, x0:x1] = pixels[y0:y1, x0:x1] * (1 - alpha) + colour * alpha
    visible = float(mask[y0 - top : y1 - top, x0 - left : x1 - left].sum(dtype=np.int64)) / max(
        1, int(mask.sum(dtype=np.int64))
    )
    if visible < _MIN_VISIBLE:
        return None
    return (x0, y0, x1, y1), _contrast(before, _grey(pixels[y0:y1, x0:x1]), ink)


def _grey(pixels: _F) -> _F:
    grey: _F = pixels.mean(axis=2, dtype=np.float32)
    return grey


def _contrast(before: _F, after: _F, ink: _F) -> float:
    """The change under the ink, over how much pixels near each other differ without it. Greys float32 [h,w]."""
    covered = float(ink.sum())
    if not covered:
        return 0.0
    change = float((np.abs(after - before) * ink).sum()) / covered
    down, across = before[_STEP_PX:] - before[:-_STEP_PX], before[:, _STEP_PX:] - before[:, :-_STEP_PX]
    steps = [float(np.abs(step).mean()) for step in (down, across) if step.size]
    return change / ((sum(steps) / len(steps) if steps else 0.0) + _NOISE)


def _degrade(pixels: U8, rng: np.random.Generator) -> U8:
    """Scale by 0.5 to 1 and recompress with quality 50 to 95, as if the picture had been saved and sent on."""
    scale = float(rng.uniform(0.5, 1))
    size = (max(32, round(pixels.shape[1] * scale)), max(32, round(pixels.shape[0] * scale)))
    return recompress(scale_array(pixels, size), int(rng.integers(50, 96)), subsampled=bool(rng.random() < 0.7))
