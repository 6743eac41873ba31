"""Webhooks: JSON by POST, signed by HMAC-SHA256, sent again after faults that may pass, at most so many a second.

The header `Moderation-Signature: t=<seconds>,v1=<hex>` signs `<seconds>.<body>`; a receiver recomputes it, compares in
constant time and refuses old times. `Idempotency-Key` is the same for every attempt at the same action. Redirects are
not followed. At least once: what was sent before a kill, and not noted, is sent again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import urllib3

from moderation.actions.model import ActionRule
from moderation.errors import one_line

SIGNATURE_HEADER: Final = "Moderation-Signature"
# Statuses that another try may cure; all others are answers.
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5
_MAX_WAIT_S: Final = 30.0


class Pacer:
    """At most so many calls a second, over all threads; no bursts."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap_s = 1.0 / per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def reserve(self) -> float:
        """Take the next turn; seconds until it comes."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._free_at)
            self._free_at = turn + self._gap_s
            return turn - now


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What came of a webhook. code: None where it was taken. is_final: another try would not help."""

    attempts: int
    code: str | None = None
    detail: str | None = None
    is_final: bool = False


class WebhookSender:
    """Sends to the address of one action; may be shared by threads."""

    def __init__(self, rule: ActionRule, secret: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        assert rule.url is not None
        self._url = rule.url
        self._attempts = rule.attempts
        self._secret = secret.encode()
        self._pacer = Pacer(rule.per_second)
        self._sleep = sleep
        self._pool = urllib3.PoolManager(
            maxsize=16, retries=False, timeout=urllib3.Timeout(total=rule.timeout_s), cert_reqs="CERT_REQUIRED"
        )

    def send(self, event: Mapping[str, Any], key: str) -> Delivery:
        """Send an event until it is taken, refused, or the attempts are used up."""
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str).encode()
        delivery = Delivery(attempts=0, code="not_sent")
        for attempt in range(1, self._attempts + 1):
            self._sleep(self._pacer.reserve())
            delivery, wait_s = self._try(body, key, attempt)
            if delivery.code is None or delivery.is_final:
                return delivery
            if attempt < self._attempts:
                self._sleep(wait_s)
        return delivery

    def _try(self, body: bytes, key: str, attempt: int) -> tuple[Delivery, float]:
        """One attempt, and how long to wait before the next."""
        wait_s = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            SIGNATURE_HEADER: sign(self._secret, body, int(time.time())),
        }
        try:
            # The answer's body is of no interest and has no bound: it is not read.
            answer = self._pool.request(
                "POST", self._url, body=body, headers=headers, redirect=False, preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            return Delivery(attempts=attempt, code="unreachable", detail=one_line(error, 200)), wait_s
        answer.close()
        if 200 <= answer.status < 300:
            return Delivery(attempts=attempt), 0.0
        passing = answer.status in _PASSING
        told = _retry_after_s(answer.headers.get("Retry-After"))
        failed = Delivery(attempts=attempt, code=f"http_{answer.status}", is_final=not passing)
        return failed, wait_s if told is None else min(told, _MAX_WAIT_S)


def sign(secret: bytes, body: bytes, at_s: int) -> str:
    """The value of the signature's header."""
    digest = hmac.new(secret, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header; a date in it is left alone."""
    return float(value) if value is not None and value.isascii() and value.isdigit() else None
