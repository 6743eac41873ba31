"""What was not looked at is never passed; and a pool may differ by kind of item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moderation.config.load import packaged_configs
from moderation.errors import UsageError
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge
from moderation.policy.model import load_policy, policy_hash
from moderation.types import ErrorCode, ItemVotes, Kind, Seen, Verdict

FINE = 0.1
POLICY = """
checks:
  bad: {side: negative, votes: [a.bad], block: 0.9, review: 0.5, pool: POOL}
  fine: {side: positive, votes: [a.fine], pass: 0.6}
"""


def bound_policy(folder: Path, text: str) -> BoundPolicy:
    path = folder / "policy.yaml"
    path.write_text(text)
    return bind(load_policy(path), ["a.bad", "a.fine"])


def votes(*bad: float) -> ItemVotes:
    return ItemVotes(
        labels=("a.bad", "a.fine"),
        frames=tuple(range(len(bad))),
        times_s=(None,) * len(bad),
        scores=np.array([[score, 0.95] for score in bad], dtype=np.float32),
    )


def seen(kind: Kind = Kind.VIDEO, gap_s: float | None = None, duration_s: float = 60.0, *unseen: str) -> Seen:
    return Seen(kind=kind, duration_s=duration_s, widest_gap_s=gap_s, unseen=unseen)


@pytest.fixture
def plain(tmp_path: Path) -> BoundPolicy:
    return bound_policy(tmp_path, POLICY.replace("POOL", "any"))


@pytest.mark.parametrize("what", ["track", "picture", "frames"])
def test_an_item_with_something_unseen_is_reviewed_by_that_name(plain: BoundPolicy, what: str) -> None:
    judged = judge(plain, votes(FINE), seen=seen(Kind.IMAGE, None, 0.0, what))
    assert (judged.verdict, judged.reason, judged.check) == (Verdict.REVIEW, f"unseen:{what}", None)


@pytest.mark.parametrize(
    ("gap_s", "duration_s", "reason"),
    [
        (10.0, 60.0, "positive:fine:pass"),
        (10.1, 60.0, "unseen:gap"),
        (59.0, 3599.0, "unseen:gap"),
        (59.0, 3600.0, "positive:fine:pass"),
        (61.0, 7200.0, "unseen:gap"),
        (None, 60.0, "positive:fine:pass"),
    ],
)
def test_the_widest_gap_decides_by_the_length(
    plain: BoundPolicy, gap_s: float | None, duration_s: float, reason: str
) -> None:
    assert judge(plain, votes(FINE, FINE), seen=seen(Kind.VIDEO, gap_s, duration_s)).reason == reason


def test_what_was_seen_may_still_block_or_be_reviewed_by_its_check(plain: BoundPolicy) -> None:
    assert judge(plain, votes(0.95), seen=seen(Kind.VIDEO, 99.0)).reason == "negative:bad:block"
    assert judge(plain, votes(0.7), seen=seen(Kind.VIDEO, 99.0)).reason == "negative:bad:review"


def test_an_error_is_named_before_what_was_not_seen(plain: BoundPolicy) -> None:
    judged = judge(plain, votes(FINE), ErrorCode.TRUNCATED, seen(Kind.VIDEO, 99.0))
    assert judged.reason == "error:truncated"


def test_a_policy_may_allow_any_gap(tmp_path: Path) -> None:
    text = "unseen: {max_gap_s: null}\n" + POLICY.replace("POOL", "any")
    assert judge(bound_policy(tmp_path, text), votes(FINE), seen=seen(Kind.VIDEO, 99.0)).verdict is Verdict.PASS


BY_KIND = "{album: any, image: any, other: {method: top_k_mean, k: 3}}"


@pytest.mark.parametrize(("kind", "verdict"), [(Kind.ALBUM, Verdict.BLOCK), (Kind.VIDEO, Verdict.PASS)])
def test_one_bad_picture_makes_an_album_bad_but_not_one_frame_a_video(
    tmp_path: Path, kind: Kind, verdict: Verdict
) -> None:
    policy = bound_policy(tmp_path, POLICY.replace("POOL", BY_KIND + ", isolated: ignore"))
    assert judge(policy, votes(0.95, FINE, FINE), seen=seen(kind, 1.0)).verdict is verdict


def test_a_wrong_kind_is_refused_with_the_nearest_right_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="albums"):
        bound_policy(tmp_path, POLICY.replace("POOL", "{albums: any}"))


def test_a_positive_check_stays_cautious_for_every_kind(tmp_path: Path) -> None:
    text = POLICY.replace("POOL", "any").replace("pass: 0.6", "pass: 0.6, pool: {album: any}")
    with pytest.raises(UsageError, match="one fine frame can pass"):
        bound_policy(tmp_path, text)


def test_one_pool_for_all_and_the_same_for_each_kind_have_one_hash(tmp_path: Path) -> None:
    every = "{image: any, animation: any, album: any, video: any, keyframes: any, other: any}"
    one = bound_policy(tmp_path, POLICY.replace("POOL", "any")).policy
    assert policy_hash(one) == policy_hash(bound_policy(tmp_path, POLICY.replace("POOL", every)).policy)


@pytest.mark.parametrize("name", ["default.yaml", "full.yaml"])
def test_the_packaged_policies_review_an_album_with_one_bad_picture(name: str) -> None:
    policy = load_policy(packaged_configs() / "policies" / name)
    labels = sorted({label for check in policy.checks.values() for label in check.votes})
    bound = bind(policy, labels, gated=())
    scores = np.full((3, len(labels)), 0.0, dtype=np.float32)
    for row in scores:
        row[labels.index("image_safety.sfw")] = row[labels.index("open_nsfw.sfw")] = 0.95
    scores[1, labels.index("open_nsfw.nsfw")] = 0.6
    item = ItemVotes(labels=tuple(labels), frames=(0, 1, 2), times_s=(None,) * 3, scores=scores)
    assert judge(bound, item, seen=Seen(kind=Kind.ALBUM)).verdict is Verdict.REVIEW
    assert judge(bound, item, seen=Seen(kind=Kind.ANIMATION)).verdict is Verdict.REVIEW
