"""Manifests of actions: one file of JSON lines per action, written whole, so that a rerun gives the same file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from moderation import storage
from moderation.actions.effects import StepOutcome, receipt_of, refused
from moderation.actions.hand_over import describe_row
from moderation.actions.journal import ActionJournal, ActionReceipt, ActionState
from moderation.actions.model import ActionRule, ActionsFile
from moderation.actions.rows import JudgedRow
from moderation.actions.steps import ActionStep, CertifiedToday, plan_steps
from moderation.results.export.plain import json_line

_CHUNK: Final = 4096  # receipts in a part


def write_manifests(
    rows: Iterable[Sequence[JudgedRow]],
    actions: ActionsFile,
    certified: CertifiedToday,
    again: bool,
    journal: ActionJournal,
    count: Callable[[ActionStep, StepOutcome], None],
) -> None:
    """Write each manifest that has a new row, with all rows of its action; then their receipts.

    What was undone is left out unless `again`. Raises FatalError, StorageError.
    """
    rules = [rule for rule in actions.actions if rule.do == "manifest"]
    if not rules:
        return
    steps: dict[str, list[ActionStep]] = {rule.name: [] for rule in rules}
    for step in _manifest_steps(rows, actions, certified):
        steps[step.rule.name].append(step)
    for rule in rules:
        _write_manifest(rule, steps[rule.name], again, journal, count)


def _manifest_steps(
    rows: Iterable[Sequence[JudgedRow]], actions: ActionsFile, certified: CertifiedToday
) -> Iterator[ActionStep]:
    for part in rows:
        for row in part:
            yield from (step for step in plan_steps(row, actions, certified) if step.rule.do == "manifest")


def _write_manifest(
    rule: ActionRule,
    steps: Sequence[ActionStep],
    again: bool,
    journal: ActionJournal,
    count: Callable[[ActionStep, StepOutcome], None],
) -> None:
    assert rule.to is not None
    newest = {step.key: journal.newest(step.key) for step in steps}
    kept = [step for step in steps if step.refusal is None and (again or not _is_undone(newest[step.key]))]
    fresh = [step for step in kept if not _is_done(newest[step.key])]
    against = [(step, refused(*step.refusal)) for step in steps if step.refusal is not None]
    if fresh:
        with storage.open_output(rule.to) as file:
            for step in kept:
                file.write(json_line(describe_row(step.row, rule.name)))
    outcomes = [*against, *((step, StepOutcome(state=ActionState.DONE)) for step in fresh)]
    now = datetime.now(UTC)
    for start in range(0, len(outcomes), _CHUNK):
        chunk = outcomes[start : start + _CHUNK]
        journal.append(receipt_of(step, outcome, now) for step, outcome in chunk)
    for step, outcome in outcomes:
        count(step, outcome)


def _is_done(receipt: ActionReceipt | None) -> bool:
    return receipt is not None and receipt.state is ActionState.DONE


def _is_undone(receipt: ActionReceipt | None) -> bool:
    return receipt is not None and receipt.state is ActionState.UNDONE


def rewrite_without(target: str, gone: set[str]) -> None:
    """Write a manifest again without the items of these ids. Raises FatalError, StorageError."""
    lines = (storage.read_optional(target) or b"").splitlines(keepends=True)
    with storage.open_output(target) as file:
        for line in lines:
            if json.loads(line)["item_id"] not in gone:
                file.write(line)
