"""An evaluation as `evaluation.json` and as a page, `index.html`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from moderation import storage
from moderation.errors import UsageError
from moderation.evaluation.evaluate import Evaluation
from moderation.evaluation.figures import draw_score
from moderation.pages.render import render
from moderation.results.layout import EVALUATION_FILE, PAGE_FILE

_MAX_FIGURES = 60  # 60 KB each
_MAX_SLICES = 40


def write_evaluation(evaluations: Sequence[Evaluation], labels_uri: str, to: str) -> str:
    """Both files, below `to`; the URI of the page. Without matplotlib the page has no figures, and says so."""
    record = {"labels": labels_uri, "evaluations": [asdict(evaluation) for evaluation in evaluations]}
    storage.publish(storage.join(to, EVALUATION_FILE), json.dumps(record, indent=1, ensure_ascii=False).encode())
    figures, missing = _draw(evaluations)
    html = render(
        "evaluation.html",
        labels=labels_uri,
        evaluations=evaluations,
        figures=figures,
        missing=missing,
        max_slices=_MAX_SLICES,
    )
    page = storage.join(to, PAGE_FILE)
    storage.publish(page, html.encode())
    return page


def _draw(evaluations: Sequence[Evaluation]) -> tuple[dict[tuple[int, str], bytes], str]:
    """(figures by evaluation and score, the reason where there are none)."""
    figures: dict[tuple[int, str], bytes] = {}
    for number, evaluation in enumerate(evaluations):
        for measures in evaluation.scores:
            if len(figures) == _MAX_FIGURES:
                return figures, f"The first {_MAX_FIGURES} figures are shown; evaluation.json has the points of all."
            try:
                figure = draw_score(measures)
            except UsageError as error:
                return {}, str(error)
            if figure is not None:
                figures[number, measures.name] = figure
    return figures, ""
