"""`moderation act`: what an actions file says is done to the objects of a run, each once, with a receipt.

The order for a batch of rows: look at each object, write down what is intended, do it, write down what came of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from moderation.actions.effects import (
    StepOutcome,
    keep_begun,
    perform,
    prepare,
    receipt_of,
    refused,
    tag_where_moved,
)
from moderation.actions.hand_over import HandOver
from moderation.actions.journal import ActionJournal, ActionState, ReceiptKey, is_open
from moderation.actions.manifests import write_manifests
from moderation.actions.model import ActionsFile
from moderation.actions.rows import JudgedRow
from moderation.actions.steps import ON_OBJECTS, ActionStep, CertifiedToday, plan_steps
from moderation.results.after_layout import actions_folder
from moderation.storage.lease import hold_lease

_BATCH: Final = 256  # rows between two receipts
_THREADS: Final = 16
_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ActOptions:
    """again: what was undone is done again. uncertified: also what rests on a certificate that has ended."""

    again: bool = False
    uncertified: bool = False

    def holding(self, certified: CertifiedToday) -> CertifiedToday:
        """What counts of the certificates."""
        return CertifiedToday() if self.uncertified else certified


@dataclass(slots=True, kw_only=True)
class ActReport:
    """What came of it. counts: action -> state or code -> steps. skipped: done by an earlier call, or undone.

    examples: action -> URIs of steps that were done or, of a dry run, would be. reasons: code -> what it means.
    """

    rows: int = 0
    escalated: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()

    def add(self, step: ActionStep, outcome: StepOutcome) -> None:
        """Count a step."""
        name = step.rule.name
        what = str(outcome.state) if outcome.code is None else f"{outcome.state} ({outcome.code})"
        self.counts.setdefault(name, Counter())[what] += 1
        if outcome.code is not None:
            self.reasons.setdefault(outcome.code, outcome.detail or "")
        elif len(self.examples.setdefault(name, [])) < _EXAMPLES:
            self.examples[name].append(step.uri)

    @property
    def unfinished(self) -> int:
        """Steps that were refused or failed."""
        return sum(n for counts in self.counts.values() for what, n in counts.items() if what.endswith(")"))


def preview_actions(
    out: str,
    rows: Iterable[Sequence[JudgedRow]],
    actions: ActionsFile,
    certified: CertifiedToday,
    options: ActOptions,
) -> ActReport:
    """What a call would do, as far as tables say it: nothing is written, no object is looked at."""
    journal = ActionJournal(out)
    report = ActReport()
    for step in _open_steps(rows, actions, certified, options, journal, report):
        report.add(step, StepOutcome(state=ActionState.INTENDED) if step.refusal is None else refused(*step.refusal))
    return report


def act(
    out: str,
    rows: Callable[[], Iterable[Sequence[JudgedRow]]],
    actions: ActionsFile,
    certified: CertifiedToday,
    options: ActOptions,
    secrets: Mapping[str, str],
) -> ActReport:
    """Do what is still to do. rows: of the run, read once, and once more for manifests.

    secrets: of webhooks, by the variable's name. Raises FatalError where OUT cannot be written or a store is down:
    the same call goes on.
    """
    report = ActReport()
    with hold_lease(actions_folder(out), job="`moderation act`") as lease, ThreadPoolExecutor(_THREADS) as pool:
        journal = ActionJournal(out)
        hand_over = HandOver(actions.actions, secrets, journal)
        steps = _open_steps(rows(), actions, certified, options, journal, report)
        for batch in _batches(steps):
            lease.check()
            _do_batch(_still_open(batch, options, journal, report), journal, hand_over, pool, report)
        write_manifests(rows(), actions, options.holding(certified), options.again, journal, report.add)
        report.stopped = hand_over.stopped()
    return report


def _open_steps(
    rows: Iterable[Sequence[JudgedRow]],
    actions: ActionsFile,
    certified: CertifiedToday,
    options: ActOptions,
    journal: ActionJournal,
    report: ActReport,
) -> Iterator[ActionStep]:
    """Steps that no receipt says are done."""
    for part in rows:
        for row in part:
            report.rows += 1
            report.escalated += row.is_escalated
            for step in plan_steps(row, actions, options.holding(certified)):
                if is_open(journal.newest(step.key), options.again):
                    yield step
                else:
                    report.skipped[step.rule.name] += 1


def _still_open(
    batch: Sequence[ActionStep], options: ActOptions, journal: ActionJournal, report: ActReport
) -> list[ActionStep]:
    """Looked at again: the batch before may have done the same."""
    still = [step for step in batch if is_open(journal.newest(step.key), options.again)]
    still_keys = {step.key for step in still}
    report.skipped.update(step.rule.name for step in batch if step.key not in still_keys)
    return still


def _batches(steps: Iterator[ActionStep]) -> Iterator[list[ActionStep]]:
    """A key stands once in a batch: a sweep of several runs may name one object twice."""
    batch: dict[ReceiptKey, ActionStep] = {}
    last = None
    for step in steps:
        if step.rule.do == "manifest":
            continue
        if (len(batch) >= _BATCH and step.row.item_id != last) or step.key in batch:
            yield list(batch.values())
            batch = {}
        batch[step.key] = step
        last = step.row.item_id
    if batch:
        yield list(batch.values())


def _do_batch(
    batch: Sequence[ActionStep],
    journal: ActionJournal,
    hand_over: HandOver,
    pool: ThreadPoolExecutor,
    report: ActReport,
) -> None:
    looked_at = list(pool.map(lambda step: _look(step, journal), batch))
    prepared = list(_after_moves(batch, looked_at, journal))
    now = datetime.now(UTC)
    journal.append(receipt_of(step, outcome, now) for step, outcome in zip(batch, prepared, strict=True))
    to_do = [pair for pair in zip(batch, prepared, strict=True) if pair[1].state is ActionState.INTENDED]
    # The steps of an item in the order of the file; items side by side.
    by_item = [list(own) for _, own in groupby(to_do, key=lambda pair: pair[0].row.item_id)]
    done = [outcome for own in pool.map(lambda own: _do_item(own, hand_over), by_item) for outcome in own]
    now = datetime.now(UTC)
    journal.append(receipt_of(step, outcome, now) for step, outcome in done if outcome is not None)
    for step, outcome in done:
        report.add(step, outcome or StepOutcome(state=ActionState.FAILED, code="left", detail="its action was stopped"))
    for step, outcome in zip(batch, prepared, strict=True):
        if outcome.state is not ActionState.INTENDED:
            report.add(step, outcome)


def _after_moves(
    batch: Sequence[ActionStep], looked_at: Sequence[StepOutcome], journal: ActionJournal
) -> Iterator[StepOutcome]:
    """The outcomes; objects that a killed call has moved are tagged where they are now. Steps of an item: one batch."""
    moved = {
        (step.row.item_id, step.uri): step.target
        for step, outcome in zip(batch, looked_at, strict=True)
        if step.rule.do == "move" and outcome.state is ActionState.DONE
    }
    for step, outcome in zip(batch, looked_at, strict=True):
        target, before = moved.get((step.row.item_id, step.uri)), journal.newest(step.key)
        if step.rule.do == "tag" and outcome.code == "not_found" and target is not None and before is not None:
            yield tag_where_moved(step, before, target)
        else:
            yield outcome


def _look(step: ActionStep, journal: ActionJournal) -> StepOutcome:
    before = journal.newest(step.key)
    if step.refusal is not None:
        return keep_begun(refused(*step.refusal), before)
    if step.rule.do not in ON_OBJECTS:
        return StepOutcome(state=ActionState.INTENDED)
    return prepare(step, before)


def _do_item(
    own: Sequence[tuple[ActionStep, StepOutcome]], hand_over: HandOver
) -> list[tuple[ActionStep, StepOutcome | None]]:
    return [(step, perform(step, found) if step.rule.do in ON_OBJECTS else hand_over.send(step)) for step, found in own]


def read_certification(summary: bytes | None) -> Mapping[str, Any] | None:
    """What `summary.json` says of certificates; None where it says nothing."""
    try:
        facts = json.loads(summary or b"{}")
    except ValueError:
        return None
    said = facts.get("certificates") if isinstance(facts, dict) else None
    return said if isinstance(said, dict) else None
