"""An earlier run that a report is held against: its numbers and its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import ModerationError, UsageError
from moderation.results.layout import summary_uri
from moderation.results.reader import open_run
from moderation.results.report_rows import F64, read_report_rows

_CHANGED: Final = ("drifted", "watch")
_MAX_CHANGES: Final = 12


class ScoreChange(Protocol):
    """How a score differs from an earlier run's; see `evaluation.drift.ScoreDrift`."""

    @property
    def name(self) -> str:
        """The score."""
        ...

    @property
    def state(self) -> str:
        """stable, watch, drifted or too few."""
        ...

    @property
    def reason(self) -> str:
        """The change in a sentence."""
        ...

    @property
    def stability(self) -> float | None:
        """The population stability index."""
        ...

    @property
    def reference_mean(self) -> float | None:
        """Before."""
        ...

    @property
    def mean(self) -> float | None:
        """Now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """out: where it lies. summary: its `summary.json`. scores: check -> float64 [N] of its items, NaN = null."""

    out: str
    summary: Mapping[str, Any]
    scores: Mapping[str, F64] = field(default_factory=dict)


Compare = Callable[[Mapping[str, F64], Mapping[str, F64]], Sequence[ScoreChange]]


def compare_scores(
    compare: Compare, before: Mapping[str, F64], now: Mapping[str, F64]
) -> tuple[list[ScoreChange], str | None]:
    """The scores that are not distributed as before, at most twelve; and where there are none, why, in a sentence."""
    shared = [name for name in now if name in before]
    if not shared:
        return [], "The two runs have no score in common."
    try:
        changes = compare({name: before[name] for name in shared}, {name: now[name] for name in shared})
    except ModerationError as error:
        return [], f"Scores are not compared: {error}."
    changed = [change for change in changes if change.state in _CHANGED]
    return changed[:_MAX_CHANGES], None if changed else _tell_unchanged(changes)


def _tell_unchanged(changes: Sequence[ScoreChange]) -> str:
    if all(change.state == "too few" for change in changes):
        return "Too few items to compare scores."
    return f"None of {len(changes)} scores has changed."


def read_summary(out: str) -> dict[str, Any]:
    """`summary.json` of a run. Raises UsageError where there is none, or it is none of ours."""
    data = storage.read_optional(summary_uri(out))
    if data is None:
        raise UsageError(f"{out}: no summary.json; the run has not ended, or it is none")
    try:
        summary = parse_json(data)
    except ValueError as error:
        raise UsageError(f"{summary_uri(out)}: not readable") from error
    if not is_summary(summary):
        raise UsageError(f"{summary_uri(out)}: not that of a run")
    return dict(summary)


_TABLES = ("verdicts", "status", "kinds", "errors", "checks", "seconds", "waits", "frames_asked")


def is_summary(summary: object) -> bool:
    """Whether a page can be made of it: every table that pages read is there, and its numbers are numbers."""
    if not isinstance(summary, dict) or type(summary.get("items")) is not int:
        return False
    if type(summary.get("error_rate")) not in (int, float):
        return False
    tables = [summary.get(name) for name in _TABLES]
    if not all(isinstance(table, dict) for table in tables):
        return False
    return all(
        type(n) in (int, float) for name in ("verdicts", "status", "errors", "seconds") for n in summary[name].values()
    )


def read_earlier(out: str, checks: list[str] | None = None) -> EarlierRun:
    """An earlier run. checks: whose scores are read; None: all. Raises UsageError where there is no run."""
    run = open_run(out)
    names = _check_names(run.read_verdicts(run.shard_ids[0]).column_names) if checks is None else checks
    rows = read_report_rows(out, run.format, run.shard_ids, names)
    return EarlierRun(out=out, summary=read_summary(out), scores=rows.scores)


def _check_names(columns: list[str]) -> list[str]:
    return [name.removeprefix("score_") for name in columns if name.startswith("score_")]
