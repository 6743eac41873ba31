"""The page of a run, `report.html`, put together: rows, scores, figures, story. Reads OUT; publishes nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from moderation.errors import ModerationError
from moderation.lists.policy_file import load_whole_policy
from moderation.pages.figures import draw_checks, draw_course, draw_scores, draw_steps
from moderation.pages.flow import draw_flow, flow_of
from moderation.pages.links import object_link
from moderation.pages.report import AppealFigures, ReportFigures, ReportPage, ScoreFigure, render_report
from moderation.policy.model import SEVERITIES, Policy, policy_hash
from moderation.results.advice import describe_problems
from moderation.results.certificates import describe_certification
from moderation.results.course import slowest_items, tell_course
from moderation.results.decided import read_kept_policy
from moderation.results.receipt_sums import ReceiptSums
from moderation.results.record import Output
from moderation.results.report_before import Compare, EarlierRun, ScoreChange, compare_scores
from moderation.results.report_rows import ReportRows, read_report_rows
from moderation.results.story import days_left, tell_story

_LOG = logging.getLogger(__name__)

# The figures of a few items say less than their rows do.
MIN_DRAWN_ITEMS: Final = 25
MAX_SCORE_FIGURES: Final = 12
_LOCAL_THUMBNAILS: Final = 24
Previews = Callable[[str, Sequence[str]], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportExtras:
    """What rooms above this one lend to the page; none of it is needed.

    previews: OUT and item ids -> small JPEGs by item id. compare: scores of an earlier run and of this one, by name ->
    how each has changed, the most changed first. before: the earlier run. decisions: item id -> what reviewers said.
    """

    previews: Previews | None = None
    compare: Compare | None = None
    before: EarlierRun | None = None
    decisions: Mapping[str, str] = field(default_factory=dict)
    appeals: AppealFigures | None = None


def make_report(
    run: Output,
    summary: Mapping[str, Any],
    receipts: ReceiptSums,
    shard_ids: Sequence[str],
    extras: ReportExtras | None = None,
    *,
    judged: bool = True,
    today: date | None = None,
) -> str:
    """The page of a run. shard_ids: those that are committed. judged: whether there are verdicts to show.

    A figure or a preview that fails is left out, and logged: the run must come to its end.
    """
    extras = extras or ReportExtras()
    today = today or datetime.now(UTC).date()
    policy = policy_of_output(run) if judged else None
    thresholds = deciding_thresholds(policy, summary["checks"])
    slow = slowest_items(receipts)
    rows = _read_rows(run, shard_ids, list(thresholds), slow, extras) if judged else ReportRows()
    changes, note = _changes_since(extras, rows)
    before = extras.before
    story = tell_story(
        summary,
        before=None if before is None else before.summary,
        drifted=_describe_changes(changes),
        decided=len(extras.decisions),
        today=today,
    )
    return render_report(
        ReportPage(
            summary=summary,
            story=story,
            problems=_with_examples(describe_problems(summary), rows),
            doubts=describe_doubts(summary),
            rows=rows,
            links=_links(rows, run),
            previews=_previews(run, rows, extras, policy),
            figures=_draw(summary, receipts, rows, thresholds) if judged else ReportFigures(),
            slowest=[(rows.uris.get(item_id, item_id), seconds) for item_id, _, seconds in slow],
            before=before,
            changes=changes,
            changes_note=note,
            decisions=Counter(extras.decisions.values()),
            appeals=extras.appeals,
            days_left=days_left(summary.get("certificates") or {}, today),
        )
    )


def _with_examples(problems: Sequence[Mapping[str, Any]], rows: ReportRows) -> list[Mapping[str, Any]]:
    return [{**problem, "examples": rows.errors.get(problem["code"], ())} for problem in problems]


def _describe_changes(changes: Sequence[ScoreChange]) -> list[str]:
    """A sentence for each of the three scores that drifted most."""
    return [f"Scores of {change.reason}." for change in changes if change.state == "drifted"][:3]


def _read_rows(
    run: Output,
    shard_ids: Sequence[str],
    checks: Sequence[str],
    slow: Sequence[tuple[str, str, float]],
    extras: ReportExtras,
) -> ReportRows:
    shards = {item_id: shard_id for item_id, shard_id, _ in slow}
    return read_report_rows(run.out, run.config.output.format, shard_ids, checks, shards, extras.decisions)


def _changes_since(extras: ReportExtras, rows: ReportRows) -> tuple[Sequence[ScoreChange], str | None]:
    if extras.before is None or extras.compare is None:
        return (), None
    return compare_scores(extras.compare, extras.before.scores, rows.scores)


def describe_doubts(summary: Mapping[str, Any]) -> list[str]:
    """Why a person should not take this run's verdicts as they are: no certificate, an alarm, scores that drifted."""
    monitoring = summary.get("monitoring") or {}
    return [*describe_certification(summary.get("certificates")), *monitoring.get("reasons", ())]


def policy_of_output(run: Output) -> Policy | None:
    """The policy that OUT keeps, or the file of the configuration where it is still the same; None without either."""
    try:
        kept = read_kept_policy(run.out, {"identity": run.identity})
        if kept is not None:
            return kept
        policy = load_whole_policy(Path(run.config.policy))
    except (ModerationError, OSError):
        return None
    return policy if run.facts.policy_hash in ("", policy_hash(policy)) else None


def deciding_thresholds(
    policy: Policy | None, decided: Mapping[str, Mapping[str, int]], most: int = MAX_SCORE_FIGURES
) -> dict[str, dict[str, float]]:
    """Check -> its thresholds, of the checks that can decide: those that decided most first, at most so many."""
    if policy is None:
        return {}
    checks = {
        name: {
            verdict: float(value)
            for verdict, value in (("block", check.block), ("review", check.review), ("pass", check.pass_))
            if value is not None
        }
        for name, check in policy.checks.items()
    }
    able = [name for name, thresholds in checks.items() if thresholds]
    able.sort(key=lambda name: -sum(decided.get(name, {}).values()))
    return {name: checks[name] for name in able[:most]}


def _links(rows: ReportRows, run: Output) -> dict[str, str]:
    """URI -> its address, of all objects that the page names."""
    uris = [str(row["uri"]) for row in (*rows.queue, *rows.blocked)]
    uris += [str(row["uri"]) for examples in rows.errors.values() for row in examples]
    found = {uri: object_link(uri, run.config.report.object_url) for uri in (*uris, *rows.uris.values())}
    return {uri: link for uri, link in found.items() if link is not None}


def _previews(run: Output, rows: ReportRows, extras: ReportExtras, policy: Policy | None) -> Mapping[str, bytes]:
    ids = _ids_to_show(rows, policy)[: _count_previews(run)]
    if extras.previews is None or not ids:
        return {}
    try:
        return extras.previews(run.out, ids)
    except Exception as error:  # noqa: BLE001 - strangers' files through many decoders; the run must come to its end
        _LOG.warning("the report has no previews: %s", error)
        return {}


def _count_previews(run: Output) -> int:
    wanted = run.config.report.thumbnails
    if wanted is not None:
        return wanted
    return _LOCAL_THUMBNAILS if not any("://" in uri for uri in (run.source, run.out)) else 0


def _ids_to_show(rows: ReportRows, policy: Policy | None) -> list[str]:
    """Items of the queue; what a list of known pictures matched, or a severe check, is in no page, blurred or not."""
    severe = SEVERITIES[-1:] if policy is None else policy.severe_levels
    return [
        str(row["item_id"])
        for row in rows.queue
        if row.get("severity") not in severe and not str(row.get("reason")).startswith("list:")
    ]


def _draw(
    summary: Mapping[str, Any],
    receipts: ReceiptSums,
    rows: ReportRows,
    thresholds: Mapping[str, Mapping[str, float]],
) -> ReportFigures:
    """All figures; none for a run of a few items, or without matplotlib (then with a note)."""
    if summary["items"] < MIN_DRAWN_ITEMS:
        return ReportFigures()
    try:
        return ReportFigures(
            flow=draw_flow(flow_of(summary)),
            checks=draw_checks(summary["checks"]),
            course=draw_course(tell_course(receipts)),
            steps=draw_steps(summary["seconds"], summary["waits"]),
            scores=_draw_scores(rows, thresholds),
        )
    except ModerationError as error:
        return ReportFigures(note=f"{error}".capitalize())
    except Exception as error:  # noqa: BLE001 - a plotting library must not keep a run from its end
        _LOG.warning("the report has no figures: %s: %s", type(error).__name__, error)
        return ReportFigures(note="The figures could not be drawn.")


def _draw_scores(rows: ReportRows, thresholds: Mapping[str, Mapping[str, float]]) -> list[ScoreFigure]:
    figures = []
    for number, (check, own) in enumerate(thresholds.items()):
        scores = rows.scores.get(check, np.empty(0))
        svg = draw_scores(check, scores, own, number)
        if svg is not None:
            nulls = int(np.isnan(scores).sum())
            figures.append(ScoreFigure(check=check, svg=svg, items=len(scores) - nulls, nulls=nulls))
    return figures
