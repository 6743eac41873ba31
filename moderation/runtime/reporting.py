"""What other rooms lend to a report: previews, changed scores, the earlier run. Loads neither Ray nor torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moderation import storage
from moderation.config.load import validate
from moderation.config.model import ReportConfig
from moderation.errors import ModerationError, UsageError
from moderation.evaluation.drift import compare_windows
from moderation.labels.decision_store import read_decisions
from moderation.labels.effective import answers_by_item
from moderation.ledger.nights import NIGHT_ID, NightStatus, read_nights
from moderation.pages.compare import render_comparison
from moderation.pages.nights import MAX_NIGHTS, NightLine, render_nights
from moderation.pages.report import AppealFigures
from moderation.results.comparison import RunComparison, compare_outputs
from moderation.results.layout import REPORT_FILE, comparison_uri, nights_page_uri
from moderation.results.reader import open_run
from moderation.results.record import read_record
from moderation.results.report import ReportExtras
from moderation.results.report_again import write_report_again
from moderation.results.report_before import EarlierRun, compare_scores, read_earlier
from moderation.review.appeal_outcomes import report_appeals
from moderation.review.appeals import read_appeals

_LOG = logging.getLogger(__name__)


def report_extras(*, before: str | None = None) -> ReportExtras:
    """What a report takes besides its own run. before: OUT of the earlier run; left out where it is unreadable."""
    return ReportExtras(
        previews=_previews, compare=compare_windows, before=None if before is None else _read_before(before)
    )


def night_extras(root: str, night: str, shard_ids: Sequence[str]) -> ReportExtras | None:
    """The same for a night, held against the one before; None for a night without work, whose page nobody sees."""
    return report_extras(before=night_before(root, night)) if shard_ids else None


def _previews(out: str, item_ids: Sequence[str]) -> Mapping[str, bytes]:
    from moderation.analysis.previews import make_quick_previews  # decoders only where there are any

    return make_quick_previews(out, item_ids)


def _read_before(out: str) -> EarlierRun | None:
    try:
        return read_earlier(out)
    except (ModerationError, OSError) as error:
        _LOG.warning("the report is held against no earlier run: %s", error)
        return None


def night_before(root: str, night: str) -> str | None:
    """OUT of the newest night before this one that judged something and is done; None where there is none."""
    try:
        nights = read_nights(root)
    except (ModerationError, OSError) as error:
        _LOG.warning("%s: the earlier nights cannot be read: %s", root, error)
        return None
    done = [n for n in (nights.nights if nights else ()) if n.night < night and n.state == "done" and n.items]
    return done[-1].out if done else None


def write_one_report(
    out: str, *, settings: Mapping[str, Any], against: str | None = None, to: str | None = None
) -> str:
    """Write the report of a run again, or the page of a nightly OUT; its URI.

    settings: keys of `report` other than those that the run had. against: OUT of the earlier run. to: a file.
    Raises UsageError.
    """
    validate(ReportConfig, settings, where="report")
    root = storage.canonical(out).rstrip("/")
    if read_record(root) is None and (nights := read_nights(root)) is not None and nights.ledger_rows is None:
        if settings or against or to:
            raise UsageError(f"{out}: holds nights; their page takes no options, name one night to use them")
        return write_nights_page(root)
    before = None if against is None else read_earlier(storage.canonical(against).rstrip("/"))
    extras = replace(
        report_extras(),
        before=before or _before_of_night(root),
        decisions=read_answers(root),
        appeals=read_appeal_figures(root),
    )
    return write_report_again(root, extras, settings=settings, to=to)


def read_answers(out: str) -> dict[str, str]:
    """Item id -> the answer that holds; empty where there are none, or they are damaged (logged)."""
    try:
        return {item_id: str(answer) for item_id, answer in answers_by_item(read_decisions(out)).items()}
    except (ModerationError, OSError) as error:
        _LOG.warning("the report leaves out what reviewers decided: %s", error)
        return {}


def read_appeal_figures(out: str) -> AppealFigures | None:
    """What became of the appeals of a run; None where there are none, or they are unreadable (logged)."""
    try:
        if not read_appeals(out):
            return None  # known before any verdict is read
        outcome = report_appeals(out)
    except (ModerationError, OSError) as error:
        _LOG.warning("the report leaves out appeals: %s", error)
        return None
    rules = [(each.rule, each.decided, each.overturned) for each in outcome.rules]
    return AppealFigures(open=outcome.open, upheld=outcome.upheld, overturned=outcome.overturned, rules=rules)


def _before_of_night(out: str) -> EarlierRun | None:
    """The night before, where OUT is one of a nightly job."""
    root, _, night = out.rpartition("/")
    if not NIGHT_ID.fullmatch(night):
        return None
    before = night_before(root, night)
    return None if before is None else _read_before(before)


def write_nights_page(root: str) -> str:
    """Write the page of the last thirty nights below a nightly OUT; its URI. Raises UsageError where there are none."""
    root = storage.canonical(root).rstrip("/")
    status = read_nights(root, most=MAX_NIGHTS)
    if status is None or status.ledger_rows is not None:
        raise UsageError(f"{root}: no nights there; the OUT of `moderation nightly` has them")
    lines = [_line_of(night) for night in status.nights]
    try:
        page = render_nights(root, lines, status.nights_total, status.advice)
    except UsageError as error:
        page = render_nights(root, lines, status.nights_total, status.advice, note=f"{error}".capitalize())
    uri = nights_page_uri(root)
    storage.publish(uri, page.encode())
    return uri


def keep_nights_page(root: str) -> None:
    """As `write_nights_page`, at the end of a night: what fails is logged, because the night has come to its end."""
    try:
        write_nights_page(root)
    except (ModerationError, OSError) as error:
        _LOG.warning("%s: the page of the nights was not written: %s", root, error)


def _line_of(night: NightStatus) -> NightLine:
    verdicts = night.verdicts if isinstance(night.verdicts, Mapping) else {}
    return NightLine(
        night=night.night,
        state=night.state,
        link=None if night.out is None or not night.items else f"{night.night}/{REPORT_FILE}",
        items=night.items,
        verdicts={str(name): n for name, n in verdicts.items() if isinstance(n, int)},
        error_rate=night.error_rate if isinstance(night.error_rate, int | float) and night.items else None,
        counts=night.counts or {},
        items_per_s=night.items_per_s,
        cost=night.cost_per_million,
    )


def write_comparison(first: str, second: str, to: str | None = None) -> tuple[str, RunComparison]:
    """Write the page of two runs side by side, by default into the second; its URI, and the numbers.

    Raises UsageError.
    """
    first, second = (storage.canonical(out).rstrip("/") for out in (first, second))
    comparison = compare_outputs(first, second)
    changes, note = compare_scores(compare_windows, comparison.first.scores, comparison.second.scores)
    uri = to or comparison_uri(second)
    object_url = open_run(second).load_config().report.object_url
    storage.publish(uri, render_comparison(comparison, changes, note, object_url).encode())
    return uri, comparison
