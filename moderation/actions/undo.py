"""`moderation act --undo RUN`: what was done is taken back, as far as the object is still as we left it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from moderation import storage
from moderation.actions.effects import StepOutcome, guarded, refused
from moderation.actions.hand_over import HandOver
from moderation.actions.journal import ActionJournal, ActionReceipt, ActionState
from moderation.actions.manifests import rewrite_without
from moderation.actions.model import ActionsFile
from moderation.actions.read import is_within
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.results.after_layout import actions_folder
from moderation.storage.lease import hold_lease

_THREADS: Final = 16
_BATCH: Final = 256


@dataclass(slots=True, kw_only=True)
class UndoReport:
    """What came of it. counts: kind of action -> state or code -> receipts. reasons: code -> what it means."""

    receipts: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    unfinished: int = 0

    def add(self, receipt: ActionReceipt, outcome: StepOutcome) -> None:
        """Count a receipt."""
        name = receipt.action.partition("@")[0]
        what = str(outcome.state) if outcome.code is None else f"{outcome.state} ({outcome.code})"
        self.counts.setdefault(name, Counter())[what] += 1
        if outcome.state is not ActionState.UNDONE:
            self.unfinished += 1
            self.reasons.setdefault(outcome.code or "", outcome.detail or "")


def undo(
    out: str,
    run_id: str,
    actions: ActionsFile,
    secrets: Mapping[str, str],
    *,
    items: Collection[str] = (),
    dry_run: bool = False,
) -> UndoReport:
    """Take back what was done for a run, the last first. items: only of these, by id or URI; empty: of all.

    A tag gets the value that it had, a copy is removed, a moved object goes back, a manifest is written without the
    items, and a webhook's receiver is told. Objects that were changed since are left as they are, with a code.
    Raises UsageError where OUT has no receipts of the run or of an item.
    """
    if dry_run:
        report = UndoReport()
        chosen = _chosen(ActionJournal(out), out, run_id, items)
        report.receipts = len(chosen)
        for receipt in chosen:
            report.add(receipt, StepOutcome(state=ActionState.UNDONE))
        return report
    with hold_lease(actions_folder(out), job="`moderation act`"):
        journal = ActionJournal(out)
        hand_over = HandOver(actions.actions, secrets, journal)
        return _undo_all(_chosen(journal, out, run_id, items), actions, hand_over, journal)


def _chosen(journal: ActionJournal, out: str, run_id: str, items: Collection[str]) -> list[ActionReceipt]:
    """Receipts to take back, the last first."""
    every = journal.all_newest()
    of_run = [receipt for receipt in every if receipt.run_id == run_id]
    if not of_run:
        runs = sorted({receipt.run_id for receipt in every})
        raise UsageError(f"--undo {run_id}: {out} has no receipts of that run{did_you_mean(run_id, runs)}")
    wanted = set(items)
    known = {name for receipt in of_run for name in (receipt.item_id, receipt.uri)}
    for item in items:
        if item not in known:
            raise UsageError(f"--item {item}: nothing was done to it{did_you_mean(item, sorted(known))}")
    chosen = [r for r in of_run if not wanted or r.item_id in wanted or r.uri in wanted]
    return [receipt for receipt in reversed(chosen) if receipt.may_be_there]


def _undo_all(
    chosen: Sequence[ActionReceipt], actions: ActionsFile, hand_over: HandOver, journal: ActionJournal
) -> UndoReport:
    report = UndoReport(receipts=len(chosen))
    manifests = [receipt for receipt in chosen if receipt.do == "manifest"]
    others = [receipt for receipt in chosen if receipt.do != "manifest"]
    # The steps of an item one after the other: what was tagged, then moved, is moved back, then untagged.
    by_item: dict[str, list[ActionReceipt]] = {}
    for receipt in others:
        by_item.setdefault(receipt.item_id, []).append(receipt)
    groups = list(by_item.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(groups), _BATCH):
            outcomes = pool.map(partial(_undo_item, actions, hand_over), groups[start : start + _BATCH])
            _note([pair for own in outcomes for pair in own], journal, report)
    _note(_undo_manifests(manifests, actions), journal, report)
    return report


def _note(pairs: Sequence[tuple[ActionReceipt, StepOutcome]], journal: ActionJournal, report: UndoReport) -> None:
    now = datetime.now(UTC)
    undone = [pair for pair in pairs if pair[1].state is ActionState.UNDONE]
    # What could not be taken back stays done in the receipts: the same call may try again.
    journal.append(replace(receipt, state=ActionState.UNDONE, code=None, detail=None, at=now) for receipt, _ in undone)
    for receipt, outcome in pairs:
        report.add(receipt, outcome)


def _undo_item(
    actions: ActionsFile, hand_over: HandOver, own: Sequence[ActionReceipt]
) -> list[tuple[ActionReceipt, StepOutcome]]:
    pairs: list[tuple[ActionReceipt, StepOutcome]] = []
    held: set[str | None] = set()  # where what was moved, and could not go back, still lies
    for receipt in own:
        if receipt.do == "copy" and receipt.target in held:
            outcome = refused("moved", "it is all that is left of the object, which could not be moved back")
        else:
            outcome = _undo_one(receipt, actions, hand_over)
        if receipt.do == "move" and outcome.state is not ActionState.UNDONE:
            held.add(receipt.target)
        pairs.append((receipt, outcome))
    return pairs


def _undo_one(receipt: ActionReceipt, actions: ActionsFile, hand_over: HandOver) -> StepOutcome:
    if receipt.do == "webhook":
        told = hand_over.take_back(receipt)
        if told is None or told.state is not ActionState.DONE:
            return told or StepOutcome(state=ActionState.FAILED, code="left", detail="its action was stopped")
        return replace(told, state=ActionState.UNDONE)
    if not is_within(receipt.uri, actions.objects):
        return refused("not_allowed", "it is not within `objects` of the actions file")
    if receipt.target is not None and not is_within(receipt.target, actions.destinations):
        return refused("not_allowed", "its copy is not within `destinations` of the actions file")
    return guarded(partial({"tag": _untag, "copy": _uncopy, "move": _move_back}[receipt.do], receipt))


def _untag(receipt: ActionReceipt) -> StepOutcome:
    there = storage.read_tags(receipt.uri)
    ours = {name for name, value in receipt.tags_set.items() if there.get(name) == value}
    left = {name: value for name, value in there.items() if name not in ours}
    left |= {name: value for name, value in receipt.tags_before.items() if name in ours}
    if left != there:
        storage.write_tags(receipt.uri, left)
    return StepOutcome(state=ActionState.UNDONE)


def _uncopy(receipt: ActionReceipt) -> StepOutcome:
    assert receipt.target is not None
    try:
        current = storage.info(receipt.target).etag
    except FileNotFoundError:
        return StepOutcome(state=ActionState.UNDONE)
    if receipt.target_etag is not None and current != receipt.target_etag:
        return refused("changed", f"its copy was made as version {receipt.target_etag}, is {current} now")
    storage.delete_object(receipt.target)
    return StepOutcome(state=ActionState.UNDONE)


def _move_back(receipt: ActionReceipt) -> StepOutcome:
    assert receipt.target is not None
    try:
        storage.info(receipt.uri)
    except FileNotFoundError:
        storage.copy_object(receipt.target, receipt.uri, etag=receipt.target_etag)
        storage.delete_object(receipt.target)
        return StepOutcome(state=ActionState.UNDONE)
    if receipt.state is not ActionState.DONE:
        return _uncopy(receipt)  # killed or failed before the object was removed
    return refused("occupied", "another object lies at its place by now")


def _undo_manifests(receipts: Sequence[ActionReceipt], actions: ActionsFile) -> list[tuple[ActionReceipt, StepOutcome]]:
    pairs: list[tuple[ActionReceipt, StepOutcome]] = []
    for target in sorted({str(receipt.target) for receipt in receipts}):
        own = [receipt for receipt in receipts if receipt.target == target]
        if is_within(target, actions.destinations):
            rewrite_without(target, {(receipt.run_id, receipt.item_id) for receipt in own})
            outcome = StepOutcome(state=ActionState.UNDONE)
        else:
            outcome = refused("not_allowed", "the manifest is not within `destinations` of the actions file")
        pairs += [(receipt, outcome) for receipt in own]
    return pairs
