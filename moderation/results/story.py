"""A run in sentences: what was judged, what changed, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from moderation.pages.text import count, number, percent, span
from moderation.results.advice import describe_problems
from moderation.types import ErrorCode

Summary = Mapping[str, Any]
# Certificates are issued from the labels of weeks: a month is the time to gather them.
_CERTIFICATE_DAYS: Final = 30
_MAX_PROBLEMS: Final = 3
# A change of a share by half, and by more than this, is told.
_LEAST_CHANGE: Final = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """happened, changed, todo: sentences, in the order in which they matter. Names in them come from strangers."""

    headline: str
    happened: Sequence[str]
    changed: Sequence[str]
    todo: Sequence[str]


def items_text(n: float) -> str:
    """`1 item`, `2,000 items`."""
    return f"{count(n)} item" if n == 1 else f"{count(n)} items"


def tell_story(
    summary: Summary,
    *,
    before: Summary | None = None,
    drifted: Sequence[str] = (),
    decided: int = 0,
    today: date | None = None,
) -> Story:
    """The story of a run. before: the summary of the run that it is held against. drifted: sentences.

    decided: how many items reviewers have decided. today: for certificates that end.
    """
    verdicts = summary["verdicts"]
    headline = (
        f"{items_text(summary['items'])}: {count(verdicts['block'])} blocked, {count(verdicts['review'])} to review,"
        f" {count(verdicts['pass'])} passed"
    )
    changed = [] if before is None else list(_tell_changes(summary, before))
    return Story(
        headline=headline,
        happened=list(_tell_happened(summary)),
        changed=[*changed, *drifted],
        todo=list(_tell_todo(summary, decided, today)) or ["Nothing: every item was passed or skipped."],
    )


def _tell_happened(summary: Summary) -> Iterator[str]:
    yield _tell_judged(summary)
    yield from _tell_listing(summary.get("nightly") or {})
    errors, skipped = summary["status"].get("error", 0), summary["status"].get("skipped", 0)
    if errors:
        yield f"{items_text(errors)} could not be judged ({percent(summary['error_rate'])}); none of them was passed."
    if skipped:
        verbs = ("is", "was") if skipped == 1 else ("are", "were")
        yield f"{items_text(skipped)} {verbs[0]} no media and {verbs[1]} skipped."
    if summary.get("bottleneck"):
        yield f"The bottleneck was {summary['bottleneck']}"
    cost = summary.get("cost") or {}
    if cost.get("run") is not None:
        yield f"It cost {number(cost['run'])}: {number(cost['per_million_items'])} for a million items."


def _tell_listing(counts: Mapping[str, Any]) -> Iterator[str]:
    """What a night's listing found; the first four are told even when there are none."""
    if "looked_at" not in counts:
        return
    names = ("new", "changed", "deleted", "unchanged", "retried", "rejudged", "returned", "same_content")
    told = [f"{count(counts.get(n) or 0)} {n.replace('_', ' ')}" for n in names if counts.get(n) or n in names[:4]]
    looked_at = count(counts["looked_at"])
    yield f"The listing of night {counts.get('night', '')} looked at {looked_at} objects: {', '.join(told)}."


def _tell_judged(summary: Summary) -> str:
    items, wall_s, startup_s = summary["items"], summary.get("wall_s"), summary.get("startup_s")
    verb = "was" if items == 1 else "were"
    how = "judged again by another policy" if summary.get("rejudged") else "judged"
    took = f" in {span(wall_s)}" if wall_s else ""
    started = f", {span(startup_s)} of them to start" if took and startup_s else ""
    rate = f"; {number(summary['items_per_s'])} items a second" if summary.get("items_per_s") else ""
    return f"{items_text(items)} {verb} {how}{took}{started}{rate}."


def _tell_changes(summary: Summary, before: Summary) -> Iterator[str]:
    """How the shares differ from those of an earlier run."""
    if not summary["items"] or not before.get("items"):
        return
    pairs = [(name, _share(summary, name), _share(before, name)) for name in ("block", "review")]
    pairs.append(("error", summary["error_rate"], float(before.get("error_rate") or 0.0)))
    for name, now, then in pairs:
        if _has_changed(now, then):
            yield f"{name}: {percent(now)} of the items, {percent(then)} before."
    yield from _tell_throughput(summary.get("items_per_s"), before.get("items_per_s"))
    for key, what in (("stack_fingerprint", "stack"), ("policy_hash", "policy")):
        values = {summary.get(key), before.get(key)}
        if len(values) == 2 and None not in values:
            yield f"The {what} is another one than before, so scores and verdicts may differ for that alone."


def _tell_throughput(rate: float | None, rate_before: float | None) -> Iterator[str]:
    if rate and rate_before and not 0.67 <= rate / rate_before <= 1.5:
        yield f"Throughput: {number(rate)} items a second, {number(rate_before)} before."


def _share(summary: Summary, verdict: str) -> float:
    verdicts: Mapping[str, int] = summary.get("verdicts") or {}
    return float(verdicts.get(verdict, 0)) / max(1, sum(verdicts.values()))


def _has_changed(now: float, then: float) -> bool:
    return bool(abs(now - then) > max(_LEAST_CHANGE, 0.5 * then))


def _tell_todo(summary: Summary, decided: int, today: date | None) -> Iterator[str]:
    if summary.get("state", "done") != "done":
        yield "The same command again: the run is not complete, and goes on from here."
    yield from _tell_review(summary, decided)
    yield from _tell_problems(summary)
    yield from _tell_certificates(summary.get("certificates") or {}, today)
    if summary.get("decoder_warning"):
        yield f"A video decoder lacks security fixes: {summary['decoder_warning']}."


def _tell_review(summary: Summary, decided: int) -> Iterator[str]:
    review = summary["verdicts"]["review"]
    if decided:
        yield f"{items_text(decided)} {'is' if decided == 1 else 'are'} decided by reviewers so far."
    if review:
        hours = review / 2000
        minutes = max(1, round(hours * 60))
        time = f"about {minutes} minute{'s' if minutes > 1 else ''}" if hours < 2 else f"about {hours:,.0f} hours"
        yield (
            f"Look at the {items_text(review)} for review, in the order of review_rank: {time} for one person at 2,000"
            " an hour."
        )
    if summary["verdicts"]["block"]:
        blocked = items_text(summary["verdicts"]["block"])
        yield f"Check a few of the {blocked} that were blocked: a mistake costs most there."


def _tell_problems(summary: Summary) -> Iterator[str]:
    limit = summary.get("max_error_rate")
    if limit is not None and summary["error_rate"] > limit:
        rate = percent(summary["error_rate"])
        yield f"Find out why {rate} are errors: runtime.max_error_rate allows {percent(limit)}."
    problems = [p for p in describe_problems(summary) if p["code"] != ErrorCode.NOT_MEDIA]
    for problem in problems[:_MAX_PROBLEMS]:
        yield f"{problem['code']}, {items_text(problem['items'])}: {problem['action']}"


def _tell_certificates(certificates: Mapping[str, Any], today: date | None) -> Iterator[str]:
    uncertified = certificates.get("uncertified") or {}
    if uncertified:
        yield f"Certify what is decided without a person: {', '.join(sorted(uncertified))}; see docs/certificates.md."
    days = days_left(certificates, today)
    if days is not None and days <= _CERTIFICATE_DAYS:
        when = f"end in {days} day{'s' if days != 1 else ''}" if days >= 0 else "have ended"
        yield f"The certificates {when} ({certificates['expires']}): label the audit and certify anew."


def days_left(certificates: Mapping[str, Any], today: date | None) -> int | None:
    """Days until the certificates of a run end; None where there are none, or no day to count from."""
    if today is None or not certificates.get("expires"):
        return None
    try:
        return (date.fromisoformat(str(certificates["expires"])) - today).days
    except ValueError:
        return None
