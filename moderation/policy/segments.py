"""Segments, where in a video a check finds something: consecutive frames over its threshold; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from moderation.policy.aggregate import is_null
from moderation.policy.scores import CheckScore
from moderation.policy.thresholds import as_float32
from moderation.types import ItemVotes, Segment

SEGMENT_ROUNDING = 1e-6  # more than rounding to float32 can add to a score
MAX_SEGMENTS = 20  # of an item; the highest are kept


def find_segments(scores: Iterable[CheckScore], votes: ItemVotes) -> tuple[Segment, ...]:
    """The segments of every negative check, in order of time, then by name; none where frames have no times.

    A frame counts from the check's `review` on (its `block` where it has none). Between two frames of a segment at most
    `gap` of the pool, by default one, may score less. Times are those of the frames: what lies between two frames was
    not looked at.
    """
    if all(time_s is None for time_s in votes.times_s):
        return ()
    found = [segment for score in scores if score.check.side == "negative" for segment in _of_check(score, votes)]
    kept = sorted(found, key=lambda s: (-s.score, s.start_s, s.check))[:MAX_SEGMENTS]
    return tuple(sorted(kept, key=lambda s: (s.start_s, s.check)))


def _of_check(score: CheckScore, votes: ItemVotes) -> Iterator[Segment]:
    threshold = score.check.block if score.check.review is None else score.check.review
    if threshold is None or not _is_near(score.frames, threshold):
        return
    moments = _by_time(score.frames, votes.times_s)
    hits = [at for at, (_, number) in enumerate(moments) if number is not None and number >= threshold]
    for run in _runs(hits, score.check.merges):
        highest = max(number for at in run if (number := moments[at][1]) is not None)
        yield Segment(start_s=moments[run[0]][0], end_s=moments[run[-1]][0], check=score.check.name, score=highest)


def _is_near(frames: Sequence[float], threshold: float) -> bool:
    # A quick look first: nearly always no frame is near it, and rounding 64 frames takes longer than all the rest.
    return any(number >= threshold - SEGMENT_ROUNDING for number in frames)


def _by_time(frames: Sequence[float], times_s: Sequence[float | None]) -> list[tuple[float, float | None]]:
    """(time, the highest score of the frames at that time), in order of time; None at a time without a score."""
    highest: dict[float, float | None] = {}
    for time_s, number in zip(times_s, frames, strict=True):
        if time_s is None:
            continue
        before = highest.setdefault(time_s, None)
        if not is_null(number):
            rounded = as_float32(number)
            highest[time_s] = rounded if before is None or rounded is None else max(before, rounded)
    return sorted(highest.items())


def _runs(hits: Sequence[int], gap: int) -> Iterator[list[int]]:
    run: list[int] = []
    for hit in hits:
        if run and hit - run[-1] > gap + 1:
            yield run
            run = []
        run.append(hit)
    if run:
        yield run
