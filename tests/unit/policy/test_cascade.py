"""A cascade of checks that stops, and the fusions that several variants of one question need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.policy import aggregate
from moderation.policy.bind import bind
from moderation.policy.judge import judge
from moderation.policy.model import Policy
from moderation.types import ItemVotes, Judgement, Verdict

LABELS = ("a.one", "a.two", "a.three", "a.fine")
HARSHNESS = {Verdict.PASS: 0, Verdict.REVIEW: 1, Verdict.BLOCK: 2}


def policy_of(**checks: dict[str, Any]) -> Policy:
    return Policy.model_validate({"default": "pass", "checks": checks})


def negative(label: str, **more: Any) -> dict[str, Any]:
    return {"side": "negative", "votes": [f"a.{label}"], **more}


def judged(policy: Policy, *rows: list[float]) -> Judgement:
    votes = ItemVotes(
        labels=LABELS,
        frames=tuple(range(len(rows))),
        times_s=(None,) * len(rows),
        scores=np.array(rows, np.float32).reshape(-1, len(LABELS)),
    )
    return judge(bind(policy, LABELS), votes)


def test_a_failed_check_that_stops_leaves_the_later_ones_unasked() -> None:
    policy = policy_of(
        first=negative("one", review=0.5, order=1, stop=True),
        second=negative("two", review=0.5, order=2),
        beside=negative("three", review=0.5),
    )
    stopped = judged(policy, [0.8, 0.9, 0.1, 0.0])
    assert (stopped.verdict, stopped.reason) == (Verdict.REVIEW, "negative:first:review")
    assert stopped.scores == {"first": pytest.approx(0.8), "second": None, "beside": pytest.approx(0.1)}
    went_on = judged(policy, [0.2, 0.9, 0.1, 0.0])
    assert went_on.reason == "negative:second:review"
    assert went_on.scores["second"] == pytest.approx(0.9)


def test_an_unasked_check_is_no_null_that_needs_a_person_nor_does_it_pass() -> None:
    policy = policy_of(
        first=negative("one", block=0.5, order=1, stop=True),
        second=negative("two", review=0.5, order=2, null="review"),
        fine={"side": "positive", "votes": ["a.fine"], "pass": 0.5, "order": 3},
    )
    assert judged(policy, [0.8, 0.0, 0.0, 1.0]).reason == "negative:first:block"
    assert judged(policy, [0.1, 0.0, 0.0, 1.0]).reason == "positive:fine:pass"


def test_checks_of_one_order_are_asked_together() -> None:
    policy = policy_of(first=negative("one", review=0.5, order=1, stop=True), also=negative("two", review=0.5, order=1))
    assert judged(policy, [0.8, 0.9, 0.0, 0.0]).scores["also"] == pytest.approx(0.9)


def test_a_stop_waits_for_its_block_where_a_later_check_can_block() -> None:
    policy = policy_of(
        first=negative("one", review=0.5, block=0.9, order=1, stop=True),
        second=negative("two", block=0.5, order=2),
    )
    assert judged(policy, [0.8, 0.9, 0.0, 0.0]).reason == "negative:second:block"
    assert judged(policy, [0.95, 0.9, 0.0, 0.0]).scores["second"] is None


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        (
            {"a": negative("one", review=0.5, order=1, stop=True), "b": negative("two", block=0.5, order=2)},
            "needs a `block`",
        ),
        ({"a": negative("one", review=0.5, stop=True)}, "with an `order`"),
        ({"a": {"side": "positive", "votes": ["a.fine"], "pass": 0.5, "order": 1, "stop": True}}, "with an `order`"),
    ],
)
def test_a_stop_that_could_hide_something_harsher_is_refused(checks: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_of(n=negative("three", review=0.9), **checks)


level = st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])
vote = st.one_of(level, st.just(math.nan))


@st.composite
def cascades(draw: st.DrawFn) -> Policy:
    checks: dict[str, Any] = {}
    for name in ("one", "two", "three"):
        review, block = sorted([draw(level), draw(level)])
        kept = draw(st.sampled_from([("review",), ("block",), ("review", "block")]))
        order = draw(st.sampled_from([None, 1, 2, 3]))
        limits = {k: v for k, v in {"review": review, "block": block}.items() if k in kept}
        checks[name] = negative(name, **limits, null=draw(st.sampled_from(["review", "ignore"])))
        if order is not None:
            checks[name] |= {"order": order, "stop": draw(st.booleans())}
    for name, check in checks.items():
        harsher = any("block" in c and c.get("order", 0) > check.get("order", 9) for c in checks.values())
        if check.get("stop") and harsher and "block" not in check:
            checks[name] = {**check, "stop": False}
    checks["fine"] = {"side": "positive", "votes": ["a.fine"], "pass": draw(level), "order": draw(st.integers(0, 4))}
    return Policy.model_validate({"default": draw(st.sampled_from(["review", "pass"])), "checks": checks})


@settings(max_examples=300, deadline=None)
@given(policy=cascades(), rows=st.lists(st.lists(vote, min_size=4, max_size=4), min_size=1, max_size=3), data=st.data())
def test_a_cascade_is_monotone(policy: Policy, rows: list[list[float]], data: st.DataObject) -> None:
    def raised(columns: range) -> list[list[float]]:
        out = [list(row) for row in rows]
        for row in out:
            for column in columns:
                if row[column] == row[column] and data.draw(st.booleans()):
                    row[column] = max(row[column], data.draw(level))
        return out

    before = HARSHNESS[judged(policy, *rows).verdict]
    assert HARSHNESS[judged(policy, *raised(range(3))).verdict] >= before
    assert HARSHNESS[judged(policy, *raised(range(3, 4))).verdict] <= before


votes = st.lists(st.one_of(st.floats(0, 1, width=32), level, st.just(math.nan)), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(
    votes=votes,
    method=st.sampled_from(["mean_logit", "majority"]),
    missing=st.sampled_from(["null", "skip"]),
    data=st.data(),
)
def test_the_fusions_of_variants_are_monotone_and_stay_among_the_votes(
    votes: list[float], method: Any, missing: Any, data: st.DataObject
) -> None:
    fused = aggregate.fuse(votes, method=method, missing=missing)
    higher = [max(v, data.draw(level)) if v == v else v for v in votes]
    again = aggregate.fuse(higher, method=method, missing=missing)
    assert (fused == fused) == (again == again)
    if fused == fused:
        present = [v for v in votes if v == v]
        assert again >= fused
        assert min(present) - 1e-5 <= fused <= max(present) + 1e-5


def test_the_mean_of_logits_is_that_of_two_softmaxes() -> None:
    logits = [1.2, -0.3, 2.0]
    votes = [1 / (1 + math.exp(-x)) for x in logits]
    expected = 1 / (1 + math.exp(-sum(logits) / 3))
    assert aggregate.fuse(votes, method="mean_logit") == pytest.approx(expected)
    weighted = aggregate.fuse(votes, method="mean_logit", weights=[3, 1, 1])
    assert weighted == pytest.approx(1 / (1 + math.exp(-(3 * 1.2 - 0.3 + 2.0) / 5)))


def test_a_majority_is_more_than_half() -> None:
    assert aggregate.fuse([0.9, 0.8, 0.1], method="majority") == 0.8
    assert aggregate.fuse([0.9, 0.1], method="majority") == 0.1
    assert aggregate.fuse([0.9, 0.8, math.nan, 0.1, math.nan], method="majority", missing="skip") == 0.8


def test_a_mean_of_logits_takes_weights_as_a_weighted_mean_does() -> None:
    check = {"side": "negative", "votes": {"a.one": 2.0, "a.two": 1.0}, "fuse": "mean_logit", "review": 0.5}
    score = judged(policy_of(both=check), [0.8, 0.2, 0.0, 0.0]).scores["both"]
    assert score == pytest.approx(1 / (1 + math.exp(-math.log(4) / 3)), abs=1e-6)
