"""Properties of any policy: monotone, safe with nulls, deterministic, blind to the order of frames."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.policy.bind import bind
from moderation.policy.judge import judge
from moderation.policy.model import Policy, policy_hash
from moderation.types import ItemVotes, Role, Verdict
from tests.drawn_policies import HARSHNESS, LABELS, NEGATIVE, POSITIVE, policies, raised, rows, votes_of

unhurried = settings(max_examples=60, deadline=None)  # the machine may be busy


def harshness(policy, scores):
    return HARSHNESS[judge(bind(policy, LABELS), votes_of(scores)).verdict]


@settings(max_examples=200, deadline=None)
@given(policy=policies(), scores=rows, data=st.data())
def test_raising_a_vote_of_negative_checks_never_makes_the_verdict_milder(policy, scores, data):
    assert harshness(policy, raised(scores, NEGATIVE, data)) >= harshness(policy, scores)


@settings(max_examples=200, deadline=None)
@given(policy=policies(), scores=rows, data=st.data())
def test_raising_a_vote_of_positive_checks_never_makes_the_verdict_harsher(policy, scores, data):
    assert harshness(policy, raised(scores, POSITIVE, data)) <= harshness(policy, scores)


@unhurried
@given(policy=policies(nulls=("review",)), scores=rows, data=st.data())
def test_a_null_never_passes_where_null_means_review(policy, scores, data):
    label = data.draw(st.sampled_from(sorted({label for check in policy.checks.values() for label in check.votes})))
    frame = data.draw(st.integers(0, len(scores) - 1))
    # The whole check goes null in that frame, however it fuses what is missing.
    touched = next(check for check in policy.checks.values() if label in check.votes)
    for other in touched.votes:
        scores[frame][LABELS.index(other)] = math.nan
    assert judge(bind(policy, LABELS), votes_of(scores)).verdict is not Verdict.PASS


@unhurried
@given(policy=policies(), scores=rows)
def test_votes_that_are_all_null_never_pass(policy, scores):
    nothing = [[math.nan] * len(LABELS) for _ in scores]
    assert harshness(policy, nothing) == HARSHNESS[Verdict.REVIEW]


@unhurried
@given(policy=policies(), scores=rows)
def test_a_null_is_never_milder_than_a_zero_vote_of_a_positive_check(policy, scores):
    blind = [[math.nan if label in POSITIVE else v for label, v in zip(LABELS, row, strict=True)] for row in scores]
    zero = [[0.0 if label in POSITIVE else v for label, v in zip(LABELS, row, strict=True)] for row in scores]
    assert harshness(policy, blind) >= harshness(policy, zero) or any(
        check.pass_ == 0.0 for check in policy.checks.values()
    )


@unhurried
@given(
    policy=policies(negative_pools=("any", "all", "mean", "top_k_mean", "bottom_k_mean", "linear_softmax")),
    scores=rows,
    data=st.data(),
)
def test_order_free_pools_judge_alike_in_any_order_of_the_frames(policy, scores, data):
    bound = bind(policy, LABELS)
    one, two = judge(bound, votes_of(scores)), judge(bound, votes_of(data.draw(st.permutations(scores))))
    assert (one.verdict, one.reason, one.scores, one.confidence) == (
        two.verdict,
        two.reason,
        two.scores,
        two.confidence,
    )


@unhurried
@given(policy=policies(), scores=rows)
def test_a_verdict_is_a_function_of_policy_and_votes(policy, scores):
    again = Policy.model_validate(policy.model_dump(by_alias=True, exclude_none=True))
    one, two = (judge(bind(p, LABELS), votes_of(scores)) for p in (policy, again))
    assert one == two
    assert policy_hash(policy) == policy_hash(again)


@unhurried
@given(policy=policies(), scores=rows)
def test_a_judgement_explains_itself_within_its_bounds(policy, scores):
    judgement = judge(bind(policy, LABELS), votes_of(scores))
    stage, *middle, action = judgement.reason.split(":")
    assert action == judgement.verdict
    assert middle in ([], ["all"], [judgement.check])
    assert stage in ("negative", "positive", "null", "default", "context", "isolated")
    assert len(judgement.evidence) <= 5
    assert judgement.confidence is None or 0.0 <= judgement.confidence <= 1.0
    assert set(judgement.scores) == set(policy.checks)
    if judgement.check is not None:
        assert judgement.score == judgement.scores[judgement.check]
    for evidence in judgement.evidence:
        row, column = evidence.frame, LABELS.index(f"{evidence.detector}.{evidence.label}")
        assert evidence.score == float(np.float32(scores[row][column]))


@st.composite
def families(draw, count):
    """(roles, parents) of `count` frames: any of them frames, tiles or wholes; parents earlier, later or missing."""
    roles = draw(st.lists(st.sampled_from(list(Role)), min_size=count, max_size=count))
    parents = draw(st.lists(st.one_of(st.none(), st.integers(0, count)), min_size=count, max_size=count))
    return tuple(roles), tuple(None if p == i else p for i, p in enumerate(parents))


def related(scores, kin):
    votes = votes_of(scores)
    return ItemVotes(
        labels=votes.labels,
        frames=votes.frames,
        times_s=votes.times_s,
        scores=votes.scores,
        roles=kin[0],
        parents=kin[1],
        boxes=(None,) * len(scores),
    )


@settings(max_examples=200, deadline=None)
@given(policy=policies(), scores=rows, data=st.data())
def test_with_parts_and_wholes_raising_a_negative_vote_never_makes_the_verdict_milder(policy, scores, data):
    kin = data.draw(families(len(scores)))
    bound = bind(policy, LABELS)
    before = judge(bound, related(scores, kin)).verdict
    after = judge(bound, related(raised(scores, NEGATIVE, data), kin)).verdict
    assert HARSHNESS[after] >= HARSHNESS[before]


@settings(max_examples=100, deadline=None)
@given(policy=policies(), scores=rows, data=st.data())
def test_with_parts_and_wholes_raising_a_positive_vote_never_makes_the_verdict_harsher(policy, scores, data):
    kin = data.draw(families(len(scores)))
    bound = bind(policy, LABELS)
    before = judge(bound, related(scores, kin)).verdict
    after = judge(bound, related(raised(scores, POSITIVE, data), kin)).verdict
    assert HARSHNESS[after] <= HARSHNESS[before]


@settings(max_examples=100, deadline=None)
@given(policy=policies(), scores=rows.map(lambda found: found[:1]), tiles=rows)
def test_tiles_never_block_a_picture_that_passes_and_never_make_a_verdict_milder(policy, scores, tiles):
    bound = bind(policy, LABELS)
    roles = (Role.FRAME,) + (Role.TILE,) * len(tiles)
    parents = (None,) + (0,) * len(tiles)
    alone = judge(bound, votes_of(scores)).verdict
    tiled = judge(bound, related([*scores, *tiles], (roles, parents))).verdict
    assert HARSHNESS[tiled] >= HARSHNESS[alone]
    assert (alone, tiled) != (Verdict.PASS, Verdict.BLOCK)
