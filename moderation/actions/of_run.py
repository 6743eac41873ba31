"""An OUT, or the folder of a sweep, and an actions file -> what is done: all is read and checked before any work."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from moderation import storage
from moderation.actions.act import ActOptions, ActReport, act, preview_actions, read_certification
from moderation.actions.model import ActionsFile
from moderation.actions.read import check_against_policy, read_actions
from moderation.actions.rows import JudgedRow, read_judged_rows
from moderation.actions.steps import certified_today
from moderation.actions.sweep_rows import certified_of, check_against_sweep, read_swept_rows
from moderation.actions.undo import UndoReport, undo
from moderation.errors import UsageError
from moderation.results.layout import summary_uri
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.swept import SweptRecord, read_swept_record


@dataclass(frozen=True, slots=True, kw_only=True)
class ActedRun:
    """What came of a call. run_id: of the run or the sweep; what `--undo` takes."""

    run_id: str
    report: ActReport


def act_on_run(out: str, actions_path: str, options: ActOptions, *, dry_run: bool = False) -> ActedRun:
    """Do what an actions file says of a run's rows. Raises UsageError before any work, FatalError."""
    actions = read_actions(Path(actions_path))
    swept = read_swept_record(out)
    if swept is not None:
        check_against_sweep(actions, swept, actions_path)
        return _act_on_sweep(out, swept, actions, options, dry_run=dry_run)
    run = open_run(out)
    if any(rule.when.check or rule.when.severity for rule in actions.actions):
        check_against_policy(actions, load_policy_of_run(run), Path(actions_path))
    certified = certified_today(read_certification(storage.read_optional(summary_uri(out))), datetime.now(UTC).date())
    rows = partial(_rows_of, run)
    if dry_run:
        return ActedRun(run_id=run.run_id, report=preview_actions(out, rows(), actions, certified, options))
    report = act(out, rows, actions, certified, options, _secrets(actions))
    return ActedRun(run_id=run.run_id, report=report)


def _act_on_sweep(
    home: str, swept: SweptRecord, actions: ActionsFile, options: ActOptions, *, dry_run: bool
) -> ActedRun:
    rows = partial(read_swept_rows, home, swept)
    certified = certified_of(swept, datetime.now(UTC).date())
    if dry_run:
        return ActedRun(run_id=swept.sweep_id, report=preview_actions(home, rows(), actions, certified, options))
    report = act(home, rows, actions, certified, options, _secrets(actions))
    return ActedRun(run_id=swept.sweep_id, report=report)


def undo_run(
    out: str, actions_path: str, run_id: str, *, items: Collection[str] = (), dry_run: bool = False
) -> UndoReport:
    """Take back what was done for a run. Raises UsageError before any work, FatalError."""
    actions = read_actions(Path(actions_path))
    if not storage.is_folder(out):
        raise UsageError(f"{out}: no such output")
    return undo(out, run_id, actions, _secrets(actions), items=items, dry_run=dry_run)


def _rows_of(run: StoredRun) -> Iterable[Sequence[JudgedRow]]:
    return read_judged_rows(run)


def _secrets(actions: ActionsFile) -> dict[str, str]:
    names = {rule.secret_env for rule in actions.actions if rule.secret_env is not None}
    return {name: os.environ[name] for name in names}
