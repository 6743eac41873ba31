"""The order of review: more of any term is never later, and nothing is made up for what is not known."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.config.load import validate
from moderation.errors import UsageError
from moderation.policy.model import Policy, policy_hash
from moderation.policy.review_rank import Age, Reach, Reviewed, ReviewOrder, review_rank
from moderation.types import ItemFacts, Verdict

LEVELS = ("low", "medium", "high", "critical")
DAY = date(2026, 11, 26)
ORDER = ReviewOrder(reach=Reach(attribute="views"), age=Age(attribute="since"))
share = st.one_of(st.none(), st.floats(0, 1))


def rank(
    order: ReviewOrder = ORDER,
    reason: str = "negative:c:review",
    confidence: float | None = None,
    severity: str | None = None,
    votes: tuple[tuple[int, float], ...] = (),
    attributes: dict[str, str] | None = None,
    verdict: Verdict = Verdict.REVIEW,
) -> float | None:
    item = Reviewed(reason, confidence, severity, bool(votes), votes)
    return review_rank(order, LEVELS, verdict, item, ItemFacts(item_id="i", attributes=attributes or {}), DAY)


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.BLOCK])
def test_only_what_is_reviewed_has_a_rank(verdict: Verdict) -> None:
    assert rank(confidence=0.5, severity="high", verdict=verdict) is None


def test_an_item_of_which_nothing_is_known_has_none() -> None:
    assert rank(reason="error:corrupt") is None


def test_a_term_that_is_not_known_drops_out_with_its_weight() -> None:
    assert rank(severity="high") == 0.75
    assert rank(severity="high", attributes={"views": "many", "since": "soon"}) == 0.75
    assert rank(severity="high", confidence=0.25) == 0.5


def test_the_middle_of_a_band_and_a_near_default_are_unsure() -> None:
    assert rank(confidence=1.0) == 1.0
    assert rank(reason="default:review", confidence=0.0) == 1.0
    assert rank(reason="isolated:c:review", confidence=0.75) == 0.25


def test_detectors_disagree_on_one_frame() -> None:
    assert rank(votes=((3, 0.9), (3, 0.4), (5, 0.0))) == pytest.approx(0.5)
    assert rank(votes=((3, 0.9),)) is None


def test_reach_and_age_are_read_from_attributes_and_from_the_day_of_the_run() -> None:
    assert rank(attributes={"views": "1000000"}) == 1.0
    assert rank(attributes={"views": "0"}) == 0.0
    assert rank(attributes={"since": "2026-11-19"}) == 1.0
    assert rank(attributes={"since": "2026-11-26T23:00:00Z"}) == 0.0
    assert rank(attributes={"views": "nan"}) is None


@given(
    confidence=share,
    severity=st.sampled_from([None, *LEVELS]),
    spread=share,
    views=st.one_of(st.none(), st.integers(0, 10**9)),
    more=st.integers(1, 10**9),
)
def test_more_of_a_term_is_never_later(
    confidence: float | None, severity: str | None, spread: float | None, views: int | None, more: int
) -> None:
    votes = () if spread is None else ((0, spread), (0, 0.0))
    attributes = {} if views is None else {"views": str(views)}
    before = rank(confidence=confidence, severity=severity, votes=votes, attributes=attributes)
    assert before is None or 0.0 <= before <= 1.0
    if views is not None and before is not None:
        after = rank(confidence=confidence, severity=severity, votes=votes, attributes={"views": str(views + more)})
        assert after is not None and after >= before
    if severity in LEVELS[:-1] and before is not None:
        harsher = LEVELS[LEVELS.index(severity or "") + 1]
        after = rank(confidence=confidence, severity=harsher, votes=votes, attributes=attributes)
        assert after is not None and after >= before


PLAIN = {"checks": {"c": {"side": "negative", "votes": ["a.b"], "review": 0.5}}}


def test_a_policy_without_an_order_has_the_hash_that_it_had() -> None:
    plain = Policy.model_validate(PLAIN)
    ordered = Policy.model_validate({**PLAIN, "review_order": {"severity": 2}})
    assert policy_hash(plain) == policy_hash(Policy.model_validate({**PLAIN, "review_order": None}))
    assert policy_hash(plain) != policy_hash(ordered)
    assert not plain.dated
    assert Policy.model_validate({**PLAIN, "review_order": {"age": {"attribute": "since"}}}).dated


@pytest.mark.parametrize(
    ("order", "message"),
    [({"severty": 1}, "severity"), ({"uncertainty": 0, "severity": 0, "disagreement": 0}, "every weight is 0")],
)
def test_a_wrong_order_is_named(order: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(Policy, {**PLAIN, "review_order": order}, where="policy.yaml")
