"""Marks in the packaged policies: an attribute by default; `policies/watermark.yaml` sends them to review."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moderation.config.files import packaged_configs
from moderation.config.load import load_config
from moderation.detectors.general.watermark import LEAD_THRESHOLD
from moderation.errors import UsageError
from moderation.policy.bind import bind
from moderation.policy.judge import judge
from moderation.policy.model import Policy, load_policy
from moderation.scoring.build import build_stack
from moderation.types import ItemVotes, Judgement

PLAIN = {"open_nsfw.sfw": 0.98, "open_nsfw.nsfw": 0.02, "image_safety.sfw": 0.93, "image_safety.nsfw": 0.04}


def packaged_policy(name: str) -> Policy:
    return load_policy(packaged_configs() / "policies" / f"{name}.yaml")


def judged(policy: str, mark: float) -> Judgement:
    """A plain photograph with this vote of the detector, by the labels of the default stack."""
    stack = build_stack(load_config())
    votes = dict.fromkeys(stack.labels, 0.03) | PLAIN | {"watermark.mark": mark}
    scores = np.array([[votes[label] for label in stack.labels]], np.float32)
    item = ItemVotes(labels=stack.labels, frames=(0,), times_s=(None,), scores=scores)
    return judge(bind(packaged_policy(policy), stack.labels), item)


@pytest.mark.parametrize("mark", [0.0, 1.0, math.nan])
def test_by_default_a_mark_is_written_and_decides_nothing(mark: float) -> None:
    row = judged("default", mark)
    assert row.reason == "positive:sfw:pass"
    assert row.scores["watermark"] == (None if math.isnan(mark) else mark)


@pytest.mark.parametrize(("name", "mark"), [("default", None), ("full", pytest.approx(0.03))])
def test_a_stack_of_before_the_detector_is_judged_by_the_packaged_policy_without_its_vote(
    name: str, mark: float | None
) -> None:
    policy = packaged_policy(name)
    labels = tuple(label for label in policy.votes() if not label.startswith("watermark."))
    scores = np.array([[PLAIN.get(label, 0.03) for label in labels]], np.float32)
    row = judge(bind(policy, labels), ItemVotes(labels=labels, frames=(0,), times_s=(None,), scores=scores))
    assert row.reason == "positive:sfw:pass"
    assert row.scores["watermark"] == mark  # of `full`: the names that are read


def test_the_policy_for_marks_refuses_votes_without_any() -> None:
    policy = packaged_policy("watermark")
    labels = tuple(label for label in policy.votes() if label != "watermark.mark")
    with pytest.raises(UsageError, match=r"check 'watermark': the stack casts no vote 'watermark\.mark'"):
        bind(policy, labels)


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (0.0, "positive:sfw:pass"),
        (LEAD_THRESHOLD + 0.001, "negative:watermark:review"),
        (1.0, "negative:watermark:review"),
        (math.nan, "null:watermark:review"),
    ],
)
def test_the_policy_for_marks_sends_them_to_review_and_blocks_none(mark: float, reason: str) -> None:
    assert judged("watermark", mark).reason == reason


def test_the_policy_for_marks_is_the_packaged_one_but_for_marks() -> None:
    default, marks = packaged_policy("default"), packaged_policy("watermark")
    check = marks.checks["watermark"]
    assert (check.side, check.block, check.review, check.null) == ("negative", None, LEAD_THRESHOLD, "review")
    assert default.checks["watermark"].side == "attribute"
    others = [{n: c for n, c in policy.checks.items() if n != "watermark"} for policy in (default, marks)]
    assert others[0] == others[1]
    assert marks.model_copy(update={"checks": default.checks}) == default


def test_the_full_stack_holds_the_default_one() -> None:
    default, full = (load_config(name).stack.detectors for name in ("default", "full"))
    assert [entry.title for entry in full][: len(default)] == [entry.title for entry in default]
    assert "watermark.mark" in packaged_policy("full").checks["watermark"].votes
