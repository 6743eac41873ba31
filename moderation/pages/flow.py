"""The diagram of a run: from all its items over the filters to the verdicts, in bands as thick as they have items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from moderation.pages.drawing import ACCENT, CARD, FILLS, INK, SOFT, as_svg, drawing
from moderation.pages.text import count, percent

_GAP: Final = 0.085  # between two nodes of a column, of its height: room for two lines of text
_LEAST: Final = 0.012  # a node of one item among millions can still be seen
_X: Final = (0.0, 0.30, 0.74)  # of the three columns
_NODE: Final = 0.025  # width of a node


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBand:
    """Items that took one way: which filter told them apart, and what they came to (None: no verdict)."""

    via: str
    verdict: str | None
    items: int


_FILTERS: Final = {
    "negative": "negative filter",
    "positive": "positive filter",
    "neither": "neither",
    "error": "errors",
    "skipped": "no media",
}
_ENDS: Final = {"block": "block", "review": "review", "pass": "pass", None: "no verdict"}


def flow_of(summary: Mapping[str, Any]) -> list[FlowBand]:
    """The bands of a run by its counts; the items of all bands are those of the run.

    A check that decided block or review is of the negative filter, one that decided pass of the positive. Items with an
    error come to review and have no check.
    """
    verdicts, checks = summary["verdicts"], summary["checks"].values()
    decided = {verdict: sum(by.get(verdict, 0) for by in checks) for verdict in verdicts}
    errors = min(summary["status"].get("error", 0), max(0, verdicts.get("review", 0) - decided.get("review", 0)))
    left = {verdict: max(0, n - decided[verdict]) for verdict, n in verdicts.items()}
    left["review"] = max(0, left.get("review", 0) - errors)
    bands = [
        FlowBand(via="negative", verdict="block", items=decided.get("block", 0)),
        FlowBand(via="negative", verdict="review", items=decided.get("review", 0)),
        FlowBand(via="error", verdict="review", items=errors),
        FlowBand(via="neither", verdict="block", items=left.get("block", 0)),
        FlowBand(via="neither", verdict="review", items=left["review"]),
        FlowBand(via="neither", verdict="pass", items=left.get("pass", 0)),
        FlowBand(via="positive", verdict="pass", items=decided.get("pass", 0)),
        FlowBand(via="skipped", verdict=None, items=summary["status"].get("skipped", 0)),
    ]
    return [band for band in bands if band.items]


def draw_flow(bands: Sequence[FlowBand]) -> Markup | None:
    """The diagram; None without items. Raises UsageError without matplotlib."""
    total = sum(band.items for band in bands)
    if not total:
        return None
    by_via, by_end = _sums_of(bands)
    with drawing(4.9, 3.5, layout=None) as figure:
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.axis("off")
        _draw_left(axes, by_via, total)
        _draw_right(axes, bands, by_via, by_end)
        for name, spot in _place({"": total}).items():
            _label(axes, _X[0], spot, f"{count(total)} item" + ("s" if total != 1 else ""), name)
        for via, spot in _place(by_via).items():
            _label(axes, _X[1], spot, _FILTERS[via], _told(by_via[via], total))
        for end, spot in _place(by_end).items():
            _label(axes, _X[2], spot, _ENDS[end], _told(by_end[end], total))
        words = ", ".join(f"{_FILTERS[b.via]} to {_ENDS[b.verdict]} {count(b.items)}" for b in bands)
        return as_svg(figure, "flow", f"Flow of {count(total)} items: {words}")


def _sums_of(bands: Sequence[FlowBand]) -> tuple[dict[str, int], dict[str | None, int]]:
    """Items by filter, in the order of the bands, and by verdict, in the order of severity."""
    by_via: dict[str, int] = {}
    by_end: dict[str | None, int] = dict.fromkeys(_ENDS, 0)
    for band in bands:
        by_via[band.via] = by_via.get(band.via, 0) + band.items
        by_end[band.verdict] += band.items
    return by_via, {end: items for end, items in by_end.items() if items}


def _draw_left(axes: Any, by_via: Mapping[str, int], total: int) -> None:  # noqa: ANN401 - matplotlib
    """From all items to the filters."""
    whole = _column(axes, _X[0], _place({"": total}), ACCENT)[""]
    for via, spot in _place(by_via).items():
        _band(axes, _X[0], whole.take(by_via[via] / total), _X[1], spot, SOFT)


def _draw_right(
    axes: Any,  # noqa: ANN401 - matplotlib
    bands: Sequence[FlowBand],
    by_via: Mapping[str, int],
    by_end: Mapping[str | None, int],
) -> None:
    """From the filters to the verdicts."""
    filters = _column(axes, _X[1], _place(by_via), SOFT)
    verdicts = _column(axes, _X[2], _place(by_end), None)
    for flow in bands:
        start = filters[flow.via].take(flow.items / by_via[flow.via])
        end = verdicts[flow.verdict].take(flow.items / by_end[flow.verdict])
        _band(axes, _X[1], start, _X[2], end, FILLS.get(flow.verdict or "", SOFT))


def _told(items: int, total: int) -> str:
    return f"{count(items)}, {percent(items / total)}"


def _place(nodes: Mapping[Any, int]) -> dict[Any, tuple[float, float]]:
    """Low and high end of each node, from the top down."""
    total = sum(nodes.values())
    room = 1.0 - _GAP * len(nodes)
    heights = {name: max(_LEAST, n / total * room) for name, n in nodes.items()}
    scale = min(1.0, room / sum(heights.values()))
    spots, high = {}, 1.0 - _GAP / 2
    for name, height in heights.items():
        spots[name] = (high - height * scale, high)
        high -= height * scale + _GAP
    return spots


@dataclass(slots=True)
class _NodeHeight:
    """What is left of a node's height, from its top."""

    low: float
    high: float
    full: float

    def take(self, share: float) -> tuple[float, float]:
        """The next piece of the node."""
        high = self.high
        self.high = max(self.low, high - share * self.full)
        return self.high, high


def _column(
    axes: Any,  # noqa: ANN401 - matplotlib
    x: float,
    spots: Mapping[Any, tuple[float, float]],
    colour: str | None,
) -> dict[Any, _NodeHeight]:
    from matplotlib.patches import Rectangle

    for name, (low, high) in spots.items():
        fill = colour or FILLS.get(str(name), SOFT)
        hatch = "////" if name == "block" else None
        axes.add_patch(Rectangle((x, low), _NODE, high - low, facecolor=fill, edgecolor=CARD, hatch=hatch, zorder=3))
    return {name: _NodeHeight(low, high, high - low) for name, (low, high) in spots.items()}


def _band(
    axes: Any,  # noqa: ANN401 - matplotlib
    x0: float,
    start: tuple[float, float],
    x1: float,
    end: tuple[float, float],
    colour: str,
) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    x0, middle = x0 + _NODE, (x0 + _NODE + x1) / 2
    (low0, high0), (low1, high1) = start, end
    points = [
        (x0, high0), (middle, high0), (middle, high1), (x1, high1),
        (x1, low1), (middle, low1), (middle, low0), (x0, low0), (x0, high0),
    ]  # fmt: skip
    curve = [Path.CURVE4] * 3
    path = Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
    axes.add_patch(PathPatch(path, facecolor=colour, alpha=0.32, zorder=1))


def _label(axes: Any, x: float, spot: tuple[float, float], name: str, told: str) -> None:  # noqa: ANN401 - matplotlib
    middle = (spot[0] + spot[1]) / 2
    place = x + _NODE + 0.012
    lift = 0.022 if told else 0.0
    axes.text(place, middle + lift, name, va="center", fontsize=9.5, fontweight="bold", color=INK, zorder=4)
    if told:
        axes.text(place, middle - lift, told, va="center", fontsize=8.5, color=INK, zorder=4)
