"""What a policy file may say, and what is decided by it."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from moderation.config.load import packaged_configs
from moderation.config.model import DetectorConfig
from moderation.detectors.registry import build
from moderation.errors import UsageError
from moderation.policy.bind import bind
from moderation.policy.judge import judge
from moderation.policy.model import check_names, load_policy, policy_hash
from moderation.types import ItemVotes, Kind, Region, Seen, Verdict

NULL = math.nan
LABELS = ("a.bad", "b.bad", "a.fine", "q.light")

BASE = """
default: review
checks:
  bad: {side: negative, votes: [a.bad, b.bad], fuse: max, block: 0.9, review: 0.5}
  fine: {side: positive, votes: [a.fine], pass: 0.7}
  light: {side: attribute, votes: [q.light]}
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text):
        path = tmp_path / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        return load_policy(path)

    return load_text


def votes_of(*rows, labels=LABELS, regions=()):
    return ItemVotes(
        labels=labels,
        frames=tuple(10 * i for i in range(len(rows))),
        times_s=tuple(0.5 * i for i in range(len(rows))),
        scores=np.array(rows, np.float32).reshape(len(rows), len(labels)),
        regions=regions,
    )


def decide(policy, *rows, **kwargs):
    return judge(bind(policy, LABELS), votes_of(*rows, **kwargs))


# ---- optional attributes ----


def test_an_optional_attribute_is_null_where_the_stack_has_none_of_its_detectors(load):
    policy = load(BASE + "  mark: {side: attribute, votes: [m.mark], optional: true}\n")
    row = decide(policy, (0.1, 0.1, 0.8, 0.5))
    assert (row.reason, row.scores["mark"]) == ("positive:fine:pass", None)
    with_mark = (*LABELS, "m.mark")
    assert judge(bind(policy, with_mark), votes_of((0.1, 0.1, 0.8, 0.5, 0.5), labels=with_mark)).scores["mark"] == 0.5


def test_a_misspelt_vote_of_an_optional_attribute_is_refused(load):
    policy = load(BASE + "  dark: {side: attribute, votes: [q.lihgt], optional: true}\n")
    with pytest.raises(UsageError, match=r"casts no vote 'q\.lihgt'; did you mean 'q\.light'"):
        bind(policy, LABELS)


@pytest.mark.parametrize(
    "check", ["{side: negative, votes: [m.mark], review: 0.5", "{side: attribute, votes: [m.mark], null: review"]
)
def test_what_decides_is_not_optional(load, check):
    with pytest.raises(UsageError, match="`optional: true` is for attributes that decide nothing"):
        load(BASE + f"  mark: {check}, optional: true}}\n")


def test_optional_ends_no_certificate(load):
    mark = "  mark: {side: attribute, votes: [m.mark]"
    assert policy_hash(load(BASE + mark + ", optional: true}\n")) == policy_hash(load(BASE + mark + "}\n"))


# ---- the cascade ----


@pytest.mark.parametrize(
    ("row", "verdict", "reason", "check"),
    [
        ((0.95, 0.1, 0.9, 0), "block", "negative:bad:block", "bad"),
        ((0.1, 0.6, 0.9, 0), "review", "negative:bad:review", "bad"),
        ((0.1, 0.1, 0.9, 0), "pass", "positive:fine:pass", "fine"),
        ((0.1, 0.1, 0.6, 0), "review", "default:review", None),
        ((NULL, 0.1, 0.9, 0), "review", "null:bad:review", "bad"),
        ((0.1, 0.1, NULL, 0), "review", "null:fine:review", "fine"),
        ((0.1, 0.1, 0.9, NULL), "pass", "positive:fine:pass", "fine"),
    ],
)
def test_the_first_rule_that_holds_decides(load, row, verdict, reason, check):
    judgement = decide(load(BASE), row)
    assert (judgement.verdict, judgement.reason, judgement.check) == (Verdict(verdict), reason, check)


@pytest.mark.parametrize(("score", "reason"), [(0.9, "block"), (0.5, "review")])
def test_a_vote_equal_to_the_threshold_as_written_counts(load, score, reason):
    # 0.9 as float32 is a little under 0.9 as float64; the author of the file means the number that he reads.
    assert decide(load(BASE), (score, 0, 1, 0)).reason == f"negative:bad:{reason}"


def test_a_positive_check_does_not_overrule_a_negative_one_in_its_review_band(load):
    assert decide(load(BASE), (0.5, 0, 1.0, 0)).verdict is Verdict.REVIEW


def test_the_check_furthest_over_its_threshold_decides_and_ties_go_by_name(load):
    text = (
        "checks: {one: {side: negative, votes: [a.bad], block: 0.8}, two: {side: negative, votes: [b.bad], block: 0.6}}"
    )
    assert decide(load(text), (0.84, 0.72, 0, 0)).check == "two"  # 0.3 of the way to 1, the other 0.2
    tie = "checks: {z: {side: negative, votes: [a.bad], block: 0.8}, y: {side: negative, votes: [b.bad], block: 0.8}}"
    assert decide(load(tie), (0.9, 0.9, 0, 0)).check == "y"


def test_one_bad_frame_blocks_and_one_poor_frame_keeps_from_passing(load):
    fine = (0, 0, 0.9, 0)
    assert decide(load(BASE), fine, (0.95, 0, 0.9, 0), fine).verdict is Verdict.BLOCK
    assert decide(load(BASE), fine, (0, 0, 0.6, 0), fine).reason == "default:review"
    assert decide(load(BASE), fine, fine, fine).verdict is Verdict.PASS


def test_invert_uses_one_minus_the_vote(load):
    policy = load("checks: {dark: {side: negative, votes: [q.light], invert: true, review: 0.8}}")
    assert decide(policy, (0, 0, 0, 0.1)).score == pytest.approx(0.9)
    assert decide(policy, (0, 0, 0, 0.1)).reason == "negative:dark:review"
    assert decide(policy, (0, 0, 0, 0.3)).reason == "default:review"


def test_scores_hold_every_check_with_none_where_nothing_was_computed(load):
    judgement = decide(load(BASE), (0.25, 0.5, 0.75, NULL))
    assert judgement.scores == {"bad": 0.5, "fine": 0.75, "light": None}


# ---- nulls ----


def test_a_null_frame_means_review_even_beside_fine_ones(load):
    assert decide(load(BASE), (0, 0, 0.9, 0), (NULL, NULL, 0.9, 0)).reason == "null:bad:review"


def test_null_ignore_judges_by_the_other_frames(load):
    policy = load(BASE.replace("review: 0.5}", "review: 0.5, null: ignore}"))
    assert decide(policy, (0, 0, 0.9, 0), (NULL, NULL, 0.9, 0)).reason == "positive:fine:pass"
    assert decide(policy, (0.95, 0, 0.9, 0), (NULL, NULL, 0.9, 0)).reason == "negative:bad:block"


def test_a_positive_check_with_null_ignore_does_not_pass_on_a_null(load):
    policy = load(BASE.replace("pass: 0.7}", "pass: 0.7, null: ignore}"))
    assert decide(policy, (0, 0, 0.9, 0), (0, 0, NULL, 0)).reason == "default:review"


def test_an_item_without_frames_is_reviewed(load):
    assert decide(load(BASE)).verdict is Verdict.REVIEW
    ignoring = "default: pass\nchecks: {bad: {side: negative, votes: [a.bad], review: 0.5, null: ignore}}"
    assert decide(load(ignoring)).reason == "null:all:review"


def test_default_pass_needs_at_least_one_deciding_score(load):
    policy = load("default: pass\nchecks: {bad: {side: negative, votes: [a.bad], review: 0.5, null: ignore}}")
    assert decide(policy, (NULL, 0, 0, 0)).reason == "null:all:review"
    assert decide(policy, (0.1, 0, 0, 0)).reason == "default:pass"


@pytest.mark.parametrize("overflow", [math.inf, -math.inf])
def test_an_infinite_vote_counts_as_null(load, overflow):
    assert decide(load(BASE), (overflow, 0.1, 0.9, 0)).reason == "null:bad:review"
    assert decide(load(BASE), (0.1, 0.1, overflow, 0)).reason == "null:fine:review"


# ---- confidence and evidence ----


@pytest.mark.parametrize(
    ("row", "confidence"),
    [
        ((0.95, 0, 0, 0), 0.5),  # block: half of the way from 0.9 to 1
        ((0.7, 0, 0, 0), 1.0),  # review: in the middle of 0.5..0.9
        ((0.6, 0, 0, 0), 0.5),
        ((0, 0, 1.0, 0), 1.0),  # pass
        ((0, 0, 0.63, 0), 0.1),  # default: a tenth short of 0.7
        ((NULL, 0, 0.9, 0), None),
    ],
)
def test_confidence_is_the_distance_from_the_nearest_threshold(load, row, confidence):
    assert decide(load(BASE), row).confidence == pytest.approx(confidence, abs=1e-6)


def test_confidence_of_default_pass_is_the_closest_call_of_the_negative_checks(load):
    policy = load("default: pass\nchecks: {bad: {side: negative, votes: [a.bad, b.bad], block: 0.9, review: 0.5}}")
    assert decide(policy, (0.4, 0.1, 0, 0)).confidence == pytest.approx(0.2)


def test_evidence_of_a_block_is_the_check_votes_on_its_highest_frames_with_their_boxes(load):
    box = Region(detector="b", label="bad", score=0.97, x0=0.1, y0=0.2, x1=0.3, y1=0.4)
    small = Region(detector="b", label="bad", score=0.5, x0=0, y0=0, x1=0.1, y1=0.1)
    other = Region(detector="b", label="hat", score=0.99, x0=0, y0=0, x1=1, y1=1)
    rows = [(0.1, 0.2, 0, 0), (0.3, 0.97, 0, 0), (0.6, 0.5, 0, 0)]
    evidence = decide(load(BASE), *rows, regions=((), (small, other, box), ())).evidence
    assert [(e.detector, e.label, e.frame, e.time_s) for e in evidence[:3]] == [
        ("b", "bad", 10, 0.5),
        ("a", "bad", 10, 0.5),
        ("a", "bad", 20, 1.0),
    ]
    assert evidence[0].score == pytest.approx(0.97)
    assert evidence[0].box == (0.1, 0.2, 0.3, 0.4)
    assert evidence[1].box is None
    assert len(evidence) == 5


def test_evidence_of_a_pass_is_the_weakest_frame_and_the_strongest_negative_vote(load):
    evidence = decide(load(BASE), (0.4, 0.1, 0.8, 0), (0.0, 0.2, 0.75, 0)).evidence
    assert [(e.label, e.detector, e.frame) for e in evidence] == [("fine", "a", 10), ("bad", "a", 0)]


def test_evidence_of_a_default_is_the_strongest_vote_of_each_negative_label(load):
    evidence = decide(load(BASE), (0.1, 0.3, 0.1, 0), (0.4, 0.2, 0.1, 0)).evidence
    assert [(e.label, e.detector, e.frame) for e in evidence] == [("bad", "a", 10), ("bad", "b", 0)]


# ---- binding ----


def test_an_unknown_vote_names_the_check_and_the_nearest_label(load):
    policy = load("checks: {bad: {side: negative, votes: [a.bda], block: 0.9}}")
    with pytest.raises(UsageError, match=r"check 'bad'.*'a\.bda'; did you mean 'a\.bad'"):
        bind(policy, LABELS)


def test_a_gated_vote_must_say_what_a_null_means(load):
    with pytest.raises(UsageError, match=r"check 'bad': 'b\.bad' has a `when:`"):
        bind(load(BASE), LABELS, gated={"b.bad", "q.light"})
    said = load(BASE.replace("review: 0.5}", "review: 0.5, null: review}"))
    assert bind(said, LABELS, gated={"b.bad"}).checks[0].null_is_review


def test_votes_of_disabled_detectors_are_null_throughout(load):
    bound = bind(load(BASE), ("a.bad", "a.fine"), disabled=("b.bad", "q.light"))
    judgement = judge(bound, votes_of((0.1, 0.9), labels=("a.bad", "a.fine")))
    assert judgement.reason == "null:bad:review"
    assert judgement.scores == {"bad": None, "fine": pytest.approx(0.9), "light": None}


def test_votes_with_other_columns_are_refused(load):
    with pytest.raises(UsageError, match="the policy was bound to"):
        judge(bind(load(BASE), LABELS), votes_of((0.1,), labels=("a.bad",)))


def test_a_bound_policy_crosses_processes(load):
    bound = bind(load(BASE), LABELS)
    item = votes_of((0.6, 0.1, 0.9, 0.2), (0.1, 0.1, 0.9, 0.2))
    assert judge(pickle.loads(pickle.dumps(bound)), item) == judge(bound, item)  # noqa: S301 - our own bytes


# ---- the file ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("block: 0.9", "blok: 0.9"), r"checks\.bad\.blok'; did you mean 'block'"),
        (("pass: 0.7", "pss: 0.7"), r"did you mean 'pass'"),
        (("default: review", "defualt: review"), r"did you mean 'default'"),
        (("review: 0.5", "review: 0.95"), r"`review` \(0\.95\) must not be over `block` \(0\.9\)"),
        (("block: 0.9", "block: 1.5"), r"checks\.bad\.block"),
        (("block: 0.9", "pass: 0.9"), r"a negative check takes no `pass`"),
        ((", block: 0.9, review: 0.5", ""), r"a negative check needs `block` or `review`"),
        (("pass: 0.7", "pass: 0.7, pool: any"), r"a positive check pools by all or bottom_k_mean or mean"),
        (("[q.light]", "[q.light], null: ignore"), r"an attribute decides nothing"),
        (("fuse: max", "fuse: k_of_n"), r"`k_of_n` needs `k`"),
        (("fuse: max", "fuse: {method: k_of_n, k: 3}"), r"`k_of_n` of 3 needs as many votes; there are 2"),
        (("fuse: max", "fuse: {method: max, k: 2}"), r"`max` takes no `k`"),
        (("fuse: max", "fuse: median"), r"checks\.bad\.fuse\.method"),
        (("fuse: max", "pool: run"), r"`run` needs `length`"),
        (("fuse: max", "pool: {method: top_k_mean, k: 2, gap: 1}"), r"`top_k_mean` takes no `gap`"),
        (("[a.bad, b.bad]", "[a.bad, a.bad]"), r"the same label twice"),
        (("[a.bad, b.bad]", "[]"), r"checks\.bad\.votes"),
        (("[a.bad, b.bad]", "{a.bad: 1, b.bad: 2}"), r"weights mean nothing to `max`"),
        (
            ("[a.bad, b.bad], fuse: max", "{a.bad: 1, b.bad: 0}, fuse: weighted_mean"),
            r"weight of b\.bad must be over 0",
        ),
        (("  bad:", "  'so bad':"), r"name 'so bad'"),
    ],
)
def test_each_mistake_in_a_file_is_named(load, change, message):
    with pytest.raises(UsageError, match=message):
        load(BASE.replace(*change))


def test_default_pass_without_a_negative_check_is_refused(load):
    with pytest.raises(UsageError, match="would pass everything"):
        load("default: pass\nchecks: {fine: {side: positive, votes: [a.fine], pass: 0.7}}")


def test_the_bare_yaml_key_null_is_read_as_the_word(load):
    assert load(BASE.replace("review: 0.5}", "review: 0.5, null: ignore}")).checks["bad"].null == "ignore"


def test_the_names_of_checks_are_sorted(load):
    assert check_names(load("checks: {z: {side: attribute, votes: [z.z]}, a: {side: attribute, votes: [a.a]}}")) == (
        "a",
        "z",
    )


def test_the_hash_ignores_comments_order_and_shorthands_and_sees_every_number(load):
    same = """
    # the same, written otherwise
    checks:
      light: {votes: {q.light: 1}, side: attribute, pool: {method: any}}
      fine: {pass: 0.70, votes: [a.fine], side: positive, pool: all, "null": review}
      bad:
        {review: 0.5, block: 0.9, fuse: {method: max, missing: "null"}, votes: {b.bad: 1, a.bad: 1.0}, side: negative}
    """
    assert policy_hash(load(same)) == policy_hash(load(BASE))
    for old, new in [("0.9", "0.91"), ("fuse: max", "fuse: min"), ("default: review", "default: pass")]:
        assert policy_hash(load(BASE.replace(old, new))) != policy_hash(load(BASE))


# ---- the packaged policy ----

STACK = (
    *("open_nsfw.sfw", "open_nsfw.nsfw", "image_safety.nsfl", "image_safety.nsfw", "image_safety.sfw"),
    *("imagenet.weapon", "imagenet.swimwear", "imagenet.alcohol"),
    *("quality.sharpness", "quality.brightness", "quality.contrast", "quality.entropy", "quality.megapixels"),
    *("pdq.quality", "watermark.mark"),
)


@pytest.mark.parametrize(
    ("open_nsfw", "nsfl", "nsfw", "reason"),
    [
        (0.02, 0.03, 0.04, "positive:sfw:pass"),  # a plain photograph
        (0.99, 0.03, 0.93, "negative:explicit:block"),  # both networks are sure
        (0.99, 0.03, 0.05, "negative:explicit_either:review"),  # a grid of pictures: open_nsfw alone
        (0.05, 0.03, 0.93, "negative:explicit_either:review"),
        # Sample photographs near a threshold: miniskirt, bikini, sarong, hair spray, fox squirrel, teddy, loaf.
        (0.9638, 0.0346, 0.8593, "negative:explicit_either:review"),
        (0.2019, 0.0359, 0.3951, "negative:explicit_either:review"),
        (0.1476, 0.0318, 0.3792, "negative:explicit_either:review"),
        (0.0110, 0.0299, 0.3294, "default:review"),
        (0.0122, 0.3694, 0.0534, "negative:gore:review"),
        (0.0762, 0.3002, 0.0711, "negative:gore:review"),
        (0.3074, 0.0353, 0.0375, "positive:sfw:pass"),
        (0.05, 0.93, 0.03, "negative:gore:review"),  # one network alone does not block
        (0.05, 0.50, 0.10, "negative:gore:review"),
        (0.05, 0.20, 0.20, "default:review"),  # nothing found, nobody vouches
        (NULL, 0.03, 0.04, "null:explicit:review"),
    ],
)
def test_the_packaged_policy_decides_typical_votes(open_nsfw, nsfl, nsfw, reason):
    bound = bind(load_policy(packaged_configs() / "policies" / "default.yaml"), STACK)
    row = (1 - open_nsfw, open_nsfw, nsfl, nsfw, 1 - nsfl - nsfw) + (0.5,) * 10
    assert judge(bound, votes_of(row, labels=STACK)).reason == reason


PLAIN = (0.98, 0.02, 0.03, 0.04, 0.93) + (0.5,) * 10


@pytest.mark.parametrize(
    ("odd", "verdict"),
    [
        ((0.44, 0.56, 0.03, 0.04, 0.93), "pass"),  # one network errs on one frame of a video
        ((0.53, 0.47, 0.03, 0.45, 0.52), "review"),  # both half agree on one
        ((0.98, 0.02, 0.03, 0.90, 0.07), "review"),  # one network is sure of one
        ((0.98, 0.02, 0.40, 0.04, 0.56), "review"),  # gore needs no second frame
        ((0.05, 0.95, 0.03, 0.92, 0.05), "block"),  # both are sure of one
    ],
)
def test_one_odd_frame_among_plain_ones_counts_by_how_sure_the_networks_are(odd, verdict):
    bound = bind(load_policy(packaged_configs() / "policies" / "default.yaml"), STACK)
    rows = [PLAIN] * 3 + [odd + (0.5,) * 10] + [PLAIN] * 6
    assert judge(bound, votes_of(*rows, labels=STACK), seen=Seen(kind=Kind.VIDEO)).verdict == verdict


def test_the_packaged_policy_binds_to_the_labels_of_the_packaged_detectors():
    names = ("open_nsfw", "image_safety", "imagenet", "quality", "pdq", "watermark")
    labels = [f"{name}.{label}" for name in names for label in build(DetectorConfig(name=name)).labels]
    for name in ("default", "watermark"):
        policy = load_policy(packaged_configs() / "policies" / f"{name}.yaml")
        assert len(bind(policy, labels).checks) == len(check_names(policy))
