"""Agreement of reviewers and the figures of a review."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.review.agreement import cohens_kappa, group_by_item, pair_agreements
from moderation.review.stats import measure_review

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
BLOCK, PASS = Answer.BLOCK, Answer.PASS
RATINGS = st.lists(st.tuples(st.sampled_from(["block", "pass"]), st.sampled_from(["block", "pass"])), max_size=30)


def said(second: int, reviewer: str, item: str, answer: Answer, **more: object) -> Decision:
    values = {"decided_at": NOON + timedelta(seconds=second), **more}
    return Decision(decision_id=f"{reviewer}{item}{second}", item_id=item, decision=answer, reviewer=reviewer, **values)  # type: ignore[arg-type] # keywords of the row


@given(RATINGS)
def test_kappa_is_that_of_scikit_learn(ratings: Sequence[tuple[str, str]]) -> None:
    kappa = cohens_kappa(ratings)
    if kappa is None:
        assert len({word for pair in ratings for word in pair}) < 2
    else:
        assert kappa == pytest.approx(cohen_kappa_score(*zip(*ratings, strict=True)))


def test_pairs_are_compared_on_what_both_answered() -> None:
    decisions = [
        said(1, "ann", "a", BLOCK), said(2, "bob", "a", BLOCK),
        said(3, "ann", "b", PASS), said(4, "bob", "b", BLOCK),
        said(5, "ann", "c", PASS), said(6, "cy", "c", PASS), said(7, "bob", "c", Answer.SKIP),
    ]  # fmt: skip
    pairs, kappa = pair_agreements(group_by_item(decisions))
    assert [(pair.reviewers, pair.items, pair.agreed) for pair in pairs] == [
        (("ann", "bob"), 2, 1),
        (("ann", "cy"), 1, 1),
    ]
    assert kappa is not None and -1 <= kappa <= 1


def test_who_knew_what_others_had_said_is_no_independent_rater() -> None:
    decisions = [
        said(1, "ann", "a", BLOCK), said(2, "bob", "a", PASS), said(3, "eve", "a", PASS, expert=True),
        said(4, "cy", "a", PASS, source=DecisionSource.APPEAL),
        said(5, "eve", "b", PASS, expert=True), said(6, "ann", "b", PASS),
    ]  # fmt: skip
    pairs, _ = pair_agreements(group_by_item(decisions))
    assert {pair.reviewers: pair.items for pair in pairs} == {("ann", "bob"): 1, ("ann", "eve"): 1}


def test_answers_about_two_pictures_at_one_place_are_not_compared() -> None:
    decisions = [said(1, "ann", "a", BLOCK, content_hash="old"), said(2, "bob", "a", PASS, content_hash="new")]
    assert measure_review(decisions).pairs == ()


def test_hidden_items_measure_against_what_was_known() -> None:
    decisions = [
        said(1, "eve", "a", BLOCK, expert=True), said(2, "ann", "a", PASS, source=DecisionSource.HIDDEN),
        said(3, "bob", "b", PASS), said(4, "cy", "b", PASS), said(5, "ann", "b", PASS, source=DecisionSource.HIDDEN),
        said(6, "ann", "c", PASS, source=DecisionSource.HIDDEN),
    ]  # fmt: skip
    ann = next(one for one in measure_review(decisions).reviewers if one.reviewer == "ann")
    assert ann.hidden is not None and (ann.hidden.items, ann.hidden.right) == (2, 1)


def test_a_pause_is_no_work() -> None:
    decisions = [said(second, "ann", f"i{second}", PASS, exposure_s=2.0) for second in (0, 10, 20, 4000, 4010)]
    (ann,) = measure_review(decisions).reviewers
    assert (ann.active_s, ann.per_hour, ann.exposure_s) == (30.0, 480.0, 2.0)


def test_conflicts_and_undone_decisions_are_counted() -> None:
    decisions = [
        said(1, "ann", "a", BLOCK), said(2, "bob", "a", PASS), said(3, "ann", "b", PASS),
        said(4, "ann", "b", Answer.SKIP, undoes="annb3"),
    ]  # fmt: skip
    stats = measure_review(decisions)
    assert (stats.decisions, stats.undone, stats.items) == (2, 1, 1)
    assert [label.item_id for label in stats.conflicts] == ["a"]
