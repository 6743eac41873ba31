"""Decisions as labels: whose answer holds, what is kept of an audit, and that other programs read the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.labels.decided_labels import DecidedLabel, LabelRule, decide_labels, label_on, label_rows, training_rows
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.labels.effective import answers_by_item, hold
from moderation.labels.label_files import (
    conflict_rows,
    hash_labels,
    merge_decisions,
    read_labels,
    rows_for,
    write_rows,
)
from moderation.labels.resolve import find_label, resolve_labels
from moderation.labels.rows import read_label_rows
from moderation.training.prompts.labelled import read_label_rows as read_training_file

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
BLOCK, PASS = Answer.BLOCK, Answer.PASS


def said(number: int, reviewer: str, answer: Answer, item: str = "i", **more: object) -> Decision:
    values = {"decided_at": NOON + timedelta(seconds=number), "uri": f"s3://b/{item}", **more}
    return Decision(decision_id=f"{item}{number}", item_id=item, decision=answer, reviewer=reviewer, **values)  # type: ignore[arg-type] # keywords of the row


def the_label(*decisions: Decision) -> DecidedLabel:
    (label,) = decide_labels(decisions)
    return label


def test_an_expert_settles_whatever_others_agree_on() -> None:
    label = the_label(said(1, "eve", PASS, expert=True), said(2, "ann", BLOCK), said(3, "bob", BLOCK))
    assert (label.holds.decision, label.rule, label.is_disputed) == (PASS, LabelRule.EXPERT, True)


def test_two_that_agree_outvote_a_later_single_answer() -> None:
    label = the_label(said(1, "ann", BLOCK), said(2, "bob", BLOCK, labels=("gore",)), said(3, "cy", PASS))
    assert (label.label, label.rule) == ("block|gore", LabelRule.AGREED)


def test_the_latest_single_answer_holds_and_the_conflict_is_listed() -> None:
    label = the_label(said(1, "ann", BLOCK), said(2, "bob", PASS))
    assert (label.label, label.rule, label.is_disputed) == ("pass", LabelRule.LATEST, True)
    assert conflict_rows([label])[0]["answers"] == "ann:block bob:pass"


def test_a_reviewer_who_answers_twice_has_changed_their_mind() -> None:
    label = the_label(said(1, "ann", BLOCK), said(2, "bob", PASS), said(3, "ann", PASS))
    assert (label.label, label.rule, label.is_disputed) == ("pass", LabelRule.AGREED, False)


def test_an_appeal_weighs_as_much_as_an_expert() -> None:
    label = the_label(said(1, "ann", BLOCK), said(2, "bob", BLOCK), said(3, "cy", PASS, source=DecisionSource.APPEAL))
    assert (label.label, label.rule) == ("pass", LabelRule.EXPERT)


@pytest.mark.parametrize(
    ("decisions", "holds"),
    [
        ([said(1, "bob", PASS), said(2, "ann", PASS), said(3, "ann", BLOCK)], ("block", LabelRule.LATEST)),
        ([said(1, "ann", PASS), said(2, "ann", Answer.ESCALATE)], ("pass", LabelRule.LATEST)),
        (
            [
                said(1, "ann", BLOCK),
                said(2, "bob", PASS, source=DecisionSource.APPEAL),
                said(3, "eve", BLOCK, expert=True),
            ],
            ("block", LabelRule.EXPERT),
        ),
        (
            [said(1, "eve", BLOCK, expert=True), said(2, "bob", PASS, source=DecisionSource.APPEAL)],
            ("pass", LabelRule.EXPERT),
        ),
        ([said(1, "eve", BLOCK, expert=True), said(2, "eve", PASS)], ("block", LabelRule.EXPERT)),
        ([said(5, "ann", PASS), said(1, "bob", BLOCK, source=DecisionSource.IMPORT)], ("pass", LabelRule.LATEST)),
    ],
)
def test_labels_and_what_is_applied_follow_one_rule(
    decisions: Sequence[Decision], holds: tuple[str, LabelRule]
) -> None:
    label = the_label(*decisions)
    assert (label.label, label.rule) == holds
    assert hold(decisions) == {("i", None): label.holds}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.sampled_from("abc"), st.sampled_from(Answer), st.sampled_from(DecisionSource),
            st.booleans(), st.sampled_from(["aa", "bb", None]),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_labels_and_what_is_applied_never_differ(
    rows: Sequence[tuple[int, str, Answer, DecisionSource, bool, str | None]],
) -> None:
    decisions = [
        replace(said(at, who, answer, source=source, expert=expert, content_hash=content), decision_id=str(number))
        for number, (at, who, answer, source, expert, content) in enumerate(rows)
    ]
    labels = {(label.item_id, label.content_hash): label.holds for label in decide_labels(decisions)}
    assert hold(decisions) == labels


@pytest.mark.parametrize(
    "decision",
    [
        said(2, "bob", Answer.SKIP),
        said(2, "bob", Answer.ESCALATE),
        said(2, "bob", PASS, source=DecisionSource.HIDDEN),
    ],
)
def test_what_is_no_answer_does_not_count(decision: Decision) -> None:
    assert the_label(said(1, "ann", BLOCK), decision).answers == (said(1, "ann", BLOCK),)
    assert decide_labels([decision]) == []


def test_an_undone_decision_does_not_count() -> None:
    undone = [said(1, "ann", BLOCK), said(2, "ann", Answer.SKIP, undoes="i1")]
    assert decide_labels(undone) == []


def test_rows_resolve_to_the_stated_rule() -> None:
    decisions = [
        *(said(n, who, answer, "agreed") for n, (who, answer) in enumerate([("a", BLOCK), ("b", PASS), ("c", BLOCK)])),
        *(said(n, who, answer, "latest") for n, (who, answer) in enumerate([("a", BLOCK), ("b", PASS)])),
        said(1, "a", BLOCK, "words", labels=("gore",)), said(2, "b", BLOCK, "words", labels=("weapon",)),
    ]  # fmt: skip
    labels = resolve_labels(label_rows(decide_labels(decisions))).labels["item_id"]
    assert {item: label.words for item, label in labels.items()} == {
        "agreed": {"block"}, "latest": {"pass"}, "words": {"block", "weapon"},
    }  # fmt: skip


def test_answers_of_an_audit_are_kept_so_that_a_dispute_certifies_nothing() -> None:
    audit = {"source": DecisionSource.AUDIT}
    disputed = [said(1, "ann", BLOCK, **audit), said(2, "bob", PASS, **audit), said(3, "cy", BLOCK, **audit)]
    resolved = resolve_labels(label_rows(decide_labels(disputed)))
    assert resolved.audit["item_id"]["i"].words is None
    settled = [*disputed, said(4, "eve", PASS, expert=True, **audit)]
    assert resolve_labels(label_rows(decide_labels(settled))).audit["item_id"]["i"].words == {"pass"}


def test_an_answer_after_sight_of_the_verdict_is_no_label_of_the_audit() -> None:
    rows = label_rows(decide_labels([said(1, "ann", PASS, source=DecisionSource.AUDIT), said(2, "bob", PASS)]))
    label = resolve_labels(rows).audit["item_id"]["i"]
    assert (label.answers, label.settled) == (1, False)


def test_nothing_learns_from_the_audit() -> None:
    labels = decide_labels([said(1, "ann", PASS, "a", source=DecisionSource.AUDIT), said(1, "ann", PASS, "b")])
    assert [row["item_id"] for row in training_rows(labels)] == ["b"]


def test_a_label_is_of_one_content_not_of_whatever_lies_at_the_place() -> None:
    decisions = [said(1, "ann", PASS, content_hash="aa"), said(2, "bob", BLOCK, content_hash="bb")]
    labels = decide_labels(decisions)
    assert [(label.content_hash, label.label) for label in labels] == [("aa", "pass"), ("bb", "block")]
    table = resolve_labels(label_rows(labels)).labels
    found = {content: find_label(table, {"item_id": "i", "content_hash": content}) for content in ("aa", "bb", "cc")}
    assert {content: label and label.words for content, label in found.items()} == {
        "aa": {"pass"}, "bb": {"block"}, "cc": None,
    }  # fmt: skip
    assert [row["label"] for row in training_rows(labels)] == ["block"]


def test_a_block_without_a_hash_fits_any_content_and_a_pass_none() -> None:
    label = the_label(said(1, "ann", BLOCK), said(2, "bob", BLOCK, content_hash="aa"), said(3, "cy", PASS))
    assert (label.content_hash, label.rule) == ("aa", LabelRule.AGREED)
    held = hold([said(1, "ann", BLOCK, content_hash="aa"), said(2, "bob", PASS)])
    assert held["i", "aa"].decision is BLOCK


@pytest.mark.parametrize("content", ["new", None])
def test_of_a_content_that_nobody_named_a_block_without_a_hash_holds_and_a_pass_does_not(content: str | None) -> None:
    passed = [said(1, "ann", PASS, content_hash="old"), said(2, "bob", PASS)]
    assert label_on(passed, "i", content) is None
    label = label_on([*passed, said(3, "cy", BLOCK)], "i", content)
    assert label is not None and (label.holds.decision, label.content_hash) == (BLOCK, content)
    (row,) = decide_labels([said(2, "bob", PASS)])
    assert label_on([said(2, "bob", PASS)], "i", content) == replace(row, content_hash=content)


def test_a_picture_is_not_labelled_by_its_place_for_measures() -> None:
    (row,) = label_rows(decide_labels([said(1, "ann", PASS, content_hash="ab")]))
    assert row.keys == {"item_id": "i", "content_hash": "ab"}


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_labels_file_reads_back_as_the_decisions_themselves(tmp_path: Path, ending: str) -> None:
    decisions = [said(1, "ann", BLOCK, labels=("gore",), content_hash="ab"), said(2, "eve", PASS, "j", expert=True)]
    out, path = str(tmp_path / "out"), str(tmp_path / f"labels{ending}")
    append_decisions(out, decisions)
    write_rows(path, rows_for(decide_labels(decisions), train=False))
    assert read_label_rows(path) == read_labels(out) == read_labels(path)


def test_labels_of_an_output_have_a_hash_that_changes_with_them(tmp_path: Path) -> None:
    out = str(tmp_path)
    append_decisions(out, [said(1, "ann", BLOCK)])
    before = hash_labels(out)
    append_decisions(out, [said(2, "bob", BLOCK)])
    assert len(before) == 64 and hash_labels(out) != before


def test_decisions_that_say_nothing_are_no_labels(tmp_path: Path) -> None:
    append_decisions(str(tmp_path), [said(1, "ann", Answer.SKIP)])
    with pytest.raises(UsageError, match="say of no item what it is"):
        read_labels(str(tmp_path))


def test_several_outputs_are_one_history_by_time(tmp_path: Path) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    append_decisions(first, [said(5, "ann", PASS)])
    append_decisions(second, [said(3, "bob", BLOCK), said(5, "ann", PASS)])
    merged = merge_decisions([first, second])
    assert [decision.decision_id for decision in merged] == ["i3", "i5"]
    with pytest.raises(UsageError, match="no decisions there"):
        merge_decisions([str(tmp_path / "c")])


def test_training_reads_an_output_and_a_file_alike(tmp_path: Path) -> None:
    decisions = [said(1, "ann", BLOCK, labels=("gore", "weapon"), group_id="g"), said(2, "ann", PASS, "j")]
    append_decisions(str(tmp_path), decisions)
    write_rows(str(tmp_path / "l.csv"), rows_for(decide_labels(decisions), train=True))
    rows = [row for _, row in read_training_file(str(tmp_path), learned=True)]
    assert rows == [row for _, row in read_training_file(str(tmp_path / "l.csv"), learned=True)]
    assert [(row["label"], row["group"]) for row in rows] == [("gore|weapon", "g"), ("pass", "")]


def test_a_check_is_1_where_it_is_named_and_where_a_block_names_nothing() -> None:
    labels = decide_labels(
        [
            said(1, "ann", BLOCK, "named", labels=("gore",)), said(1, "ann", BLOCK, "other", labels=("weapon",)),
            said(1, "ann", BLOCK, "bare"), said(1, "ann", PASS, "fine", labels=("gore",)),
        ]
    )  # fmt: skip
    rows = rows_for(labels, train=True, check="gore")
    assert {row["item_id"]: row["label"] for row in rows} == {"named": "1", "other": "0", "bare": "1", "fine": "0"}


ANSWERS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Answer)), st.booleans()), min_size=1, max_size=8
)


@given(ANSWERS)
def test_a_label_is_an_answer_that_was_given_and_an_experts_if_there_is_one(
    given_answers: Sequence[tuple[str, Answer, bool]],
) -> None:
    decisions = [said(n, who, answer, expert=expert) for n, (who, answer, expert) in enumerate(given_answers)]
    for label in decide_labels(decisions):
        assert label.holds in label.answers
        assert label.holds.expert == any(answer.expert for answer in label.answers)
        same = sum(answer.decision is label.holds.decision for answer in label.answers)
        if label.rule is LabelRule.AGREED:
            assert same > len(label.answers) - same


def test_what_is_told_of_an_item_is_the_answer_that_holds() -> None:
    decisions = [
        said(1, "eve", BLOCK, "ruled", expert=True), said(2, "ann", PASS, "ruled", source=DecisionSource.HIDDEN),
        said(3, "bob", PASS, "ruled"), said(4, "ann", Answer.SKIP, "ruled"),
        said(5, "ann", Answer.ESCALATE, "unsure"), said(6, "ann", Answer.SKIP, "skipped"),
    ]  # fmt: skip
    assert answers_by_item(decisions) == {"ruled": BLOCK, "unsure": Answer.ESCALATE}


def test_a_label_of_an_id_that_looks_like_a_formula_is_found_again(tmp_path: Path) -> None:
    file = str(tmp_path / "labels.csv")
    write_rows(file, rows_for(decide_labels([said(1, "ann", BLOCK, "-dQw4w9")]), train=False))
    assert [row.keys["item_id"] for row in read_label_rows(file)] == ["-dQw4w9"]
