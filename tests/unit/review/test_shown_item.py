from __future__ import annotations

from dataclasses import fields

import yaml

from moderation.policy.model import Policy
from moderation.review.definitions import list_reasons, read_definitions
from moderation.review.items import QueueItem, blinded
from moderation.review.shown_item import ShownFacts, clock, describe_item
from moderation.review.templates import fill_template
from moderation.types import Evidence, Segment
from tests.review_server import POLICY

POLICY_MODEL = Policy.model_validate(yaml.safe_load(POLICY))
ITEM = QueueItem(
    item_id="i", uri="s3://bucket/a/b.mp4", kind="video", status="ok", together=0, verdict="review",
    reason="negative:gore:review", reason_text="Something of gore.", check="gore", score=0.4, severity="high",
    scores={"gore": 0.4, "weapon": 0.8}, confidence=0.3,
    evidence=(Evidence(detector="a", label="gore", score=0.4, frame=7, time_s=75.5, box=(0.1, 0.2, 0.5, 0.6)),),
    segments=(Segment(start_s=70.0, end_s=80.0, check="gore", score=0.4),), duration_s=3700.0, width=10, height=20,
    attributes={"a\u202eb": "c"}, error_code="truncated", error_detail="the end",
)  # fmt: skip


def test_the_deciding_check_comes_first_with_its_thresholds() -> None:
    shown = describe_item(ITEM, POLICY_MODEL, severe=True)
    assert [(c.name, c.decides, c.thresholds) for c in shown.checks] == [
        ("gore", True, (("review", 0.3),)),
        ("weapon", False, (("block", 0.95), ("review", 0.3))),
    ]
    assert shown.evidence == ("a.gore 0.40, picture 7 at 1:15.5",)
    assert shown.segments == ("gore 1:10.0 to 1:20.0: 0.40",)
    assert shown.boxes[0].frame == 7
    assert "\u202e" not in str(shown.attributes)


def test_a_blind_item_shows_nothing_that_the_machine_made() -> None:
    shown = describe_item(blinded(ITEM), POLICY_MODEL, severe=True)
    told = {"item_id", "uri", "kind", "blind", "several", "facts", "attributes"}
    empty = {f.name: getattr(shown, f.name) for f in fields(ShownFacts) if f.name not in told}
    assert not any(empty.values()), empty
    html = fill_template("item.html", item=shown, appeal=None, earlier=(), copies=(), group=None, definitions=[])
    assert "gore" not in html
    assert "Audit" in html


def test_each_class_is_one_reason_and_the_severest_comes_first() -> None:
    tree = yaml.safe_load(POLICY)
    tree["checks"]["gore_too"] = {"side": "negative", "votes": ["a.gore"], "review": 0.9, "definition": "gore"}
    policy = Policy.model_validate(tree)
    definitions = read_definitions("/nowhere", policy)
    assert [(reason.name, bool(reason.summary)) for reason in list_reasons(policy, definitions)] == [
        ("gore", True),
        ("weapon", True),
    ]


def test_times_read_like_a_clock() -> None:
    assert [clock(s) for s in (0, 75.5, 3700)] == ["0:00.0", "1:15.5", "1:01:40.0"]
