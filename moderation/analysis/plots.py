"""Figures of checks, as PNG or SVG. matplotlib comes with the extra `plots`; no window, no global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moderation.analysis.checks import BINS, CheckDescription, Disagreement
from moderation.config.installing import install_command
from moderation.errors import UsageError
from moderation.pages.figures import label_thresholds

# Told apart without red and green, too; every line has its name beside it.
_COLOURS = {"block": "#a3202a", "review": "#c98a1b", "pass": "#1d5f9e"}
_MAX_ROWS = 60  # checks in the figure of disagreement: nobody reads more
_DPI = 110


def plot_check(check: CheckDescription, *, format_: str = "png") -> bytes:
    """The distribution of every variant's score and of the fused one, with the thresholds. Raises UsageError."""
    figure = _figure((7.2, 3.6))
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, BINS + 1)
    several = len(check.votes) > 1
    for vote in check.votes:
        axes.stairs(_shares(vote.counts), edges, label=vote.name, linewidth=1.2)
    if several:
        axes.stairs(_shares(check.fused.counts), edges, label="fused", color="black", linewidth=2.2)
    words = {name: f": {share:.1%}" for name, share in check.at_least.items()}
    label_thresholds(axes, check.thresholds, _COLOURS, words)
    axes.set_yscale("symlog", linthresh=0.01)
    # Up to 4, so that labels have a place above the highest bar.
    axes.set_ylim(0, 4 if check.thresholds else 1)
    axes.set_xlim(0, 1)
    axes.set_xlabel("score")
    axes.set_ylabel("share of frames")
    asked = check.fused.total - check.fused.nulls
    axes.set_title(f"{check.name}: {asked:,} frames, {check.fused.nulls:,} not asked", fontsize=10, loc="left")
    # Below the axes, where it covers neither bars nor labels.
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    return _encode(figure, format_)


def plot_disagreement(checks: Sequence[CheckDescription], *, format_: str = "png") -> bytes | None:
    """Share of frames that two variants put on different sides of a check's threshold; None without two variants."""
    compared = [c for c in checks if any(p.apart is not None for p in c.pairs)]
    if not compared:
        return None
    rows = sorted(compared, key=lambda c: -max(p.apart or 0.0 for p in c.pairs))[:_MAX_ROWS]
    names = list(dict.fromkeys(_pair_name(p) for c in rows for p in c.pairs))
    table = _disagreement_table(rows, names)
    figure = _figure((3.0 + 1.5 * len(names), 1.4 + 0.3 * len(rows)))
    axes = figure.add_subplot()
    image = axes.imshow(table, cmap="magma_r", vmin=0, vmax=max(0.05, float(np.nanmax(table))), aspect="auto")
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [c.name for c in rows], fontsize=8)
    _label_cells(axes, table, dark_from=0.6 * image.get_clim()[1])
    axes.set_title("frames on different sides of the threshold", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}")
    return _encode(figure, format_)


def _label_cells(axes: Any, table: npt.NDArray[np.float64], *, dark_from: float) -> None:  # noqa: ANN401 - matplotlib
    for row, column in np.argwhere(~np.isnan(table)).tolist():
        value = float(table[row, column])
        colour = "white" if value > dark_from else "black"
        axes.text(column, row, f"{value:.1%}", ha="center", va="center", fontsize=7, color=colour)


def _disagreement_table(checks: Sequence[CheckDescription], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """float64 [checks, pairs], NaN where a check does not have a pair."""
    table = np.full((len(checks), len(names)), np.nan)
    for i, check in enumerate(checks):
        for pair in check.pairs:
            if pair.apart is not None:
                table[i, names.index(_pair_name(pair))] = pair.apart
    return table


def _figure(inches: tuple[float, float]) -> Any:  # noqa: ANN401 - matplotlib is an optional package
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(f"figures need the package matplotlib; {install_command('plots')}") from error
    # A Figure of its own, because pyplot keeps every figure that it makes.
    return Figure(figsize=inches, layout="constrained")


def _encode(figure: Any, format_: str) -> bytes:  # noqa: ANN401 - matplotlib is an optional package
    sink = io.BytesIO()
    # Without a date, so that the same votes give the same file.
    figure.savefig(sink, format=format_, dpi=_DPI, metadata={"Date": None} if format_ == "svg" else {"Software": None})
    return sink.getvalue()


def _shares(counts: Sequence[int]) -> npt.NDArray[np.float64]:
    return np.array(counts, np.float64) / (sum(counts) or 1)


def _pair_name(pair: Disagreement) -> str:
    """The variant's name alone: the row names the label."""
    return f"{pair.first.partition('.')[0]} / {pair.second.partition('.')[0]}"
