"""The figures of a run's page: checks, course, scores beside thresholds, steps. UsageError without matplotlib.

Colours never speak alone: every bar, band and line has its name beside it, and block is hatched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from moderation.pages.drawing import (
    ACCENT,
    BLOCK,
    CARD,
    ERROR,
    FILLS,
    INK,
    LINE,
    PASS,
    REVIEW,
    SOFT,
    TRACK,
    as_svg,
    drawing,
)
from moderation.pages.text import count, percent, span

F64 = npt.NDArray[np.float64]
_BINS: Final = 40
_HATCH: Final = "////"


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseBin:
    """A stretch of a run. end_s: of its clock. seconds: its length. counts: items by verdict and `error`."""

    end_s: float
    seconds: float
    items: int
    counts: Mapping[str, int]


def draw_checks(checks: Mapping[str, Mapping[str, int]], *, most: int = 12) -> Markup | None:
    """Items that each check decided, one bar per check and verdict, on a logarithmic axis; None without any."""
    bars = _bars_of(checks)[:most]
    if not bars:
        return None
    with drawing(4.6, 0.55 + 0.27 * len(bars)) as figure:
        axes = figure.add_subplot()
        for place, (_, verdict, n) in enumerate(bars):
            axes.barh(place, n, height=0.62, color=FILLS[verdict], hatch=_HATCH if verdict == "block" else None)
            axes.annotate(f"{count(n)} {verdict}", (n, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(bars)), [_short(name) for name, _, _ in bars])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        largest = max(n for _, _, n in bars)
        axes.set_xscale("log")
        # The left end is half an item, so that one item has a bar; the right end leaves room for its words.
        axes.set_xlim(0.5, largest * (2 * largest) ** 0.45)
        axes.xaxis.set_major_formatter(lambda value, _: count(value) if value >= 1 else "")
        axes.minorticks_off()
        axes.set_xlabel("items, logarithmic")
        alt = "Items by check: " + ", ".join(f"{name} {verdict} {count(n)}" for name, verdict, n in bars)
        return as_svg(figure, "checks", alt)


def _bars_of(checks: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """(check, verdict, items): block first, then the larger."""
    bars = [(name, verdict, n) for name, by in checks.items() for verdict, n in by.items() if n]
    return sorted(bars, key=lambda bar: (("block", "review", "pass").index(bar[1]), -bar[2], bar[0]))


_UNITS: Final = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def draw_course(bins: Sequence[CourseBin]) -> Markup | None:
    """Items a second over the time of judging, and below it the shares of block, review and errors."""
    if len(bins) < 3:
        return None
    ends = np.array([b.end_s for b in bins])
    starts = np.concatenate([[ends[0] - bins[0].seconds], ends[:-1]])
    edges = np.append(starts, ends[-1])
    unit, scale = next(entry for entry in _UNITS if ends[-1] >= 2 * entry[1] or entry[1] == 1.0)
    items = np.array([b.items for b in bins], np.float64)
    with drawing(4.6, 3.1) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        rates = items / np.maximum([b.seconds for b in bins], 1e-9)
        upper.stairs(rates, edges / scale, fill=True, color=ACCENT, alpha=0.35)
        upper.set_ylim(bottom=0)
        upper.set_ylabel("items/s")
        _draw_shares(lower, edges / scale, bins, items)
        lower.set_xlabel(f"{unit} of judging")
        lower.set_xlim(edges[0] / scale, edges[-1] / scale)
        alt = (
            f"Items a second, from {rates[0]:.3g} to {rates[-1]:.3g}, and shares of block, review and errors over time"
        )
        return as_svg(figure, "course", alt)


_STYLES: Final = {"review": "-", "block": "-", "error": (0, (3, 2))}


def _draw_shares(axes: Any, edges: F64, bins: Sequence[CourseBin], items: F64) -> None:  # noqa: ANN401 - matplotlib
    ends = []
    for name, style in _STYLES.items():
        shares = np.array([b.counts.get(name, 0) for b in bins]) / np.maximum(items, 1)
        if shares.any():
            axes.stairs(shares, edges, baseline=None, color=FILLS[name], linewidth=1.8, linestyle=style)
            ends.append((float(shares[-1]), name))
    axes.set_ylim(0, max(0.01, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.set_ylabel("share of items")
    label_ends(axes, float(edges[-1]), ends)


def label_ends(axes: Any, x: float, ends: Sequence[tuple[float, str]]) -> None:  # noqa: ANN401 - matplotlib
    """The name of each line beside its end; names of lines that end near one another stand one above the other."""
    places = _apart([share for share, _ in ends], axes.get_ylim()[1] * 0.13)
    for place, (_, name) in zip(places, ends, strict=True):
        axes.annotate(name, (x, place), (8, 0), textcoords="offset points", va="center", annotation_clip=False)


def _apart(places: Sequence[float], least: float) -> list[float]:
    """Places moved up so that any two are `least` apart, in the order in which they were given."""
    moved = [0.0] * len(places)
    last = -np.inf
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        last = moved[index] = max(places[index], last + least)
    return moved


def draw_scores(name: str, scores: F64, thresholds: Mapping[str, float], number: int) -> Markup | None:
    """The scores of a check, each bar in the colour of what the check does there. scores: float64 [N], NaN = null.

    thresholds: of `block`, `review` and `pass`, those that it has. number: of the figure in its page. None where no
    score is in 0..1.
    """
    inside = scores[(scores >= 0) & (scores <= 1)]
    if not len(inside):
        return None
    counts, edges = np.histogram(inside, bins=_BINS, range=(0, 1))
    with drawing(3.1, 1.9) as figure:
        axes = figure.add_subplot()
        zones = np.array([_zone(middle, thresholds) for middle in ((edges[:-1] + edges[1:]) / 2).tolist()])
        for zone in dict.fromkeys(zones.tolist()):
            own = np.where(zones == zone, counts, 0)
            hatch = _HATCH if zone == "block" else None
            axes.stairs(own, edges, fill=True, color=FILLS.get(zone, SOFT), hatch=hatch)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, max(10, int(counts.max()) * 6))
        axes.yaxis.set_major_formatter(lambda value, _: count(value))
        axes.minorticks_off()
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1"))
        axes.set_xlabel("score")
        axes.set_ylabel("items")
        label_thresholds(axes, thresholds, FILLS)
        over = {verdict: int((inside >= threshold).sum()) for verdict, threshold in thresholds.items()}
        alt = f"Scores of {name}: {count(len(inside))} items" + "".join(
            f", {count(over[verdict])} at or over {threshold:g} ({verdict})"
            for verdict, threshold in thresholds.items()
        )
        return as_svg(figure, f"score{number}", alt)


def _zone(score: float, thresholds: Mapping[str, float]) -> str:
    """What a check does at a score: the highest of its thresholds that the score reaches; empty for none."""
    reached = [(threshold, verdict) for verdict, threshold in thresholds.items() if score >= threshold]
    return max(reached)[1] if reached else ""


def label_thresholds(
    axes: Any,  # noqa: ANN401 - matplotlib
    thresholds: Mapping[str, float],
    colours: Mapping[str, str],
    words: Mapping[str, str] | None = None,
) -> None:
    """A dashed line at each threshold, its name beside it and inside of the figure, whatever side it is near.

    Labels stand below one another. words: what else a label says, by verdict.
    """
    for row, (verdict, threshold) in enumerate(sorted(thresholds.items(), key=lambda pair: -pair[1])):
        axes.axvline(threshold, color=colours[verdict], linestyle=(0, (4, 2)), linewidth=1.4)
        right = threshold <= 0.6
        axes.annotate(
            f"{verdict} ≥ {threshold:g}{(words or {}).get(verdict, '')}",
            (threshold, 0.97 - 0.13 * row),
            (4 if right else -4, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            fontsize=8.5,
        )


_WAITERS: Final = {"fetch": "fetch", "decode": "decode", "device": "score"}


def draw_steps(seconds: Mapping[str, float], waits: Mapping[str, Mapping[str, float]]) -> Markup | None:
    """Busy seconds of each step, and beside them (hatched) those in which it waited; None without any."""
    steps = [step for step in seconds if seconds[step] or step in _WAITERS.values()]
    idle = {_WAITERS.get(who, who): sum(kinds.values()) for who, kinds in waits.items()}
    if not any(seconds.values()):
        return None
    with drawing(4.6, 0.5 + 0.36 * len(steps)) as figure:
        axes = figure.add_subplot()
        longest = max(seconds[step] + idle.get(step, 0.0) for step in steps)
        for place, step in enumerate(steps):
            busy, waited = seconds[step], idle.get(step, 0.0)
            axes.barh(place, busy, height=0.6, color=ACCENT)
            axes.barh(place, waited, left=busy, height=0.6, color=TRACK, edgecolor=SOFT, hatch="....", linewidth=0.8)
            words = span(busy) + (f", waited {span(waited)}" if waited >= 0.01 * longest else "")
            axes.annotate(words, (busy + waited, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(steps)), steps)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, longest * 1.75)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        alt = "Busy time by step: " + ", ".join(f"{step} {span(seconds[step])}" for step in steps)
        return as_svg(figure, "steps", alt)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:16]}…{name[-11:]}"


__all__ = [
    "BLOCK", "CARD", "ERROR", "LINE", "PASS", "REVIEW", "CourseBin", "draw_checks", "draw_course", "draw_scores",
    "draw_steps", "label_ends", "label_thresholds", "percent",
]  # fmt: skip
