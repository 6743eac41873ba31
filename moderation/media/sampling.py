"""Which frames of a video to score, from their times alone. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from moderation.config.model import MediaConfig

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def choose_frames(
    times_s: F64,
    duration_s: float,
    keys: I64,
    config: MediaConfig,
    shots: Sequence[int] = (),
    limit: int | None = None,
) -> list[int]:
    """Indices of the frames to score, ascending, at most `limit` (None: `config.max_frames`).

    times_s: float64 [N], when each frame is shown, ascending from 0. keys: indices of the keyframes.
    `config.sampling`: keyframes: these, and evenly placed ones where two (or an end) are more than max_gap_s apart;
    uniform: one every 1/fps seconds; hybrid: both, and the gaps; shots: the frames in `shots`, and the gaps.
    """
    total = len(times_s)
    limit = limit or config.max_frames
    chosen: set[int] = set()
    if config.sampling in ("uniform", "hybrid"):
        count = max(1, math.ceil(duration_s * config.fps))
        # A video with fewer frames is taken whole; the first of these marks would cover its beginning alone.
        chosen.update(range(total) if count >= total else _nearest(times_s, np.arange(count) / config.fps))
    if config.sampling in ("keyframes", "hybrid"):
        chosen.update(int(k) for k in keys if 0 <= k < total)
        chosen.add(0)  # the first frame, even where the index of keyframes is empty or begins late
        chosen.update(_fill_gaps(times_s, duration_s, sorted(chosen), config.max_gap_s))
    if config.sampling == "shots":
        chosen.update({0, *shots})
        chosen.update(_fill_gaps(times_s, duration_s, sorted(chosen), config.max_gap_s))
    return thin_out(times_s, _keyframes_first(times_s, duration_s, keys, sorted(chosen), limit), limit)


def frame_limit(duration_s: float, config: MediaConfig) -> int:
    """The number of frames of such a video to score at most: max_frames, or more for max_gap_s, up to frame_budget."""
    enough = math.ceil(min(duration_s, config.max_seconds) / config.max_gap_s) + 1
    return max(config.max_frames, min(enough, config.frame_budget))


def widest_stretch(times_s: F64, chosen: Sequence[int], duration_s: float, max_gap_s: float) -> float:
    """The largest distance in seconds between two neighbours among `chosen` and the video's ends.

    Nothing goes unseen between consecutive frames, however long the first one is shown: such a distance counts as
    max_gap_s at most. times_s: float64 [N], of all frames, ascending from 0. chosen: ascending indices.
    """
    if not chosen:
        return duration_s
    begins = np.array([0, *chosen])
    ends = np.array([*chosen, len(times_s)])
    at_s = np.append(times_s, max(duration_s, float(times_s[-1])))
    gaps = at_s[ends] - at_s[begins]
    gaps[ends - begins <= 1] = gaps[ends - begins <= 1].clip(max=max_gap_s)
    return float(gaps.max())


def _keyframes_first(times_s: F64, duration_s: float, keys: I64, chosen: list[int], limit: int) -> list[int]:
    """Keep only the keyframes of `chosen` where there are too many, if no gap then exceeds twice the even spacing.

    A keyframe costs one frame to decode; a frame between two costs all frames since the last keyframe.
    """
    keyframes = set(keys.tolist())
    alone = [k for k in chosen if k in keyframes or k == 0]
    if len(chosen) <= limit or len(alone) < limit:
        return chosen
    widest_s = widest_gap(times_s[alone].tolist(), duration_s)
    return alone if widest_s <= 2 * duration_s / limit else chosen


def widest_gap(times_s: list[float], duration_s: float) -> float:
    """The largest distance in seconds between neighbours among these times and the ends."""
    marks = np.sort(np.array([0.0, *times_s, max([duration_s, *times_s])]))
    return float(np.diff(marks).max())


def _fill_gaps(times_s: F64, duration_s: float, chosen: list[int], max_gap_s: float) -> list[int]:
    marks = [*(float(times_s[i]) for i in chosen), duration_s]
    wanted: list[float] = []
    for start, end in pairwise(marks):
        # 2 % of tolerance: a gap of 5.005 s counts as 5 s.
        parts = math.ceil((end - start) / max_gap_s - 0.02)
        parts = min(parts, len(times_s))
        wanted.extend(start + (end - start) * k / parts for k in range(1, parts))
    return _nearest(times_s, np.array(wanted))


def thin_out(times_s: F64, chosen: list[int], limit: int) -> list[int]:
    """At most `limit` of `chosen`, evenly over time: nearest to even marks first, then into the widest gaps."""
    if len(chosen) <= limit:
        return chosen
    candidates = np.array(chosen)
    at = times_s[candidates]
    marks = np.linspace(at[0], at[-1], limit) if limit > 1 else np.array([(at[0] + at[-1]) / 2])
    kept = set(_nearest(at, marks))
    distance = _to_nearest(at, at[sorted(kept)])
    while len(kept) < limit:
        furthest = int(distance.argmax())
        kept.add(furthest)
        distance = np.minimum(distance, np.abs(at - at[furthest]))
        distance[sorted(kept)] = -1.0
    return [int(i) for i in candidates[sorted(kept)]]


def _to_nearest(at: F64, kept: F64) -> F64:
    """float64 [N]: how far each time is from the nearest of `kept`; both ascending. No matrix: hours have 100,000."""
    right = np.searchsorted(kept, at).clip(0, len(kept) - 1)
    left = (right - 1).clip(0)
    nearest: F64 = np.minimum(np.abs(at - kept[left]), np.abs(at - kept[right]))
    return nearest


def _nearest(times_s: F64, wanted_s: F64) -> list[int]:
    """The index of the time nearest to each wanted time."""
    right = np.searchsorted(times_s, wanted_s).clip(0, len(times_s) - 1)
    left = (right - 1).clip(0)
    closer_left = np.abs(times_s[left] - wanted_s) <= np.abs(times_s[right] - wanted_s)
    return [int(i) for i in np.where(closer_left, left, right)]
