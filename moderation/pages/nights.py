"""The page of a nightly job: the trend of its last nights, and a line for each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from moderation.pages.drawing import ACCENT, FILLS, INK, as_svg, drawing
from moderation.pages.figures import label_ends
from moderation.pages.render import render
from moderation.pages.text import percent
from moderation.types import Verdict

MAX_NIGHTS: Final = 30
_LEAST_NIGHTS: Final = 3  # for a trend, and for a median
_MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_STYLES: Final = {"review": ("o", "-"), "block": ("s", "-"), "error": ("x", "--")}
# A night is told to be out of the ordinary where a share is twice the median, and this much more.
_LEAST_CHANGE: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class NightLine:
    """One night. link: of its report, relative to the page. counts: of the listing, `new`, `changed`, ...

    items: that were judged. cost: for a million items, where a price is known.
    """

    night: str
    state: str
    link: str | None
    items: int
    verdicts: Mapping[str, int]
    error_rate: float | None
    counts: Mapping[str, int]
    items_per_s: float | None = None
    cost: float | None = None

    @property
    def day(self) -> str:
        """`22 Nov`, by the night's id."""
        return f"{int(self.night[6:8])} {_MONTHS[int(self.night[4:6]) % 13 - 1]}"

    @property
    def time(self) -> str:
        """`02:15` UTC, by the night's id."""
        return f"{self.night[9:11]}:{self.night[11:13]}"

    def share(self, verdict: str) -> float | None:
        """Of the items with a verdict; None without any."""
        total = sum(self.verdicts.values())
        return self.verdicts.get(verdict, 0) / total if total else None


def render_nights(root: str, nights: Sequence[NightLine], total: int, advice: str, note: str | None = None) -> str:
    """The page. nights: the newest last. total: with those that are not shown. note: why there is no figure.

    Raises UsageError without matplotlib, unless `note` is given.
    """
    figure = None if note is not None else draw_nights(nights)
    return render(
        "nights.html",
        root=root,
        nights=list(reversed(nights)),
        total=total,
        advice=advice[:1].upper() + advice[1:],
        figure=figure,
        note=note,
        unusual=tell_unusual(nights),
        verdicts=[str(verdict) for verdict in Verdict],
    )


def tell_unusual(nights: Sequence[NightLine]) -> list[str]:
    """In what the newest night that judged something is not as the others, in sentences."""
    judged = [night for night in nights if night.items and night.state == "done"]
    if len(judged) <= _LEAST_NIGHTS:
        return []
    *earlier, last = judged
    told = (_tell_unusual(name, earlier, last) for name in _STYLES)
    return [sentence for sentence in told if sentence is not None]


def _tell_unusual(name: str, earlier: Sequence[NightLine], last: NightLine) -> str | None:
    now = _share_of(last, name)
    shares = [share for night in earlier if (share := _share_of(night, name)) is not None]
    if now is None or not shares:
        return None
    usual = statistics.median(shares)
    if now - usual <= _LEAST_CHANGE or now <= 2 * usual:
        return None
    nights = f"the median of {len(shares)} nights before is {percent(usual)}"
    return f"{name}: {percent(now)} in the night of {last.day}; {nights}."


def _share_of(night: NightLine, name: str) -> float | None:
    return night.error_rate if name == "error" else night.share(name)


def draw_nights(nights: Sequence[NightLine]) -> Markup | None:
    """Items judged in each night, and below the shares of review, block and errors; None for a few nights."""
    if sum(1 for night in nights if night.items) < _LEAST_NIGHTS:
        return None
    places = np.arange(len(nights))
    with drawing(4.9, 3.4) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        upper.bar(places, [night.items for night in nights], width=0.7, color=ACCENT)
        upper.set_ylabel("items judged")
        upper.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ends = []
        for name, (marker, line) in _STYLES.items():
            shares = np.array([np.nan if (s := _share_of(n, name)) is None else s for n in nights], np.float64)
            known = ~np.isnan(shares)
            if not np.nansum(shares):
                continue
            style = {"color": FILLS[name], "marker": marker, "linestyle": line, "linewidth": 1.6, "markersize": 4}
            lower.plot(places[known], shares[known], **style)
            ends.append((float(shares[known][-1]), name))
        lower.set_ylim(bottom=0)
        label_ends(lower, len(nights) - 1, ends)
        lower.set_ylabel("share of items")
        lower.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        every = max(1, len(nights) // 6)
        lower.set_xticks(places[::every], [night.day for night in nights[::every]])
        lower.tick_params(axis="x", labelcolor=INK)
        alt = f"Items and shares of review, block and errors of {len(nights)} nights, from {nights[0].day} on"
        return as_svg(figure, "nights", alt)
