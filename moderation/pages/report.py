"""The page of a run, `report.html`: its numbers, what went wrong, and the rows to look at first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from moderation.pages.render import render
from moderation.types import Status, Verdict

# Nobody reads a page of more rows; the tables hold them all.
MAX_ROWS_PER_GROUP: Final = 40
_MAX_ROWS: Final = 10_000
_ORIGIN: Final = (
    "run_id", "source", "out", "state", "stopped_by", "startup_s", "stack_fingerprint", "policy_hash", "shards",
    "shards_this_call", "items_this_call",
)  # fmt: skip
_GROUPS: Final = {
    "blocked": ("Blocked", "The highest scores first. A mistake here costs the most: check a few."),
    "review": ("Sent to review by a check", "The highest scores first."),
    "errors": ("Errors", "Items that could not be fetched, fully decoded, or scored. Never passed."),
    "unsure": ("Not recognised as fine", "No check objected, but none recognised it as fine."),
}

# What became of the objects that a night looked at; the first four are told even when there are none.
_NIGHT_COUNTS: Final = ("new", "changed", "deleted", "unchanged", "retried", "rejudged", "returned", "same_content")

Cells = Mapping[str, Any]


class Bar(NamedTuple):
    """A number beside its bar; `share` is 0..1 of the whole."""

    name: str
    value: float
    share: float


def render_report(
    summary: Mapping[str, Any],
    rows: Iterable[Cells],
    problems: Sequence[Mapping[str, Any]],
    doubts: Sequence[str] = (),
) -> str:
    """One self-contained HTML page: no script, no pictures, no references.

    rows: cells of the verdicts table (`uri, verdict, status, reason, score, error_code, error_detail`), in order; at
    most 40 of each group are shown. problems: for each error code `code, items, share, meaning, action`. doubts:
    sentences above everything else. All text is escaped: names and details come from strangers.
    """
    return render(
        "report.html",
        s=summary,
        verdicts=[(v.value, summary["verdicts"].get(v.value, 0)) for v in Verdict],
        tables=[("Kinds", "Kind", _bars(summary["kinds"])), ("Status", "Status", _bars(summary["status"]))],
        detectors=_bars(summary["frames_asked"], whole=summary["frames"]),
        checks=summary["checks"],
        problems=problems,
        doubts=doubts,
        steps=_bars(summary["seconds"], keep_zero=True),
        slowest=_slowest(summary["seconds"]),
        groups=_group_rows(islice(rows, _MAX_ROWS)),
        facts=[(k, str(summary[k])) for k in _ORIGIN if summary.get(k) not in (None, "")],
        versions=sorted((summary.get("versions") or {}).items()),
        decoders=summary.get("decoders") or [],
        decoder_warning=summary.get("decoder_warning"),
        max_error_rate=summary.get("max_error_rate"),
        wall_s=summary.get("wall_s"),
        state=str(summary.get("state") or "done"),
        night=_night_counts(summary.get("nightly") or {}),
    )


def _bars(numbers: Mapping[str, float], *, whole: float | None = None, keep_zero: bool = False) -> list[Bar]:
    total = whole if whole is not None else sum(numbers.values())
    return [Bar(k, n, min(1.0, n / total) if total else 0.0) for k, n in numbers.items() if n or keep_zero]


def _slowest(seconds: Mapping[str, float]) -> str | None:
    return max(seconds, key=lambda step: seconds[step]) if any(seconds.values()) else None


def _group_rows(rows: Iterable[Cells]) -> list[tuple[str, str, list[Cells], int]]:
    """(title, explanation, rows shown, rows given) of each group that has rows."""
    groups: dict[str, list[Cells]] = {name: [] for name in _GROUPS}
    for row in rows:
        group = _group_of(row)
        if group is not None:
            groups[group].append(row)
    return [
        (*_GROUPS[name], _by_score(members)[:MAX_ROWS_PER_GROUP], len(members))
        for name, members in groups.items()
        if members
    ]


def _group_of(row: Cells) -> str | None:
    """The group of a row: blocked, errors, sent to review by a check, or the rest of the reviews."""
    if row.get("verdict") == Verdict.BLOCK:
        return "blocked"
    if row.get("status") == Status.ERROR or row.get("error_code"):
        return "errors"
    if row.get("verdict") == Verdict.REVIEW:
        return "review" if row.get("check") else "unsure"
    return None


def _by_score(rows: Sequence[Cells]) -> list[Cells]:
    return sorted(rows, key=lambda r: -r["score"] if r.get("score") is not None else 0.0)


def _night_counts(counts: Cells) -> list[tuple[str, int]]:
    """(what, how many) of a night whose listing has told; empty of other runs."""
    if "looked_at" not in counts:
        return []
    names = (name for name in _NIGHT_COUNTS if counts.get(name) or name in _NIGHT_COUNTS[:4])
    return [(name.replace("_", " "), int(counts.get(name) or 0)) for name in names]
