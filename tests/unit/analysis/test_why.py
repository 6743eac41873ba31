"""Why an item has its verdict, and what would have changed it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.analysis.what_if import find_changes
from moderation.analysis.why import explain_item
from moderation.errors import UsageError
from moderation.policy.bind import bind
from moderation.policy.judge import judge
from moderation.policy.model import Policy
from moderation.types import ItemVotes
from tests.finished_run import Made, write_run

LABELS = ("a.mask", "a.fine")
POLICY = """
default: review
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5, block: 0.9, null: review}
  fine: {side: positive, votes: [a.fine], pass: 0.8, null: ignore}
"""
ITEMS = [
    Made(name="blocked.png", votes=[(0.1, 0.5), (0.95, 0.1)]),
    Made(name="passed.png", votes=[(0.1, 0.9)]),
    Made(name="unsure.png", votes=[(0.1, 0.7)]),
    Made(name="unasked.png", votes=[(None, 0.9)]),
    Made(name="broken.png", votes=None),
    Made(name="passed.png.copy", votes=[(0.1, 0.9)]),
]


@pytest.fixture
def out(tmp_path: Path) -> str:
    return write_run(tmp_path, LABELS, ITEMS, POLICY)


def test_a_block_names_check_threshold_frame_and_the_nearest_change(out: str) -> None:
    explained = explain_item(out, "blocked.png")
    assert (explained.verdict, explained.check) == ("block", "mask")
    assert explained.threshold == pytest.approx(0.9)
    assert explained.sentence == "The check `mask` scored 0.95: at or over its `block` of 0.9."
    assert explained.evidence[0]["frame"] == 1
    assert explained.judged_again == ("block", "negative:mask:block")
    (change,) = explained.changes
    assert (change.check, change.name, change.verdict) == ("mask", "block", "review")
    assert change.distance == pytest.approx(0.05)


def test_a_pass_would_be_a_review_below_its_threshold(out: str) -> None:
    explained = explain_item(out, "passed.png")
    assert [(c.check, c.name, c.verdict) for c in explained.changes] == [
        ("fine", "pass", "review"),
        ("mask", "review", "review"),
    ]


def test_a_default_says_what_would_have_passed_it(out: str) -> None:
    explained = explain_item(out, "unsure.png")
    assert explained.sentence == "No check decided, and the policy's `default` is review."
    assert [(c.check, c.name, c.verdict) for c in explained.changes] == [("fine", "pass", "pass")]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("unasked.png", "The check `mask` has no score on some frame, and its policy says that a person then looks."),
        ("broken.png", "A known type that its decoder refuses. An item with an error is never passed."),
    ],
)
def test_what_no_threshold_decided_is_said_in_words(out: str, name: str, sentence: str) -> None:
    explained = explain_item(out, name)
    assert explained.sentence == sentence
    assert explained.threshold is None
    assert explained.changes == ()


def test_an_item_is_found_by_id_start_uri_and_its_end(out: str, tmp_path: Path) -> None:
    for wanted in ("blocked.png", "block", f"{tmp_path}/in/blocked.png", "in/blocked.png", "./in/blocked.png"):
        assert explain_item(out, wanted).item_id == "blocked.png"
    # An id is meant before the start of another.
    assert explain_item(out, "passed.png").item_id == "passed.png"


def test_several_items_and_none_are_told_with_names(out: str) -> None:
    with pytest.raises(UsageError, match=r"5 items are meant by '\.png', such as\n"):
        explain_item(out, ".png")
    with pytest.raises(UsageError, match=r"no item 'bloked\.png' there; did you mean 'blocked\.png'"):
        explain_item(out, "bloked.png")


def test_a_stored_verdict_that_judging_again_does_not_bear_out_is_said(out: str, tmp_path: Path) -> None:
    # This run kept no policy, so that its file counts.
    (tmp_path / "policy.yaml").write_text(POLICY.replace("pass: 0.8", "pass: 0.95"))
    explained = explain_item(out, "passed.png")
    assert explained.differs
    assert explained.judged_again == ("review", "default:review")
    shown = CliRunner().invoke(app, ["why", out, "passed.png"])
    assert "not what is stored" in shown.stdout


def test_the_job_tells_it_in_words_and_as_json(out: str) -> None:
    shown = CliRunner().invoke(app, ["why", out, "blocked.png"])
    assert "review, had `mask` scored less than 0.9 (0.050 less), or were its `block` over 0.95" in shown.stdout
    told = json.loads(CliRunner().invoke(app, ["why", out, "blocked.png", "--json"]).stdout)
    assert told["verdict"] == "block"
    assert told["changes"][0]["distance"] == pytest.approx(0.05)
    assert len(told["votes"]) == 4


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=3))
def test_every_change_that_is_told_holds_when_the_score_moves(frames: list[tuple[float, float]]) -> None:
    import yaml

    policy = Policy.model_validate(yaml.safe_load(POLICY.replace("null:", '"null":')))
    bound = bind(policy, LABELS)
    count = len(frames)
    votes = ItemVotes(
        labels=LABELS, frames=tuple(range(count)), times_s=(None,) * count, scores=np.array(frames, np.float32)
    )
    judgement = judge(bound, votes)
    for change in find_changes(judgement, bound, lambda other: judge(other, votes)):
        # The score itself on the other side, by moving the votes of that check in every frame.
        column = {"mask": 0, "fine": 1}[change.check]
        moved = votes.scores.copy()
        target = np.float32(change.threshold)
        moved[:, column] = target if change.score < target else np.nextafter(target, np.float32(-1))
        again = judge(
            bound, ItemVotes(labels=LABELS, frames=votes.frames, times_s=votes.times_s, scores=np.clip(moved, 0, 1))
        )
        assert str(again.verdict) == change.verdict


def test_a_rule_of_lists_is_told_in_its_own_words(tmp_path: Path) -> None:
    policy = POLICY + "lists:\n  friends: {action: allow, by: owner, entries: [ann]}\n"
    items = [Made(name="friend.png", votes=[(0.1, 0.1)], attributes={"owner": "ann"})]
    explained = explain_item(write_run(tmp_path, LABELS, items, policy), "friend.png")
    assert (explained.verdict, explained.reason) == ("pass", "list:friends:pass")
    assert "friends" in explained.sentence
    assert not explained.differs
