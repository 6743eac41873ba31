"""Which night a call runs: the unfinished one of an earlier call of the same kind, or a new one."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.errors import FatalError
from moderation.ledger.difference import Choice
from moderation.ledger.store import is_entered, open_log
from moderation.pages.text import span
from moderation.runtime.run import Run
from moderation.sources import source_type

_STAMP = "%Y%m%d-%H%M%S"
_NIGHT_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9A-Za-z]{1,32}")
# Hosts' clocks differ by less: a night whose id is further ahead is refused.
MAX_CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRun:
    """One night: its id (time of its start, and a hash), and whether an earlier call began it."""

    night_id: str
    resumed: bool

    @property
    def began_at(self) -> datetime:
        """When it was begun, by its id, so that a resumed night keeps its time."""
        return datetime.strptime(self.night_id.rpartition("-")[0], _STAMP).replace(tzinfo=UTC)


def begin_night(base: Run, ledger: str, choice: Choice, note: Callable[[str], None]) -> NightRun:
    """The unfinished night of an earlier call of the same kind, or a new one."""
    uri = storage.join(ledger, "unfinished.json")
    call = {"out": base.out, "identity": canonical_json(base.identity), "choice": asdict(choice)}
    unfinished = _read_unfinished(uri, call)
    if unfinished is not None and not is_entered(ledger, unfinished.night.night_id):
        if unfinished.call == call:
            return unfinished.night
        # Nothing is lost: what it did not enter in the ledger is still new tonight.
        note(
            f"night {unfinished.night.night_id} in {unfinished.call['out']} was left unfinished by another call;"
            " tonight begins anew"
        )
    now = _time_of_night(ledger, note)
    # Microseconds first: of two nights in one second the later one sorts after the earlier, in OUT and in the ledger.
    tail = f"{now.microsecond:05x}{secrets.token_hex(1)[0]}"
    night = NightRun(night_id=f"{now.strftime(_STAMP)}-{tail}", resumed=False)
    storage.publish(uri, json.dumps({"night": night.night_id, **call}, indent=1).encode())
    return night


def _time_of_night(ledger: str, note: Callable[[str], None]) -> datetime:
    """When tonight begins: now, or just after the newest night of the ledger where the clock is behind that.

    Rows of a night with a later id count as newer: those of an earlier one would be judged for nothing. Raises
    FatalError where the clock is over a day behind: rows would be dated, and lists end, by a time that is wrong.
    """
    now = datetime.now(UTC)
    nights = [name for name in open_log(ledger).batches if _NIGHT_ID.fullmatch(name)]
    newest = max(filter(None, map(_time_in, nights)), default=now)
    if newest <= now:
        return now
    ahead = span((newest - now).total_seconds())
    if newest > now + MAX_CLOCK_SKEW:
        raise FatalError(
            f"{ledger}: its newest night, {max(nights)}, is {ahead} ahead of this machine's clock, and would count as"
            " newer than tonight. Set the clock (UTC); if it is right, go on with another LEDGER"
        )
    note(f"this machine's clock is {ahead} behind the newest night of the ledger: tonight is dated after that")
    return newest + timedelta(seconds=1)


def _time_in(night_id: str) -> datetime | None:
    """When a night of this id was begun; None where the id holds no time."""
    with suppress(ValueError):
        return NightRun(night_id=night_id, resumed=True).began_at
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unfinished:
    """A night that an earlier call began. call: what must be the same in a call that finishes it."""

    night: NightRun
    call: Mapping[str, Any]


def _read_unfinished(uri: str, call: Mapping[str, Any]) -> _Unfinished | None:
    """The night that an earlier call left at `uri`; its `call` has the keys of this one."""
    data = storage.read_optional(uri)
    if data is None:
        return None
    try:
        record = json.loads(data)
        earlier_call = {name: record[name] for name in call}
        night = NightRun(night_id=str(record["night"]), resumed=True)
        # The id becomes a folder's name and the time of all rows.
        if not _NIGHT_ID.fullmatch(night.night_id) or night.began_at > datetime.now(UTC) + MAX_CLOCK_SKEW:
            raise ValueError(f"no night has the id {night.night_id[:100]!r}")
        return _Unfinished(night=night, call=earlier_call)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FatalError(f"{uri} is not readable: {error}; delete it to begin a new night") from error


def settle_choice(choice: Choice, source: str, config: Config) -> Choice:
    """A choice without defaults: copies are judged unless the store itself vouches for the content.

    For a prefix the etags of the listing do; what a manifest, a tar or a table says of content is its author's claim.
    """
    if choice.judge_copies is not None:
        return choice
    try:
        claimed = source_type(source, config.source) != "prefix"
    except OSError:
        claimed = True  # missing or not readable: opening it will report that
    return replace(choice, judge_copies=claimed)
