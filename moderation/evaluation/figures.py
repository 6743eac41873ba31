"""Figures of a score against the truth, as SVG: ROC, precision-recall, histogram, reliability, risk-coverage."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from moderation.evaluation.measures import HISTOGRAM_BINS, CurveSet, ScoreMeasures
from moderation.evaluation.packages import matplotlib_figure

_TRUE, _FALSE, _LINE = "#b3261e", "#1f7a4d", "#2f5fb3"


def draw_score(measures: ScoreMeasures) -> bytes | None:
    """One SVG of five panels; None where there is nothing to draw. Raises UsageError without matplotlib."""
    if measures.curves is None:
        return None
    figure = matplotlib_figure()(figsize=(13.5, 2.9), layout="constrained")
    panels = figure.subplots(1, 5)
    curves = measures.curves
    _line(panels[0], curves.roc, "false alarms", "found", "ROC")
    _line(panels[1], curves.precision_recall, "recall", "precision", "precision and recall")
    _histogram(panels[2], curves, measures)
    _reliability(panels[3], curves)
    _line(panels[4], curves.risk_coverage, "share of items taken", "wrong among them", "risk and coverage")
    panels[4].set_ylim(0, None)
    return _encode(figure)


def _line(axes: Any, points: tuple[tuple[float, float], ...], x: str, y: str, title: str) -> None:  # noqa: ANN401 - matplotlib is optional
    pairs = np.array(points)
    axes.plot(pairs[:, 0], pairs[:, 1], color=_LINE, linewidth=1.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _name(axes, x, y, title)


def _histogram(axes: Any, curves: CurveSet, measures: ScoreMeasures) -> None:  # noqa: ANN401 - matplotlib is optional
    edges = np.linspace(*curves.score_range, HISTOGRAM_BINS + 1)
    for counts, colour, name in (
        (curves.histogram_false, _FALSE, "negative"),
        (curves.histogram_true, _TRUE, "positive"),
    ):
        axes.stairs(counts, edges, fill=True, alpha=0.45, color=colour, label=name)
    for operating in measures.operating:
        axes.axvline(operating.threshold, color="black", linestyle="--", linewidth=0.9)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    _name(axes, "score", "items", "scores by label")


def _reliability(axes: Any, curves: CurveSet) -> None:  # noqa: ANN401 - matplotlib is optional
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    points = np.array([(mean, share) for mean, share, _ in curves.reliability])
    axes.plot(points[:, 0], points[:, 1], marker="o", markersize=3.5, color=_LINE, linewidth=1.2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _name(axes, "mean score", "share of positives", "reliability")


def _name(axes: Any, x: str, y: str, title: str) -> None:  # noqa: ANN401 - matplotlib is optional
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)


def _encode(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib is optional
    from matplotlib import rc_context

    sink = io.BytesIO()
    # Ids are hashed from a fixed salt and there is no date, so the same numbers give the same file.
    with rc_context({"svg.hashsalt": "moderation"}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()
