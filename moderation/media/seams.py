"""Seams: is a picture a grid of several, and were several pictures cut from one? Pure arithmetic on pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.types import U8

F32 = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

# (rows, columns) of the grids looked for; grids of two are left out, because a horizon would look like one.
LAYOUTS = ((4, 4), (3, 4), (4, 3), (3, 3), (2, 4), (4, 2), (2, 3), (3, 2), (2, 2), (1, 4), (4, 1), (1, 3), (3, 1))
# Layouts of albums of so many pictures, row by row, as the apps that cut them show them.
ALBUM_LAYOUTS: Mapping[int, tuple[tuple[int, int], ...]] = {4: ((2, 2),), 6: ((2, 3), (3, 2)), 9: ((3, 3),)}

_MIN_SIDE_PX = 16  # of a tile; smaller ones are too small to judge
_MAX_OFFSET = 0.03  # how far a seam may lie from its regular place, as a share of the side
_MIN_JUMP = 12.0  # levels; a smaller difference is no edge
_MIN_JUMPING = 0.50  # share of the pixels that jump along a seam between two pictures
_MAX_JUMPING_BESIDE = 0.75  # share of jumping pixels beside a seam, relative to the share along it
_MAX_FLAT_DEVIATION = 5.0  # levels of standard deviation along a gutter
_LINE_SAMPLES = 128  # pixels sampled per line, at least
_MIN_JUMPING_AT_END = 0.3  # share of the pixels that jump where a gutter ends

_MIN_FITTING = 0.7  # share of the seams with detail that must fit in a cut picture
_EDGE_SAMPLES = 96  # samples along an edge
_MIN_EDGE_DETAIL = 6.0  # levels of mean deviation: a flatter edge fits anything and tells nothing
# Difference across a seam, relative to the deviation along it; 5% of 3,600 seams of unrelated pictures are under 1.21.
_MAX_FIT = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitch:
    """Pictures that were one. bound: for each, row by row, whether its own edges fit."""

    rows: int
    columns: int
    bound: tuple[bool, ...]


def find_grid(pixels: U8, max_tiles: int) -> tuple[Box, ...]:
    """The tiles of a picture that is a grid of pictures, row by row; empty where it is none.

    pixels: uint8 [H,W,3]. A grid has seams at regular places across its whole width and height: a gutter (lines of one
    colour), or an edge (most pixels jump at once, and those beside it do not). Of the fitting layouts with at most
    `max_tiles` tiles the one with the most tiles wins.
    """
    if min(pixels.shape[:2]) < 2 * _MIN_SIDE_PX:
        return ()
    down, across = _read_profile(pixels), _read_profile(pixels.transpose(1, 0, 2))
    for rows, columns in sorted(LAYOUTS, key=lambda layout: -layout[0] * layout[1]):
        if rows * columns > max_tiles or min(len(down.jump) // rows, len(across.jump) // columns) < _MIN_SIDE_PX:
            continue
        upper, left = _find_seams(down, rows), _find_seams(across, columns)
        if upper is not None and left is not None:
            return tuple(_boxes(upper, left, pixels.shape))
    return ()


def stitch_album(pictures: Sequence[U8]) -> Stitch | None:
    """The picture that an album's pictures were cut from, if they were, in reading order; None where not.

    pictures: uint8 [H,W,3], of similar proportions. Across a seam of a cut picture the pixels continue: they differ by
    a fraction of their variation along it. Edges without detail (sky, a white margin) fit anything and do not count;
    most edges with detail must fit, and a third of all edges must have detail. A picture is `bound` where at least half
    of its own detailed edges fit: one unrelated picture among eight that fit does not count as a piece.
    """
    for rows, columns in ALBUM_LAYOUTS.get(len(pictures), ()):
        seams = [(a, b, _fit(pictures[a], pictures[b], beside)) for a, b, beside in _neighbours(rows, columns)]
        telling = [(a, b, fit <= _MAX_FIT) for a, b, fit in seams if fit is not None]
        fitting = sum(fits for _, _, fits in telling)
        if len(telling) < max(2, len(seams) / 3) or fitting < _MIN_FITTING * len(telling):
            continue
        bound = tuple(_is_bound(place, telling) for place in range(len(pictures)))
        return Stitch(rows=rows, columns=columns, bound=bound)
    return None


def _is_bound(place: int, telling: Sequence[tuple[int, int, bool]]) -> bool:
    """Whether at least half of the detailed edges of one picture fit, and at least one."""
    own = [fits for a, b, fits in telling if place in (a, b)]
    return any(own) and 2 * sum(own) >= len(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    """Properties of every line of a picture, first to last; all [N].

    flat: whether it has one colour. jump: the share of its pixels that jump from two lines before it to the next one.
    """

    flat: npt.NDArray[np.bool_]
    jump: F32


def _read_profile(pixels: U8) -> _Profile:
    """The profile of the rows of uint8 [H,W,3]; only every n-th pixel of a row is read."""
    step = max(1, pixels.shape[1] // _LINE_SAMPLES)
    flat = np.ones(len(pixels), np.bool_)
    jumped: npt.NDArray[np.bool_] = np.zeros((len(pixels) - 3, len(range(0, pixels.shape[1], step))), np.bool_)
    for channel in range(3):  # separately: between two pictures of equal brightness only the colours jump
        levels = pixels[:, ::step, channel].astype(np.float32)
        flat &= levels.std(axis=1) < _MAX_FLAT_DEVIATION
        # Resampling smears an edge over two rows, so a jump is measured over three.
        jumped |= np.abs(levels[3:] - levels[:-3]) >= _MIN_JUMP
    jump = np.zeros(len(pixels), np.float32)
    jump[2:-1] = jumped.mean(axis=1)
    return _Profile(flat=flat, jump=jump)


def _find_seams(lines: _Profile, parts: int) -> list[tuple[int, int]] | None:
    """(end of the part before, start of the part after) at each place that cuts the lines into `parts`."""
    seams = []
    count = len(lines.jump)
    reach = max(3, round(_MAX_OFFSET * count))
    for k in range(1, parts):
        place = round(k * count / parts)
        seam = _find_seam(lines, max(6, place - reach), min(count - 7, place + reach))
        if seam is None:
            return None
        seams.append(seam)
    return seams


def _find_seam(lines: _Profile, low: int, high: int) -> tuple[int, int] | None:
    """Find a gutter or an edge between lines `low` and `high`."""
    return _find_gutter(lines, low, high) or _find_edge(lines, low, high)


def _find_gutter(lines: _Profile, low: int, high: int) -> tuple[int, int] | None:
    """The flat lines around the middle flat one: (the first, one past the last)."""
    flat = [y for y in range(low, high + 1) if lines.flat[y]]
    if not flat:
        return None
    first, last = _flat_stretch(lines, flat[len(flat) // 2], low, high)
    # Lines of one colour without an end are sky or a margin: a gutter ends within reach on both sides.
    if first <= low or last >= high:
        return None
    around = lines.jump[first - 4 : first + 1].max(), lines.jump[last + 1 : last + 6].max()
    return (first, last + 1) if min(around) >= _MIN_JUMPING_AT_END else None


def _flat_stretch(lines: _Profile, place: int, low: int, high: int) -> tuple[int, int]:
    """The first and last of the flat lines around one, within `low` to `high`."""
    first = last = place
    while lines.flat[first - 1] and first > low:
        first -= 1
    while lines.flat[last + 1] and last < high:
        last += 1
    return first, last


def _find_edge(lines: _Profile, low: int, high: int) -> tuple[int, int] | None:
    """The line at which most pixels jump while those beside it do not."""
    best = low + int(lines.jump[low : high + 1].argmax())
    beside = max(float(lines.jump[best - 5]), float(lines.jump[best + 5]))
    if lines.jump[best] < _MIN_JUMPING or beside > _MAX_JUMPING_BESIDE * lines.jump[best]:
        return None
    return best, best


def _boxes(upper: Sequence[tuple[int, int]], left: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Iterator[Box]:
    height, width = shape[:2]
    rows = list(zip([0, *(after for _, after in upper)], [*(before for before, _ in upper), height], strict=True))
    columns = list(zip([0, *(after for _, after in left)], [*(before for before, _ in left), width], strict=True))
    for top, bottom in rows:
        for start, end in columns:
            yield start / width, top / height, end / width, bottom / height


def _neighbours(rows: int, columns: int) -> Iterator[tuple[int, int, bool]]:
    """(a, b, whether b is right of a; else below it) of all pairs that share a seam."""
    for row in range(rows):
        for column in range(columns):
            place = row * columns + column
            if column + 1 < columns:
                yield place, place + 1, True
            if row + 1 < rows:
                yield place, place + columns, False


def _fit(a: U8, b: U8, beside: bool) -> float | None:
    """Mean difference across a seam, relative to the mean deviation along it; None where the edges lack detail."""
    edge_a, edge_b = (_edge(p, beside, last=last) for p, last in ((a, True), (b, False)))
    both = np.concatenate([edge_a, edge_b])
    spread = min(float(np.abs(e - e.mean(axis=0)).mean()) for e in (edge_a, edge_b))
    if spread < _MIN_EDGE_DETAIL:
        return None
    along = float(np.abs(both - both.mean(axis=0)).mean())
    return float(np.abs(edge_a - edge_b).mean()) / along


def _edge(picture: U8, beside: bool, *, last: bool) -> F32:
    """float32 [_EDGE_SAMPLES,3]: the outermost line of a picture, averaged along itself to a common length."""
    turned = picture if not beside else picture.transpose(1, 0, 2)
    line = (turned[-1] if last else turned[0]).astype(np.float32)
    marks = np.linspace(0, len(line), _EDGE_SAMPLES + 1)
    sums = np.concatenate([np.zeros((1, 3), np.float32), np.cumsum(line, axis=0, dtype=np.float32)])
    at = np.stack([np.interp(marks, np.arange(len(line) + 1), sums[:, c]) for c in range(3)], axis=1)
    edge: F32 = (np.diff(at, axis=0) * (_EDGE_SAMPLES / len(line))).astype(np.float32)
    return edge
