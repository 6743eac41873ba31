"""Isolated frames, segments, albums, thresholds by attribute, positive rules and the audit: worked examples."""

from __future__ import annotations

import hashlib
import hmac
import math
from typing import Any

import numpy as np
import pytest

from moderation.errors import UsageError
from moderation.policy.audit import audit_value
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy, policy_hash
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Judgement, Kind, Seen, Segment, Verdict

LABELS = ("a.bad", "a.fine", "s.dress", "s.coat", "s.shoe")
BAD: dict[str, Any] = {"side": "negative", "votes": ["a.bad"], "block": 0.9, "review": 0.5}
FINE: dict[str, Any] = {"side": "positive", "votes": ["a.fine"], "pass": 0.6}
PERSON: dict[str, Any] = {"side": "attribute", "votes": ["a.fine"], "pool": "mean"}


def bound_to(bad: dict[str, Any] | None = None, **more: Any) -> BoundPolicy:
    checks = {"bad": {**BAD, **(bad or {})}, "fine": FINE, **more.pop("checks", {})}
    return bind(Policy.model_validate({"checks": checks, **more}), LABELS)


def of(
    bound: BoundPolicy,
    *bad: float,
    fine: float = 0.9,
    scene: tuple[float, float, float] = (0.1, 0.1, 0.1),
    times: bool = False,
    kind: Kind = Kind.VIDEO,
    error: ErrorCode | None = None,
    **attributes: str,
) -> Judgement:
    votes = ItemVotes(
        labels=LABELS,
        frames=tuple(range(len(bad))),
        times_s=tuple(float(at) for at in range(len(bad))) if times else (None,) * len(bad),
        scores=np.array([[score, fine, *scene] for score in bad], np.float32),
    )
    facts = ItemFacts(item_id="i", attributes=attributes, content_hash=attributes.pop("content", None))
    return judge_item(votes, error, bound, Seen(kind=kind, widest_gap_s=1.0), facts)


RUN = {"pool": {"method": "run", "length": 3, "gap": 1}}


# ---- pooling: runs, isolated hits, segments, albums ----


def test_a_scene_blocks_and_an_isolated_hit_is_reviewed_for_its_own_reason() -> None:
    assert of(bound_to(RUN), 0.1, 0.95, 0.2, 0.93, 0.96, 0.1).reason == "negative:bad:block"
    lone = of(bound_to(RUN), 0.1, 0.1, 0.95, 0.1, 0.1)
    assert (lone.verdict, lone.reason, lone.check) == (Verdict.REVIEW, "isolated:bad:review", "bad")
    assert lone.threshold == pytest.approx(0.9)
    assert of(bound_to({**RUN, "isolated": "ignore"}), 0.1, 0.1, 0.95, 0.1, 0.1).verdict is Verdict.PASS


def test_the_mean_of_the_top_frames_is_not_moved_by_one_of_them() -> None:
    pool = {"pool": {"method": "top_k_mean", "k": 3}}
    assert of(bound_to(pool), 0.99, 0.1, 0.1, 0.1).reason == "isolated:bad:review"
    assert of(bound_to(pool), 0.99, 0.95, 0.92, 0.1).reason == "negative:bad:block"


def test_a_severe_check_blocks_on_any_frame_and_takes_no_other_pool() -> None:
    assert of(bound_to({"severity": "critical"}), 0.1, 0.95, 0.1, 0.1).reason == "negative:bad:block"
    with pytest.raises(ValueError, match="'critical', it decides by any frame"):
        bound_to({"severity": "critical", **RUN})


def test_the_hash_tells_policies_apart_whose_verdicts_differ_and_no_others() -> None:
    def hash_of(**bad: Any) -> str:
        return policy_hash(bound_to(bad).policy)

    assert hash_of(**RUN) != hash_of(**RUN, isolated="ignore")
    assert hash_of() == hash_of(isolated="ignore") == hash_of(isolated="review")
    assert hash_of() == hash_of(definition="explicit")
    assert len({hash_of(), hash_of(severity="low"), hash_of(label="A"), hash_of(by={"r": {"x": {"block": 0.8}}})}) == 4


def test_segments_say_where_a_check_finds_something() -> None:
    judged = of(bound_to(RUN), 0.1, 0.6, 0.2, 0.95, 0.1, 0.1, 0.1, 0.7, times=True)
    assert judged.segments == (
        Segment(start_s=1.0, end_s=3.0, check="bad", score=float(np.float32(0.95))),
        Segment(start_s=7.0, end_s=7.0, check="bad", score=float(np.float32(0.7))),
    )
    assert "from 1.0 to 3.0 s" in judged.reason_text
    assert of(bound_to(RUN), 0.6).segments == ()


def test_segments_are_bounded_to_the_highest() -> None:
    scores = [score for at in range(40) for score in (0.5 + at / 100, 0.0, 0.0)]
    found = of(bound_to(), *scores, times=True).segments
    assert len(found) == 20
    assert min(s.score for s in found) == pytest.approx(0.7)
    assert [s.start_s for s in found] == sorted(s.start_s for s in found)


@pytest.mark.parametrize("pool", [{"method": "top_k_mean", "k": 3}, "mean", {"method": "run", "length": 3}])
def test_one_bad_picture_makes_an_album_bad_whatever_pool_is_meant_of_scenes(pool: Any) -> None:
    assert of(bound_to({"pool": pool}), 0.95, 0.1, 0.1, 0.1, kind=Kind.ALBUM).reason == "negative:bad:block"
    assert of(bound_to({"pool": {"other": pool}}), 0.95, 0.1, 0.1, kind=Kind.ALBUM).verdict is Verdict.REVIEW


@pytest.mark.parametrize(
    ("bad", "error", "reason"),
    [
        ((0.95, 0.6), ErrorCode.CORRUPT, "negative:bad:block"),
        ((0.1, 0.6), ErrorCode.CORRUPT, "error:corrupt"),
        ((0.1, 0.6), None, "negative:bad:review"),
        ((0.1, 0.1), ErrorCode.CORRUPT, "error:corrupt"),
        ((0.1, 0.1), None, "positive:fine:pass"),
    ],
)
def test_an_album_rolls_up_block_then_error_then_review_then_pass(bad: Any, error: Any, reason: str) -> None:
    assert of(bound_to(), *bad, kind=Kind.ALBUM, error=error).reason == reason


# ---- thresholds by attribute ----

BY = {"region": {"eu": {"block": 0.7, "review": 0.3}, "us": {"review": 0.6}}, "line": {"kids": {"block": 0.6}}}


@pytest.mark.parametrize(
    ("attributes", "score", "reason"),
    [
        ({}, 0.55, "negative:bad:review"),
        ({"region": "us"}, 0.55, "positive:fine:pass"),
        ({"region": "us"}, 0.65, "negative:bad:review"),
        ({"region": "eu"}, 0.35, "negative:bad:review"),
        ({"region": "eu"}, 0.75, "negative:bad:block"),
        ({"region": "cn"}, 0.75, "negative:bad:review"),
        ({"region": "eu", "line": "kids"}, 0.65, "negative:bad:block"),
        ({"region": "us", "line": "kids"}, 0.65, "negative:bad:block"),
        ({"region": '["us", "eu"]'}, 0.35, "negative:bad:review"),
    ],
)
def test_the_strictest_of_the_thresholds_that_fit_decides(attributes: Any, score: float, reason: str) -> None:
    assert of(bound_to({"by": BY}), score, kind=Kind.IMAGE, **attributes).reason == reason


def test_the_threshold_that_decided_stands_in_the_row() -> None:
    assert of(bound_to({"by": BY}), 0.75, region="eu").threshold == pytest.approx(0.7)
    assert of(bound_to(), 0.75).threshold == pytest.approx(0.5)
    assert of(bound_to(), 0.1).threshold == pytest.approx(0.6)


def test_a_stop_goes_by_the_thresholds_of_the_item() -> None:
    first = {**BAD, "order": 1, "stop": True, "block": None, "by": {"region": {"eu": {"review": 0.2}}}}
    later = {"side": "negative", "votes": ["s.coat"], "review": 0.05, "order": 2}
    bound = bound_to(first, checks={"later": later})
    assert of(bound, 0.3, region="eu").scores["later"] is None
    assert of(bound, 0.3).scores["later"] is not None


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ({"region": {"eu": {"pass": 0.5}}}, "by region eu: has `pass`, the check itself has none"),
        ({"region": {"eu": {"block": 0.4}}}, r"`review` \(0.5\) must not be over `block` \(0.4\)"),
        ({"region": {"eu": {}}}, "needs `block`, `review` or `pass`"),
        ({"region": {"eu": {"blok": 0.4}}}, "blok"),
    ],
)
def test_a_threshold_that_cannot_be_meant_is_refused(by: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound_to({"by": by})


# ---- positive rules ----

NOTHING_ELSE = {"at_least": {"person": 0.8}, "others_below": 0.3}


def vouching(**rule: Any) -> BoundPolicy:
    return bound_to(checks={"fine": {**FINE, "pass": 1.0}, "person": PERSON}, vouch={"plain": rule})


@pytest.mark.parametrize(
    ("bad", "fine", "reason"),
    [
        ((0.1, 0.2), 0.9, "vouch:plain:pass"),
        ((0.1, 0.35), 0.9, "default:review"),
        ((0.1, 0.2), 0.7, "default:review"),
        ((0.1, 0.6), 0.9, "negative:bad:review"),
    ],
)
def test_an_ordinary_person_and_nothing_else_passes(bad: Any, fine: float, reason: str) -> None:
    assert of(vouching(**NOTHING_ELSE), *bad, fine=fine).reason == reason


def test_what_was_not_computed_vouches_for_nothing() -> None:
    bound = bound_to(
        {"null": "ignore"}, checks={"fine": {**FINE, "pass": 1.0}, "person": PERSON}, vouch={"p": NOTHING_ELSE}
    )
    assert of(bound, 0.1, math.nan).reason == "default:review"
    assert of(bound, 0.1, fine=math.nan).verdict is Verdict.REVIEW


SCENE = {"declared": {"attribute": "category", "votes": ["s.dress", "s.coat", "s.shoe"], "least": 0.4}}


@pytest.mark.parametrize(
    ("scene", "category", "passes"),
    [
        ((0.6, 0.2, 0.2), "dress", True),
        ((0.6, 0.2, 0.2), "coat", False),
        ((0.39, 0.2, 0.2), "dress", False),
        ((0.5, 0.5, 0.0), "dress", False),
        ((0.6, math.nan, 0.2), "dress", False),
        ((0.6, 0.2, 0.2), "hat", False),
        ((0.6, 0.2, 0.2), '["dress", "coat"]', False),
    ],
)
def test_a_scene_that_is_what_was_declared_passes(scene: Any, category: str, passes: bool) -> None:
    judged = of(vouching(**SCENE), 0.1, 0.1, scene=scene, category=category)
    assert judged.reason == ("vouch:plain:pass" if passes else "default:review")


def test_values_of_an_attribute_may_be_called_otherwise_than_labels() -> None:
    named = {"declared": {**SCENE["declared"], "values": {"evening wear": "s.dress"}}}
    assert of(vouching(**named), 0.1, scene=(0.6, 0.2, 0.2), category="evening wear").verdict is Verdict.PASS
    assert of(vouching(**named), 0.1, scene=(0.6, 0.2, 0.2), category="dress").verdict is Verdict.REVIEW


def test_nobody_declared_anything() -> None:
    assert of(vouching(**SCENE), 0.1, scene=(0.6, 0.2, 0.2)).reason == "default:review"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"others_below": 0.3}, "vouches for nothing"),
        ({"at_least": {"bad": 0.3}}, "'bad' is negative; `at_least` takes positive and attributes"),
        ({"at_least": {"person": 0.3}, "below": {"fine": 0.3}}, "'fine' is positive; `below`"),
        ({"at_least": {"persn": 0.3}}, "no check 'persn'; did you mean 'person'"),
        ({"at_least": {"person": 0.3}, "below": {"person": 0.5}}, "in `at_least` and in `below`"),
        ({"declared": {**SCENE["declared"], "values": {"x": "s.hat"}}}, "'s.hat', which is not among the votes"),
        ({"declared": {"attribute": "a", "votes": ["s.dress", "t.dress"]}}, "say by `values`"),
    ],
)
def test_a_positive_rule_that_cannot_be_meant_is_refused(rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vouching(**rule)


def test_a_declared_vote_that_nobody_casts_is_named() -> None:
    with pytest.raises(UsageError, match=r"vouch 'plain': the stack casts no vote 's\.shoo'; did you mean 's\.shoe'"):
        vouching(declared={"attribute": "category", "votes": ["s.dress", "s.shoo"]})


# ---- the audit ----

AUDIT = {
    "salt": "autumn",
    "block": {"check": "bad", "rate": 0.1, "from": 0.6},
    "pass": {"check": "bad", "rate": 0.3, "to": 0.2},
}


def test_the_hash_of_a_group_is_an_hmac_as_anybody_can_compute_it() -> None:
    digest = hmac.new(b"autumn", b"g1", hashlib.sha256).hexdigest()
    assert audit_value("autumn", "g1") == pytest.approx(int(digest, 16) / 2**256)


def test_each_side_draws_its_share_of_the_groups_in_its_region_and_none_elsewhere() -> None:
    bound = bound_to(audit=AUDIT)
    drawn = {bad: sum(of(bound, bad, group=f"g{at}").audit for at in range(2000)) for bad in (0.95, 0.1, 0.4)}
    # Three standard deviations of a binomial.
    assert abs(drawn[0.95] - 200) < 3 * math.sqrt(2000 * 0.1 * 0.9)
    assert abs(drawn[0.1] - 600) < 3 * math.sqrt(2000 * 0.3 * 0.7)
    assert drawn[0.4] == 0


def test_a_group_is_drawn_as_a_whole_and_a_lower_rate_draws_a_part_of_it() -> None:
    one, other = bound_to(audit=AUDIT), bound_to(audit={**AUDIT, "block": {**AUDIT["block"], "rate": 0.05}})
    wide = {at for at in range(500) if of(one, 0.95, group=f"g{at}").audit}
    assert wide == {at for at in range(500) if of(one, 0.7, group=f"g{at}").audit}
    assert {at for at in range(500) if of(other, 0.95, group=f"g{at}").audit} < wide


def test_the_content_is_the_group_where_nothing_names_one() -> None:
    bound = bound_to(audit=AUDIT)
    named = [of(bound, 0.95, content=f"c{at}").audit for at in range(300)]
    assert any(named)
    assert named == [audit_value("autumn", f"c{at}") < 0.1 for at in range(300)]
    by_owner = bound_to(audit={**AUDIT, "group": "owner"})
    assert len({of(by_owner, 0.95, content=f"c{at}", owner="ann").audit for at in range(50)}) == 1


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        ({"salt": "s"}, "needs `block`, `pass`, or both"),
        ({"salt": "s", "block": {"check": "bda", "rate": 0.1, "from": 0.5}}, "no check 'bda'; did you mean 'bad'"),
        ({"salt": "s", "block": {"check": "bad", "rate": 0.1, "from": 0.95}}, "leaves out what 'bad' blocks from 0.9"),
        ({"salt": "s", "block": {"check": "fine", "rate": 0.1, "from": 0.5}}, "this side is of a negative check"),
        ({"salt": "s", "block": {"check": "bad", "rate": 0.1, "to": 0.5}}, "the region is `from`"),
        ({"salt": "s", "pass": {"check": "bad", "rate": 0.1}}, "needs `from`"),
        ({"salt": "s", "pass": {"check": "bad", "rate": 0, "to": 0.1}}, "rate"),
        ({"salt": "", "pass": {"check": "bad", "rate": 0.1, "to": 0.1}}, "salt"),
    ],
)
def test_an_audit_that_could_not_certify_is_refused(audit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound_to(audit=audit)


# ---- words ----


def test_a_verdict_names_its_severity_its_label_and_its_reason_in_the_language_of_the_policy() -> None:
    checks = {"explicit": {**BAD, "severity": "high"}}
    english, chinese = (of(bound_to(checks=checks, language=language), 0.1, 0.95) for language in ("en", "zh"))
    plain = of(bind(Policy.model_validate({"checks": checks}), LABELS), 0.95)
    assert (plain.severity, plain.label) == ("high", "Explicit/Explicit Nudity")
    assert plain.reason_text == "explicit nudity: 0.950 of 1, blocked from 0.900 on."
    assert english.reason_text != chinese.reason_text
    assert "拦截" in chinese.reason_text
    assert of(bound_to({"label": "Violence/Weapons"}), 0.95).label == "Violence/Weapons"
    assert of(bound_to(), 0.1).label is None
