"""The page of a run, `report.html`: story, figures, the head of the queue, what went wrong, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from markupsafe import Markup

from moderation.pages.render import render
from moderation.types import Verdict

_ORIGIN: Final = (
    "run_id", "source", "out", "state", "stopped_by", "pool", "startup_s", "stack_fingerprint", "policy_hash",
    "shards", "shards_this_call", "items_this_call",
)  # fmt: skip

Cells = Mapping[str, Any]


class ShownRows(Protocol):
    """See `results.report_rows.ReportRows`."""

    @property
    def parts(self) -> int:
        """Parts that were read."""
        ...

    @property
    def parts_total(self) -> int:
        """Parts of the run."""
        ...

    @property
    def items(self) -> int:
        """Items of the parts that were read."""
        ...

    @property
    def queue(self) -> Sequence[Cells]:
        """Rows for review, in their order."""
        ...

    @property
    def blocked(self) -> Sequence[Cells]:
        """Blocked rows, in their order."""
        ...

    @property
    def answers(self) -> Mapping[str, Any]:
        """By reason, `verdict, decided, block, passed, overturned` of what reviewers said."""
        ...

    @property
    def counted(self) -> Mapping[str, int]:
        """Rows by `queue`, `blocked`, `audit` in the parts that were read."""
        ...


class ToldStory(Protocol):
    """See `results.story.Story`."""

    @property
    def headline(self) -> str:
        """The run in a line."""
        ...

    @property
    def happened(self) -> Sequence[str]:
        """What was judged."""
        ...

    @property
    def changed(self) -> Sequence[str]:
        """What is not as it was before."""
        ...

    @property
    def todo(self) -> Sequence[str]:
        """What to do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A number beside its bar; `share` is 0..1 of the whole."""

    name: str
    value: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFigure:
    """The scores of a check: its figure, and of how many items. nulls: items without a score."""

    check: str
    svg: Markup
    items: int
    nulls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFigures:
    """SVG elements, each None where there is nothing to draw. note: why there are none, in a sentence."""

    flow: Markup | None = None
    checks: Markup | None = None
    course: Markup | None = None
    steps: Markup | None = None
    scores: Sequence[ScoreFigure] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealFigures:
    """What became of appeals. rules: (the rule that had decided, appeals decided, of these overturned)."""

    open: int
    upheld: int
    overturned: int
    rules: Sequence[tuple[str, int, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPage:
    """All that the page shows.

    problems: `code, items, share, meaning, action, examples` of each error code. doubts: sentences above everything
    else. links: URI -> address. previews: item id -> JPEG. slowest: (URI, seconds). before: the earlier run, its `out`
    and `summary`; changes: scores that are not as in it; changes_note: why none is told. decisions: of reviewers.
    days_left: until the certificates end.
    """

    summary: Mapping[str, Any]
    story: ToldStory
    rows: ShownRows
    problems: Sequence[Mapping[str, Any]] = ()
    doubts: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    previews: Mapping[str, bytes] = field(default_factory=dict)
    figures: ReportFigures = ReportFigures()
    slowest: Sequence[tuple[str, float]] = ()
    before: Any = None
    changes: Sequence[Any] = ()
    changes_note: str | None = None
    decisions: Mapping[str, int] = field(default_factory=dict)
    appeals: AppealFigures | None = None
    days_left: int | None = None


def render_report(page: ReportPage) -> str:
    """One self-contained HTML page: no script, nothing from elsewhere. Strangers' names and details are escaped."""
    s = page.summary
    return render(
        "report.html",
        page=page,
        s=s,
        rows=page.rows,
        story=page.story,
        figures=page.figures,
        verdicts=[(v.value, s["verdicts"].get(v.value, 0)) for v in Verdict],
        tables=[("Kinds", "Kind", bars_of(s["kinds"])), ("Status", "Status", bars_of(s["status"]))],
        detectors=bars_of(s["frames_asked"], whole=s["frames"]),
        memory_wait_s=_memory_wait_s(s),
        steps=bars_of(s["seconds"], keep_zero=True),
        facts=[(k, str(s[k])) for k in _ORIGIN if s.get(k) not in (None, "")],
        versions=sorted((s.get("versions") or {}).items()),
        cost=s.get("cost") or {},
        state=str(s.get("state") or "done"),
        certificates=s.get("certificates") or {},
        shares=[] if page.before is None else shares_beside(s, page.before.summary),
    )


def _memory_wait_s(summary: Mapping[str, Any]) -> float | None:
    """Seconds that decoders waited for memory, all threads together; None below what anybody would look at."""
    waited_s = float(summary.get("waits", {}).get("decode", {}).get("memory", 0.0))
    return waited_s if waited_s >= 1.0 else None


def bars_of(numbers: Mapping[str, float], *, whole: float | None = None, keep_zero: bool = False) -> list[Bar]:
    """Each number with its share of their sum, or of `whole`."""
    total = whole if whole is not None else sum(numbers.values())
    return [
        Bar(name=k, value=n, share=min(1.0, n / total) if total else 0.0) for k, n in numbers.items() if n or keep_zero
    ]


def shares_beside(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(what, share before, share now) of verdicts and errors; None where a run has no items."""
    shares = [(v.value, _share(before, v.value), _share(now, v.value)) for v in Verdict]
    return [*shares, ("error", _error_rate(before), _error_rate(now))]


def _share(summary: Mapping[str, Any], verdict: str) -> float | None:
    verdicts = summary.get("verdicts") or {}
    total = sum(verdicts.values())
    return verdicts.get(verdict, 0) / total if total else None


def _error_rate(summary: Mapping[str, Any]) -> float | None:
    return summary.get("error_rate") if summary.get("items") else None
