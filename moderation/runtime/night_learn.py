"""What a night learns from reviewers: lists before it judges, and a sweep of the ledger after it.

A night that cannot learn goes on with the lists that are there, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moderation import storage
from moderation.analysis.learn import LearnedLists, LearnRules, learn_lists
from moderation.analysis.learn_sweep import sweep_night
from moderation.config.model import Config
from moderation.errors import ModerationError, UsageError, one_line
from moderation.ledger.nights import unfinished_night
from moderation.lists.learned import check_learned_name


@dataclass(frozen=True, slots=True, kw_only=True)
class NightLearning:
    """What a night has learned. lists: None: nothing was asked for, or it failed. note: in words; "": nothing."""

    lists: LearnedLists | None = None
    note: str = ""

    def facts(self) -> dict[str, Any] | None:
        """For `summary.json`; None where nothing was asked for."""
        if self.lists is None:
            return {"note": self.note} if self.note else None
        told = self.lists
        return {"to": told.to, "entries": told.entries, "added": len(told.added), "removed": len(told.removed)}


def learn_before_night(
    out: str, ledger: str, config: Config, note: Callable[[str], None], *, most: int = 500
) -> NightLearning:
    """Write the lists that `learn.to` names from all decisions so far, before the policy is read.

    An unfinished night goes on with the lists that it began with: others would make another policy, and the night new.
    Raises UsageError for a name that no list can have.
    """
    learn = config.learn
    if learn.to is None:
        return NightLearning()
    try:
        check_learned_name(learn.to)
    except UsageError as error:
        raise UsageError(f"learn.to: {error}") from error  # every night would learn nothing
    night = unfinished_night(ledger)
    if night is not None:
        return _failed(f"nothing was learned: night {night} goes on with the lists that it began with", note)
    rules = LearnRules(near=learn.near, near_pass=learn.near_pass, days=learn.days)
    homes = [home for home in (out, *learn.decisions) if home != out or storage.list_names(home)]
    try:
        lists = learn_lists(homes, storage.canonical(learn.to), rules, today=datetime.now(UTC).date())
    except (ModerationError, OSError) as error:
        return _failed(f"nothing was learned, so the lists are those of before: {one_line(error, most)}", note)
    note(f"learned lists: {lists.entries:,} entries, {len(lists.added):,} new, {len(lists.removed):,} taken out")
    return NightLearning(lists=lists)


def _failed(why: str, note: Callable[[str], None]) -> NightLearning:
    note(why)
    return NightLearning(note=why)


def sweep_after_night(
    learning: NightLearning, out: str, ledger: str, night: str, config: Config, note: Callable[[str], None]
) -> None:
    """Apply to the ledger what decisions say that no night before has applied."""
    if learning.lists is None or not config.learn.sweep:
        return
    today = datetime.now(UTC).date()
    try:
        swept = sweep_night(learning.lists, out, ledger, night, near=config.learn.near, as_of=today)
    except (ModerationError, OSError) as error:
        note(f"new decisions were not applied to earlier nights; the next night tries again: {one_line(error, 500)}")
        return
    if swept is not None:
        note(f"new decisions change {swept.changed:,} of {swept.items:,} stored verdicts: {swept.to}/changes/")
