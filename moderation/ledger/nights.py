"""What became of the nights: by their folders below OUT, or by what a ledger knows; and what to do next.

Nights on which nothing was new leave a line in OUT/quiet.jsonl, and no folder.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import ModerationError
from moderation.ledger.store import open_log
from moderation.results.layout import QUIET_FILE, summary_uri
from moderation.results.record import read_record
from moderation.storage.claims import describe, find_holder, read_claims

NIGHT_ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9A-Za-z]{1,32}")
UNFINISHED_FILE: Final = "unfinished.json"
# Four years of quiet nights; the oldest lines go first.
MAX_QUIET: Final = 1500
_READERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class NightStatus:
    """One night. state: running, partial, done, failed or quiet. counts: new, changed, deleted, unchanged, ..."""

    night: str
    state: str
    out: str | None
    items: int = 0
    verdicts: Mapping[str, int] | None = None
    error_rate: float | None = None
    counts: Mapping[str, int] | None = None
    error: str | None = None
    ledger: str | None = None
    items_per_s: float | None = None
    cost_per_million: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NightsStatus:
    """The nights of a root, or of a ledger; the newest last. nights_total: with those that are not told.

    ledger: which one, where it is known. ledger_rows: of a ledger. unfinished: the night that an interrupted call left.
    advice: what to do next.
    """

    uri: str
    nights_total: int
    nights: tuple[NightStatus, ...]
    ledger: str | None
    ledger_rows: int | None
    unfinished: str | None
    advice: str


def read_nights(uri: str, *, most: int = 14, ask_lease: bool = False) -> NightsStatus | None:
    """The newest nights below a nightly OUT, or of a ledger; None where `uri` is neither. Reads only.

    ask_lease: whether the advice says if a job is at work now, by the lease on the ledger.
    """
    uri = storage.canonical(uri).rstrip("/")
    names = storage.list_names(uri)
    if {"head.json", "entries", UNFINISHED_FILE} & set(names):
        return _with_holder(_nights_of_ledger(uri, most)) if ask_lease else _nights_of_ledger(uri, most)
    if any(NIGHT_ID.fullmatch(name) for name in names) or QUIET_FILE in names:
        return _with_holder(_nights_of_root(uri, names, most)) if ask_lease else _nights_of_root(uri, names, most)
    return None


def _with_holder(status: NightsStatus) -> NightsStatus:
    """With the advice of the lease: a night that is being judged needs no other call, one whose job died does."""
    if status.ledger is None or not any(n.state in ("running", "unfinished") for n in status.nights):
        return status
    try:
        holder = find_holder(read_claims(status.ledger))
    except (ModerationError, OSError):
        return status  # whoever asks may not read the ledger
    night = status.unfinished or status.nights[-1].night
    if holder is not None:
        return replace(status, advice=f"night {night} is being judged by {describe(holder)}")
    if status.nights[-1].state == "running":
        died = f"night {night} says that it runs, but no job holds the lease on {status.ledger}: its job has died;"
        return replace(status, advice=f"{died} the same `moderation nightly` goes on with it, then does tonight's")
    return status


def _nights_of_root(root: str, names: Sequence[str], most: int) -> NightsStatus:
    quiet = {str(line.get("night")): line for line in read_quiet(root)}
    ids = sorted({name for name in names if NIGHT_ID.fullmatch(name)} | quiet.keys())
    shown = ids[-most:]
    with ThreadPoolExecutor(_READERS) as pool:
        nights = tuple(pool.map(lambda night: _read_night(root, night, quiet.get(night)), shown))
    ledger = next((night.ledger for night in reversed(nights) if night.ledger), None)
    unfinished = _unfinished(ledger) if ledger else None
    return NightsStatus(
        uri=root,
        nights_total=len(ids),
        nights=nights,
        ledger=ledger,
        ledger_rows=None,
        unfinished=unfinished,
        advice=_advise(nights, unfinished),
    )


def _nights_of_ledger(ledger: str, most: int) -> NightsStatus:
    log = open_log(ledger)
    entered = sorted({*log.batches, *log.compacted})
    nights = tuple(NightStatus(night=night, state="done", out=None) for night in entered[-most:])
    unfinished = _unfinished(ledger)
    if unfinished is not None and unfinished not in entered:
        nights = (*nights, NightStatus(night=unfinished, state="unfinished", out=_unfinished_out(ledger)))
    return NightsStatus(
        uri=ledger,
        nights_total=len(entered),
        nights=nights,
        ledger=ledger,
        ledger_rows=log.rows,
        unfinished=unfinished if unfinished not in entered else None,
        advice=_advise(nights, unfinished if unfinished not in entered else None),
    )


def _read_night(root: str, night: str, quiet: Mapping[str, Any] | None) -> NightStatus:
    out = storage.join(root, night)
    if quiet is not None:
        return NightStatus(night=night, state="quiet", out=None, counts=_counts(quiet), ledger=_ledger_of(quiet))
    record = read_record(out) or {}
    data = storage.read_optional(summary_uri(out))
    summary = _as_object(data)
    error = record.get("error")
    return NightStatus(
        night=night,
        state=str(record.get("state") or "not begun"),
        out=out,
        items=_count(summary.get("items")),
        verdicts={str(name): _count(n) for name, n in _as_table(summary.get("verdicts")).items()} or None,
        error_rate=_number(summary.get("error_rate")),
        counts=_counts(_as_table(summary.get("nightly"))) or None,
        # Until a night has ended, only its record knows.
        ledger=_ledger_of(_as_table(summary.get("nightly")) or _as_table(record.get("identity"))),
        error=None if error is None else str(error),
        items_per_s=_number(summary.get("items_per_s")),
        cost_per_million=_number(_as_table(summary.get("cost")).get("per_million_items")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _as_table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


_COUNTS: Final = ("looked_at", "new", "changed", "retried", "rejudged", "returned", "unchanged", "deleted")


def _counts(told: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(told[name]) for name in _COUNTS if isinstance(told.get(name), int)}


def _ledger_of(told: Mapping[str, Any]) -> str | None:
    return told["ledger"] if isinstance(told.get("ledger"), str) else None


def _advise(nights: Sequence[NightStatus], unfinished: str | None) -> str:
    """What to do next, in a sentence."""
    if unfinished is not None:
        return f"night {unfinished} is not finished: the same `moderation nightly` goes on with it, then does tonight's"
    if not nights:
        return "no night has begun: `moderation nightly SOURCE --ledger ... --out ...`"
    last = nights[-1]
    if last.state == "running":
        return f"night {last.night} runs: `moderation status {last.out}`"
    if last.state in ("failed", "partial", "not begun"):
        return f"night {last.night} is {last.state}: the same `moderation nightly` goes on with it"
    return "nothing to do: the newest night is done"


def _unfinished(ledger: str) -> str | None:
    night = _as_object(storage.read_optional(storage.join(ledger, UNFINISHED_FILE))).get("night")
    return str(night) if isinstance(night, str) and NIGHT_ID.fullmatch(night) else None


def unfinished_night(ledger: str) -> str | None:
    """The night that an interrupted call left, and that is not in the ledger."""
    night = _unfinished(ledger)
    log = open_log(ledger)
    return None if night is None or night in log.batches or night in log.compacted else night


def _unfinished_out(ledger: str) -> str | None:
    record = _as_object(storage.read_optional(storage.join(ledger, UNFINISHED_FILE)))
    return f"{record['out']}/{record['night']}" if isinstance(record.get("out"), str) else None


def _as_object(data: bytes | None) -> dict[str, Any]:
    try:
        value = {} if data is None else parse_json(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_quiet(root: str) -> list[dict[str, Any]]:
    """The lines of quiet nights, the oldest first; what is not one of ours is left out."""
    data = storage.read_optional(storage.join(root, QUIET_FILE)) or b""
    lines = [_as_object(line) for line in data.splitlines()]
    return [line for line in lines if NIGHT_ID.fullmatch(str(line.get("night")))]


def note_quiet(root: str, night: str, facts: Mapping[str, Any]) -> None:
    """Add the line of a quiet night; one night has one line. Only the holder of the ledger's lease may call this."""
    lines = [line for line in read_quiet(root) if line["night"] != night]
    lines = [*lines, {"night": night, **facts}][-MAX_QUIET:]
    text = "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines)
    storage.publish(storage.join(root, QUIET_FILE), text.encode())
