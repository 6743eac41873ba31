"""Where the picture lies within a frame: without the bars that players, editors and captions put around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from moderation.types import F32

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels

_TOLERANCE: Final = 8  # of 255: what encoding leaves of one colour
_STRICT: Final = 0.96  # share of a bar's line that has its colour;
_LOOSE: Final = 0.5  # of one with letters on it, between two others
_LEAST: Final = 0.02  # of the side: thinner bars move no hash
_MIN_SIDE: Final = 64  # PDQ shrinks to so many
_ROUNDS: Final = 2  # bars within bars
_LINES_AT_ONCE: Final = 32
_MARGIN: Final = 0.01  # of what many frames at once are tested for: rounding must not lose one
_LIKELY: Final = 0.75  # of the outermost samples, in a scaled frame,
_LIKELY_TOLERANCE: Final = 4  # within so much of their median: where each is the mean of many pixels
# Blurred bars: the first step between two columns that is so many times all outside of it, and so large of 255.
_STEP: Final = 5.0
_LEAST_STEP: Final = 6.0
_WIDEST: Final = 0.48  # of the side
_EQUAL: Final = 0.03  # of the side: both bars of a blurred pair are as wide
_WHOLE: Final = 0.65  # share of the other side along which there is such a step


def may_have_bars(small: torch.Tensor) -> torch.Tensor:
    """bool [B]: which of the scaled frames are worth a closer look. small: luma float32 [B,64,64], 0..255."""
    lines = torch.stack([small[:, 0], small[:, -1], small[:, :, 0], small[:, :, -1]], dim=1)
    middle = lines.median(dim=2, keepdim=True).values
    flat = ((lines - middle).abs() <= _LIKELY_TOLERANCE).float().mean(dim=2) >= _LIKELY
    across, down = (_soft_ends(small.diff(dim=dim).abs().mean(dim=dim)) for dim in (1, 2))
    return flat.any(dim=1) | across | down


def can_have_bars(luma: torch.Tensor, heights: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """bool [B]: whether `find_content` could find any; of the others it finds none. For many frames on a device.

    luma: float32 [B,H,W], 0..255; what lies below and to the right of a frame is any number. heights, widths: int64
    [B], of the frames.
    """
    found = torch.zeros(len(luma), dtype=torch.bool, device=luma.device)
    for lines, sides, others in ((luma, heights, widths), (luma.transpose(1, 2), widths, heights)):
        every = torch.arange(len(lines), device=lines.device)
        last = sides - 1
        for outer, inner in ((torch.zeros_like(last), last.clamp(max=1)), (last, (last - 1).clamp_min(0))):
            found |= _can_be_plain(lines[every, outer], lines[every, inner], others)
        found |= _can_be_blurred(lines, sides, others)
    return found


def _can_be_plain(outer: torch.Tensor, inner: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """As the first test of `_plain_lines`: bool [B]. outer, inner: the last two lines, [B,N], of these lengths."""
    within = torch.arange(outer.shape[1], device=outer.device)[None] < lengths[:, None]
    ordered = torch.where(within, outer, torch.inf).sort(dim=1).values
    middle = torch.stack([(lengths - 1) // 2, lengths // 2], dim=1)
    colour = ordered.gather(1, middle).mean(dim=1, keepdim=True)
    near = [(((line - colour).abs() <= _TOLERANCE + _MARGIN) & within).sum(dim=1) for line in (outer, inner)]
    return torch.maximum(*near) >= (_STRICT - _MARGIN) * lengths


def _can_be_blurred(lines: torch.Tensor, sides: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """As `_blurred_pair`: bool [B], whether both ends of the lines have a step such as there is behind a bar."""
    batch, high, wide = lines.shape
    if wide < _MIN_SIDE:
        return torch.zeros(batch, dtype=torch.bool, device=lines.device)
    inside = torch.arange(0, high, 2, device=lines.device)[None, :, None] < sides[:, None, None]
    steps = (lines[:, ::2].diff(dim=2).abs_() * inside).sum(dim=1) / ((sides + 1) // 2)[:, None]
    at = torch.arange(wide - 1, device=lines.device)[None]
    count = (lengths - 1)[:, None]
    back = steps.gather(1, (count - 1 - at).clamp_min(0))
    return _has_jump(steps, count) & _has_jump(back, count)


def _has_jump(steps: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """As `_blurred_lines`: bool [B]. steps: [B,N], of which `count` [B,1] are the frame's."""
    before, after = steps.cummax(dim=1).values[:, :-1], steps[:, 1:]
    at = torch.arange(1, steps.shape[1], device=steps.device)[None]
    high = (after >= _LEAST_STEP - _MARGIN) & (after >= _STEP * before - _MARGIN)
    return (high & (at < _WIDEST * count)).any(dim=1)


def _soft_ends(detail: torch.Tensor) -> torch.Tensor:
    """bool [B]: whether both ends have less detail than the rest. detail: float [B,64]."""
    low = 0.5 * detail.median(dim=1).values
    return (detail[:, :2].mean(dim=1) < low) & (detail[:, -2:].mean(dim=1) < low)


def find_content(luma: F32) -> Box | None:
    """The picture within bars of nearly one colour, or within a pair of blurred ones; None where there are none.

    luma: float32 [H,W], 0..255. A bar may have letters on it, if its first and last lines are plain.
    """
    height, width = luma.shape
    box = _without_blurred(luma)
    for _ in range(_ROUNDS):
        box = _without_plain(luma, box)
    x0, y0, x1, y1 = box
    if box == (0, 0, width, height) or min(x1 - x0, y1 - y0) < _MIN_SIDE:
        return None
    return box


def _without_plain(luma: F32, box: Box) -> Box:
    x0, y0, x1, y1 = box
    y0 += _plain_lines(luma[y0:y1, x0:x1])
    y1 -= _plain_lines(luma[y0:y1, x0:x1][::-1])
    x0 += _plain_lines(luma[y0:y1, x0:x1].T)
    x1 -= _plain_lines(luma[y0:y1, x0:x1].T[::-1])
    return x0, y0, x1, y1


def _plain_lines(lines: F32) -> int:
    """How many of the first lines are a bar. lines: float32 [N,M], from the edge inwards."""
    if min(lines.shape) <= _MIN_SIDE:
        return 0
    colour = np.median(lines[0])
    # The outermost line may be half a line of something else.
    if not (_share_of(lines[:2], colour) >= _STRICT).any():
        return 0
    count = 0
    # Some lines at a time: behind the bar nothing is looked at.
    for start in range(0, len(lines), _LINES_AT_ONCE):
        same = _share_of(lines[start : start + _LINES_AT_ONCE], colour)
        loose = same >= _LOOSE
        reach = len(same) if loose.all() else int(np.argmin(loose))
        strict = np.flatnonzero(same[:reach] >= _STRICT)
        count = start + int(strict[-1]) + 1 if len(strict) else count
        if reach < len(same):
            break
    return count if count >= _LEAST * len(lines) else 0


def _share_of(lines: F32, colour: float) -> F32:
    near = np.abs(np.ascontiguousarray(lines) - colour) <= _TOLERANCE
    shares: F32 = np.count_nonzero(near, axis=1).astype(np.float32) / np.float32(lines.shape[1])
    return shares


def _without_blurred(luma: F32) -> Box:
    """Without two bars, left and right or above and below, that are a blurred picture."""
    height, width = luma.shape
    # Every other line is enough for a mean.
    left, right = _blurred_pair(np.abs(np.diff(luma[::2], axis=1)))
    if left:
        return left, 0, width - right, height
    top, bottom = _blurred_pair(np.abs(np.diff(luma[:, ::2], axis=0)).T)
    return 0, top, width, height - bottom


def _blurred_pair(steps: F32) -> tuple[int, int]:
    """Widths of the two bars, 0 and 0 where there are none. steps: float32 [M,N-1], differences to the next line."""
    across = steps.mean(axis=0)
    first, last = _blurred_lines(across), _blurred_lines(across[::-1])
    if not first or not last or abs(first - last) > _EQUAL * len(across):
        return 0, 0
    is_pair = _goes_across(steps, first) and _goes_across(steps[:, ::-1], last)
    return (first, last) if is_pair else (0, 0)


def _goes_across(steps: F32, count: int) -> bool:
    """Whether the step after `count` lines is there from end to end; that to a logo in the middle is not."""
    step, outside = steps[:, count - 1], steps[:, max(0, count - 4) : count - 1].mean(axis=1)
    return bool(((step >= _LEAST_STEP / 2) & (step >= 2 * outside)).mean() >= _WHOLE)


def _blurred_lines(steps: F32) -> int:
    reach = int(_WIDEST * len(steps))
    before = np.maximum.accumulate(steps[:reach])
    jumps = np.flatnonzero((steps[1:reach] >= _LEAST_STEP) & (steps[1:reach] >= _STEP * before[:-1]))
    count = int(jumps[0]) + 2 if len(jumps) else 0
    return count if count >= _LEAST * len(steps) else 0
