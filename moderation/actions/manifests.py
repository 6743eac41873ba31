"""Manifests of actions: one file of JSON lines per action. Lines of other runs in it stay, before those of this one.

The lines of a run are written whole, so that a rerun gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from moderation import storage
from moderation.actions.effects import StepOutcome, receipt_of, refused
from moderation.actions.hand_over import describe_row
from moderation.actions.journal import ActionJournal, ActionReceipt, ActionState, is_open
from moderation.actions.model import ActionRule, ActionsFile
from moderation.actions.rows import JudgedRow
from moderation.actions.steps import ActionStep, CertifiedToday, plan_steps
from moderation.errors import FatalError
from moderation.results.export.plain import json_line

_CHUNK: Final = 4096  # receipts in a part
_PIECE_BYTES: Final = 1 << 20


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
    done = {step.key for step in steps if _is_done(journal.newest(step.key))}
    still = [step for step in steps if step.key not in done and is_open(journal.newest(step.key), again)]
    against = [(step, refused(*step.refusal)) for step in still if step.refusal is not None]
    fresh = [step for step in still if step.refusal is None]
    if fresh:
        # What is done stays in the file: a certificate that has ended since takes nothing back.
        kept = done | {step.key for step in fresh}
        own = {step.row.run_id for step in steps}
        lines = (json_line(describe_row(step.row, rule.name)) for step in steps if step.key in kept)
        _rewrite(rule.to, lambda run_id, _: run_id not in own, lines)
    outcomes = [*against, *((step, StepOutcome(state=ActionState.DONE)) for step in fresh)]
    now = datetime.now(UTC)
    for start in range(0, len(outcomes), _CHUNK):
        chunk = outcomes[start : start + _CHUNK]
        journal.append(receipt_of(step, outcome, now) for step, outcome in chunk)
    for step, outcome in outcomes:
        count(step, outcome)


def _is_done(receipt: ActionReceipt | None) -> bool:
    return receipt is not None and receipt.state is ActionState.DONE


def rewrite_without(target: str, gone: Collection[tuple[str, str]]) -> None:
    """Write a manifest again without these items, of a run and an id each. Raises FatalError, StorageError."""
    _rewrite(target, lambda run_id, item_id: (run_id, item_id) not in gone)


def _rewrite(target: str, stays: Callable[[str, str], bool], added: Iterable[bytes] = ()) -> None:
    """Write a file again with those of its lines that stay, by run and item, and then the new ones."""
    with storage.open_output(target) as file:
        for line in _lines(target):
            try:
                row = json.loads(line)
                is_left = stays(row["run_id"], row["item_id"])
            except (ValueError, TypeError, KeyError) as error:
                raise FatalError(f"{target}: has other lines than those of a manifest; name another file") from error
            if is_left:
                file.write(line + b"\n")
        file.writelines(added)


def _lines(target: str) -> Iterator[bytes]:
    """The lines of a file, if there is one, without their ends; in memory is one piece."""
    rest = b""
    try:
        with storage.open_input(target) as file:
            while piece := file.read(_PIECE_BYTES):
                *whole, rest = (rest + piece).split(b"\n")
                yield from filter(None, whole)
                if len(rest) > _PIECE_BYTES:
                    raise FatalError(f"{target}: has a line of over {_PIECE_BYTES:,} bytes; it is no manifest")
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise FatalError(f"{target}: may not be read, and the lines of other runs in it are to stay") from error
    if rest:
        yield rest
