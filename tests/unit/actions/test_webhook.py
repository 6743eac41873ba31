"""Webhooks keep to their pace, and a wait that the receiver asks for is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.actions.model import ActionRule, RowMatch
from moderation.actions.webhook import Pacer, WebhookSender
from moderation.types import Verdict
from tests.webhook_receiver import Receiver, receiving


@given(st.floats(0.1, 100), st.lists(st.floats(0, 3), max_size=30))
def test_turns_are_at_least_a_gap_apart(per_second: float, steps: list[float]) -> None:
    now = 0.0
    pacer = Pacer(per_second, clock=lambda: now)
    turns = []
    for step in steps:
        now += step
        turns.append(now + pacer.reserve())
    for earlier, later in pairwise(turns):
        assert later - earlier >= 1 / per_second - 1e-6


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def test_a_wait_that_the_receiver_asks_for_is_kept_and_bounded(receiver: Receiver) -> None:
    receiver.faults, receiver.headers = [503, 429], {"Retry-After": "100000"}
    rule = ActionRule(
        name="tell",
        do="webhook",
        when=RowMatch(verdict=(Verdict.BLOCK,)),
        url=receiver.url,
        secret_env="HOOK",
        per_second=1000,
    )
    waits: list[float] = []
    delivery = WebhookSender(rule, "s" * 20, sleep=waits.append).send({"event": "x"}, "key")
    assert (delivery.code, delivery.attempts) == (None, 3)
    assert sorted(waits)[-2:] == [30.0, 30.0]
