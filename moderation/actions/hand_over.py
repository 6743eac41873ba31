"""Rows that are told to another system by a webhook; an address that answers nothing any more is left alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from moderation import storage
from moderation.actions.effects import StepOutcome
from moderation.actions.journal import ActionJournal, ActionReceipt, ActionState, ReceiptKey
from moderation.actions.model import ActionRule
from moderation.actions.rows import JudgedRow, action_id
from moderation.actions.steps import ActionStep
from moderation.actions.webhook import Delivery, WebhookSender

# Deliveries that fail one after the other, each after all of its attempts, before an address is given up for this call.
_GIVEN_UP_AFTER: Final = 10
VERDICT_EVENT: Final = "moderation.verdict"
UNDONE_EVENT: Final = "moderation.undone"


class HandOver:
    """The webhooks of a call.

    journal: what was undone and is done again is another event: a receiver that keeps keys must not take it for a
    repetition.
    """

    def __init__(self, rules: Sequence[ActionRule], secrets: Mapping[str, str], journal: ActionJournal) -> None:
        self._journal = journal
        own = [rule for rule in rules if rule.do == "webhook"]
        self._names = {action_id(rule): rule.name for rule in own}
        self._senders = {action_id(rule): WebhookSender(rule, secrets[str(rule.secret_env)]) for rule in own}
        self._failures = dict.fromkeys(self._senders, 0)
        self._lock = threading.Lock()

    def send(self, step: ActionStep) -> StepOutcome | None:
        """Tell of a row; None where its address was given up."""
        return self._deliver(step.action, describe_row(step.row, step.rule.name), self._name(step.key))

    def take_back(self, receipt: ActionReceipt) -> StepOutcome | None:
        """Tell that an earlier event no longer holds; `failed` where the actions file has that action no more."""
        name = self._names.get(receipt.action)
        if name is None:
            detail = "the actions file has no such action any more"
            return StepOutcome(state=ActionState.FAILED, code="no_action", detail=detail)
        event = {
            "event": UNDONE_EVENT,
            "run_id": receipt.run_id,
            "item_id": receipt.item_id,
            "action": name,
            "uri": receipt.uri,
        }
        return self._deliver(receipt.action, event, self._name(receipt.key, "undone"))

    def _name(self, key: ReceiptKey, *more: str) -> str:
        """The name of an event, of which its `Idempotency-Key` is the hash."""
        undone = self._journal.times_undone(key)
        return "|".join((*key, *more, *((str(undone),) if undone else ())))

    def stopped(self) -> tuple[str, ...]:
        """The names of actions whose address was given up."""
        return tuple(self._names[action] for action, failures in self._failures.items() if failures >= _GIVEN_UP_AFTER)

    def _deliver(self, action: str, event: Mapping[str, Any], key: str) -> StepOutcome | None:
        with self._lock:
            if self._failures[action] >= _GIVEN_UP_AFTER:
                return None
        delivery = self._senders[action].send(event, hashlib.sha256(key.encode("utf-8", "replace")).hexdigest())
        with self._lock:
            failed = delivery.code is not None and not delivery.is_final
            self._failures[action] = self._failures[action] + 1 if failed else 0
        return _outcome(delivery)


def describe_row(row: JudgedRow, action: str) -> dict[str, Any]:
    """A row for another system: the body of a webhook, a line of a manifest."""
    return {
        "event": VERDICT_EVENT,
        "run_id": row.run_id,
        "item_id": row.item_id,
        "action": action,
        "uri": storage.mask_signatures(row.uri),
        "kind": row.kind,
        "verdict": row.verdict,
        "reason": row.reason,
        "check": row.check,
        "label": row.label,
        "severity": row.severity,
        "score": row.score,
        "content_hash": row.content_hash,
    }


def _outcome(delivery: Delivery) -> StepOutcome:
    if delivery.code is None:
        return StepOutcome(state=ActionState.DONE, attempts=delivery.attempts)
    return StepOutcome(
        state=ActionState.FAILED,
        code=delivery.code,
        detail=delivery.detail or "the receiver did not take it",
        attempts=delivery.attempts,
    )
