"""What a run did: receipts and facts -> numbers (`summary.json`) and a page (`report.html`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from moderation.results.advice import ADVICE, Advice
from moderation.results.bottleneck import nest_waits, tell_bottleneck
from moderation.results.receipts import Receipt
from moderation.types import ErrorCode, Kind, Status, Verdict

SUMMARY_VERSION = 1
STEPS = ("fetch", "decode", "score", "judge", "write")
# A page of more rows is not read; the tables hold them all.
MOST_ROWS_A_GROUP = 40
_MOST_ROWS_READ = 10_000
_SHOWN_CHARS = 240


def summarise(receipts: Iterable[Receipt], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a run, ready for JSON: the sum of its receipts, beside the facts, which pass through.

    Read from the facts: `wall_s` (seconds of this call), and of a call that resumed `items_this_call` and
    `frames_this_call`, to which the rates then refer. A rate that is not known is None, never 0.
    `error_rate` is error rows by all rows; skipped files are no errors. Steps' seconds are busy time, summed over
    threads and workers; they overlap, so they may add up to more than the wall time. `waits` and `bottleneck`: see
    `bottleneck.py`.
    """
    counts: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    waits: defaultdict[str, float] = defaultdict(float)
    items = shards = bytes_read = peak = 0
    for receipt in receipts:
        shards += 1
        items += receipt.rows_in
        bytes_read += receipt.bytes_read
        peak = max(peak, receipt.peak_memory_bytes)
        counts.update(receipt.counts)
        for step, spent in receipt.seconds.items():
            seconds[step] += spent
        for wait, spent in receipt.waits.items():
            waits[wait] += spent
    frames = counts["frames"]
    errors = counts[f"status:{Status.ERROR}"]
    wall_s = facts.get("wall_s")
    items_then = facts.get("items_this_call", items)
    frames_then = facts.get("frames_this_call", frames if items_then == items else None)
    return {
        **facts,
        "summary_version": SUMMARY_VERSION,
        "shards": shards,
        "items": items,
        "frames": frames,
        "verdicts": _by_name(counts, "verdict", Verdict),
        "status": _by_name(counts, "status", Status),
        "kinds": _by_name(counts, "kind", Kind),
        "errors": _by_name(counts, "error"),
        "error_rate": errors / items if items else 0.0,
        "checks": _by_check(counts),
        "frames_asked": _by_name(counts, "asked"),
        "frames_extra": _by_name(counts, "extra"),  # tiles and wholes: among `frames`, but of no item
        "seconds": {s: round(seconds[s], 3) for s in (*STEPS, *sorted(set(seconds) - set(STEPS)))},
        "waits": nest_waits(waits),
        "bottleneck": tell_bottleneck(seconds, waits),
        "wall_s": wall_s,
        "items_per_s": _rate(items_then, wall_s),
        "frames_per_s": _rate(frames_then, wall_s),
        "bytes_read": bytes_read,
        "peak_memory_bytes": peak or None,
    }


def render_report(summary: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """One HTML page that needs nothing else: no script, no picture, no reference to anywhere.

    rows: cells of the verdicts table of what a person should look at first (`uri, verdict, status, reason, score,
    error_code, error_detail`), in order; at most 40 of each group are shown. All text is escaped: names and details
    are strangers'.
    """
    environment = Environment(
        loader=PackageLoader("moderation.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=_count, size=_size, span=_span, percent=_percent, plain=_plain, number=_number)
    page = environment.get_template("report.html")
    return page.render(
        s=summary,
        verdicts=[(v.value, summary["verdicts"].get(v.value, 0)) for v in Verdict],
        tables=[("Kinds", "Kind", _bars(summary["kinds"])), ("Status", "Status", _bars(summary["status"]))],
        detectors=_bars(summary["frames_asked"], whole=summary["frames"]),
        checks=summary["checks"],
        problems=[asdict(p) for p in _problems(summary)],
        steps=_bars(summary["seconds"], keep_zero=True),
        slowest=_slowest(summary["seconds"]),
        groups=_group_rows(islice(rows, _MOST_ROWS_READ)),
        facts=[(k, str(summary[k])) for k in _ORIGIN if summary.get(k) not in (None, "")],
        versions=sorted((summary.get("versions") or {}).items()),
        max_error_rate=summary.get("max_error_rate"),
        wall_s=summary.get("wall_s"),
        state=str(summary.get("state") or "done"),
    )


_ORIGIN = ("run_id", "source", "out", "state", "stopped_by", "stack_fingerprint", "policy_hash", "shards",
           "shards_this_call", "items_this_call")  # fmt: skip


class Bar(NamedTuple):
    """A number beside its bar; `share` is 0..1 of the whole."""

    name: str
    value: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error code of the run, in words."""

    code: str
    items: int
    share: float
    meaning: str
    action: str


def _by_name(counts: Mapping[str, int], prefix: str, names: Iterable[str] = ()) -> dict[str, int]:
    """`{"pass": 3}` from `{"verdict:pass": 3}`: the known names first (verdicts also when 0), then by size."""
    found = {key.partition(":")[2]: n for key, n in counts.items() if key.startswith(f"{prefix}:")}
    known = [str(n) for n in names]
    others = sorted(set(found) - set(known), key=lambda n: (-found[n], n))
    kept = [n for n in known if n in found or prefix in ("verdict", "status")]
    return {name: found.get(name, 0) for name in chain(kept, others)}


def _by_check(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Items by the check that decided and what it decided."""
    checks: dict[str, dict[str, int]] = {}
    for key, n in sorted(counts.items()):
        prefix, _, rest = key.partition(":")
        if prefix == "check":
            name, _, verdict = rest.rpartition(":")
            checks.setdefault(name, {str(v): 0 for v in Verdict})[verdict] = n
    return checks


def _rate(amount: float | None, wall_s: float | None) -> float | None:
    return round(amount / wall_s, 3) if amount is not None and wall_s else None


def _bars(numbers: Mapping[str, float], *, whole: float | None = None, keep_zero: bool = False) -> list[Bar]:
    total = whole if whole is not None else sum(numbers.values())
    return [Bar(k, n, min(1.0, n / total) if total else 0.0) for k, n in numbers.items() if n or keep_zero]


def _problems(summary: Mapping[str, Any]) -> list[Problem]:
    known = set(ErrorCode)
    unknown = Advice("A code that this version does not know.", "Read the rows' error_detail.")
    return [
        Problem(
            code=code,
            items=n,
            share=n / summary["items"] if summary["items"] else 0.0,
            **(ADVICE[ErrorCode(code)] if code in known else unknown)._asdict(),
        )
        # What was skipped did not go wrong: last.
        for code, n in sorted(summary["errors"].items(), key=lambda pair: pair[0] == ErrorCode.NOT_MEDIA)
    ]


def _slowest(seconds: Mapping[str, float]) -> str | None:
    return max(seconds, key=lambda step: seconds[step]) if any(seconds.values()) else None


def _group_rows(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, list[Mapping[str, Any]], int]]:
    """(title, explanation, rows shown, rows given) of what was blocked, what a check sent to review, and the rest."""
    groups: dict[str, list[Mapping[str, Any]]] = {"blocked": [], "review": [], "errors": [], "unsure": []}
    for row in rows:
        if row.get("verdict") == Verdict.BLOCK:
            groups["blocked"].append(row)
        elif row.get("status") == Status.ERROR or row.get("error_code"):
            groups["errors"].append(row)
        elif row.get("verdict") == Verdict.REVIEW:
            groups["review" if row.get("check") else "unsure"].append(row)
    words = {
        "blocked": ("Blocked", "The highest scores first. A wrong one here costs the most: look at a few."),
        "review": ("Sent to review by a check", "The highest scores first."),
        "errors": ("Errors", "What could not be fetched, decoded whole, or scored. Never passed."),
        "unsure": ("Nobody vouched for", "No check objected, none recognised it as fine."),
    }
    return [(*words[name], _by_score(found)[:MOST_ROWS_A_GROUP], len(found)) for name, found in groups.items() if found]


def _by_score(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda r: -r["score"] if r.get("score") is not None else 0.0)


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def _percent(share: float) -> str:
    """A share that is not 0 never reads as 0%, one that is not all never as 100%."""
    if 0 < share < 0.001:
        return "< 0.1%"
    if 0.999 < share < 1:
        return "> 99.9%"
    return f"{share:.0%}" if share in (0.0, 1.0) else f"{share:.1%}"


def _size(value: float | None) -> str:
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.1 or seconds == 0 else f"{seconds * 1000:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _plain(value: object) -> str:
    """A stranger's text: bounded, one line, without characters that turn or hide what stands around them."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    half = _SHOWN_CHARS // 2
    # Names differ at their end as often as at their start: cut in the middle.
    return text if len(text) <= _SHOWN_CHARS else f"{text[:half]} … {text[-half:]}"
