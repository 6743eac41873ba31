"""Matches with an illegal list are handed on: to a program, or to an address; each part of them once it was taken.

The program gets JSON lines on its standard input and ends with 0. The address gets one signed request per match. What
was not taken is tried again by the next call.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from moderation import storage
from moderation.actions.model import ActionRule, RowMatch
from moderation.actions.read import secret_problems, url_problems
from moderation.actions.webhook import WebhookSender
from moderation.config.escalations import EscalationConfig
from moderation.errors import UsageError, one_line
from moderation.results.after_layout import escalations_told_uri
from moderation.results.escalations import fingerprint_of, list_escalations, read_escalations
from moderation.types import Verdict

_COMMAND_S: Final = 600.0
ESCALATION_EVENT: Final = "moderation.escalation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldEscalations:
    """rows: matches in OUT. told: handed on by now. failed: why the rest was not taken; empty: all was, or no hook."""

    rows: int
    told: int
    failed: tuple[str, ...] = ()


def check_hook(hook: EscalationConfig) -> None:
    """Raises UsageError where a hook cannot be called as it is configured: before any work."""
    if hook.command and hook.url:
        raise UsageError("escalations: `command` or `url`, one of them")
    if hook.secret_env is not None and hook.url is None:
        raise UsageError("escalations.secret_env belongs to `url`")
    if hook.url is None:
        return
    if hook.secret_env is None:
        raise UsageError("escalations.url needs `secret_env`: the receiver checks the signature")
    problems = [*url_problems(hook.url), *secret_problems(hook.secret_env, os.environ)]
    if problems:
        raise UsageError("\n".join(f"escalations.{problem}" for problem in problems))


def hand_on(out: str, hook: EscalationConfig) -> ToldEscalations:
    """Hand on what was not taken yet. Without a hook it only counts. Raises UsageError, StorageError."""
    check_hook(hook)
    rows = told = 0
    failed: list[str] = []
    for name in list_escalations(out):
        table = read_escalations(out, name)
        rows += len(table)
        fingerprint = fingerprint_of(table)
        if _is_told(out, name, fingerprint):
            told += len(table)
            continue
        if not (hook.command or hook.url):
            continue
        problem = _tell(table.to_pylist(), hook)
        if problem is None:
            _note(out, name, fingerprint)
            told += len(table)
        else:
            failed.append(problem)
    return ToldEscalations(rows=rows, told=told, failed=tuple(dict.fromkeys(failed)))


def _tell(rows: Sequence[Mapping[str, Any]], hook: EscalationConfig) -> str | None:
    """Hand rows on; why that failed."""
    return _run_command(rows, hook.command) if hook.command else _send(rows, hook)


def _run_command(rows: Sequence[Mapping[str, Any]], command: Sequence[str]) -> str | None:
    lines = "".join(json.dumps(row, default=str, ensure_ascii=True) + "\n" for row in rows)
    try:
        # Without a shell: nothing of a row is in the command, and names come from strangers.
        ended = subprocess.run(
            list(command), input=lines.encode(), capture_output=True, timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {one_line(error, 200)}"
    return None if ended.returncode == 0 else f"{command[0]}: ended with {ended.returncode}"


def _send(rows: Sequence[Mapping[str, Any]], hook: EscalationConfig) -> str | None:
    rule = ActionRule(
        name="escalation",
        do="webhook",
        when=RowMatch(verdict=(Verdict.BLOCK,)),
        url=hook.url,
        secret_env=hook.secret_env,
    )
    sender = WebhookSender(rule, os.environ[str(hook.secret_env)])
    for row in rows:
        key = hashlib.sha256(f"{row['run_id']}|{row['item_id']}|{row['content_hash']}".encode()).hexdigest()
        delivery = sender.send({"event": ESCALATION_EVENT, **row}, key)
        if delivery.code is not None:
            return f"the address did not take it: {delivery.code}"
    return None


def _is_told(out: str, name: str, fingerprint: str) -> bool:
    data = storage.read_optional(escalations_told_uri(out, name))
    try:
        return data is not None and json.loads(data)["items"] == fingerprint
    except (ValueError, KeyError, TypeError):
        return False


def _note(out: str, name: str, fingerprint: str) -> None:
    record = {"items": fingerprint, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    storage.publish(escalations_told_uri(out, name), json.dumps(record).encode())
