"""Labels files: what is read, what is refused, and what several answers come to."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.labels.meaning import make_meaning
from moderation.labels.resolve import find_label, resolve_labels, split_words
from moderation.labels.rows import LabelRow, read_label_rows

ROWS = [
    {"item_id": "a", "label": "bad", "reviewer": "ann", "source": "Audit", "group": "g1"},
    {"item_id": "a", "label": "bad", "reviewer": "bob", "source": "audit", "group": "g1"},
    {"item_id": "b", "label": "explicit|gore", "reviewer": "ann", "source": "report", "group": ""},
]


def csv_of(path: Path, rows: list[dict[str, str]]) -> str:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def answer(label: str, reviewer: str = "", **more: object) -> LabelRow:
    return LabelRow(keys={"item_id": "a"}, label=label, reviewer=reviewer, **more)  # type: ignore[arg-type] # keywords of the row


def test_the_same_rows_are_read_from_every_format(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "l.parquet")
    read = read_label_rows(csv_of(tmp_path / "l.csv", ROWS))
    assert read == read_label_rows(str(tmp_path / "l.jsonl")) == read_label_rows(str(tmp_path / "l.parquet"))
    assert read[0] == LabelRow(keys={"item_id": "a"}, label="bad", reviewer="ann", source="audit", group="g1")


def test_a_line_that_cannot_be_read_refuses_the_file_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("item_id,label,expert\na,bad,\nb,,\n,ok,\nc,ok,maybe\nd\n", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_label_rows(str(path))
    text = str(refused.value)
    for words in ("line 3: has no label", "line 4: names no item", "line 5: `expert` is 'maybe'", "line 6: 1 cells"):
        assert words in text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "item_id,lable\na,b\n", "no column `label`; did you mean 'lable'"),
        ("l.csv", "name,label\na,b\n", "no column that says which item"),
        ("l.csv", "", "no labels in it"),
        ("l.csv", "item_id,label\n", "no labels in it"),
        ("l.xlsx", "x", "labels are read from .csv"),
        ("l.jsonl", "[1]\n", "not an object"),
        ("l.jsonl", '{"item_id": "a", "label": {"x": 1}}\n', "`label` is not text"),
        ("l.parquet", "PAR1 no", "not readable"),
    ],
)
def test_what_is_no_labels_file_is_refused_with_a_reason(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_label_rows(str(tmp_path / name))
    with pytest.raises(UsageError, match="no such file"):
        read_label_rows(str(tmp_path / "gone.csv"))


def test_two_answers_that_agree_settle_a_label_and_one_does_not() -> None:
    table = resolve_labels([answer("bad", "ann")])
    label = find_label(table.labels, {"item_id": "a"})
    assert label is not None
    assert (label.words, label.settled) == (split_words("bad"), False)
    both = find_label(resolve_labels([answer("bad", "ann"), answer("bad", "bob")]).labels, {"item_id": "a"})
    assert both is not None
    assert both.settled


def test_a_dispute_has_no_label_until_an_expert_settles_it() -> None:
    rows = [answer("bad", "ann"), answer("ok", "bob")]
    disputed = find_label(resolve_labels(rows).labels, {"item_id": "a"})
    assert disputed is not None
    assert (disputed.words, disputed.agreed, disputed.settled) == (None, False, False)
    settled = find_label(resolve_labels([*rows, answer("ok", "eve", expert=True)]).labels, {"item_id": "a"})
    assert settled is not None
    assert (settled.words, settled.agreed, settled.settled) == (split_words("ok"), False, True)


def test_the_ruling_that_was_given_last_holds() -> None:
    rulings = [answer("bad", "eve", expert=True), answer("bad", "kim", expert=True), answer("ok", "eve", expert=True)]
    label = find_label(resolve_labels(rulings).labels, {"item_id": "a"})
    assert label is not None and label.words == {"ok"}


def test_a_reviewer_may_change_their_mind_but_counts_once() -> None:
    label = find_label(resolve_labels([answer("bad", "ann"), answer("ok", "ann")]).labels, {"item_id": "a"})
    assert label is not None
    assert (label.words, label.answers, label.settled) == (split_words("ok"), 1, False)


def test_only_rows_of_the_audit_are_in_the_audit() -> None:
    table = resolve_labels([answer("bad", "ann", source="report"), answer("ok", "bob", source="audit")])
    audit = find_label(table.audit, {"item_id": "a"})
    assert audit is not None
    assert (audit.words, audit.answers) == (split_words("ok"), 1)


@given(st.lists(st.tuples(st.sampled_from(["ok", "bad"]), st.sampled_from("abc")), max_size=8))
def test_order_among_different_reviewers_does_not_matter(answers: list[tuple[str, str]]) -> None:
    rows = [answer(label, reviewer) for label, reviewer in {r: (w, r) for w, r in answers}.values()]
    assert resolve_labels(rows).labels == resolve_labels(rows[::-1]).labels


SIDES = {"explicit": "negative", "gore": "negative", "sfw": "positive", "sharp": "attribute"}


def test_a_label_names_checks_or_says_fine_or_bad() -> None:
    meaning = make_meaning(SIDES, ["explicit", "ok", "bad"])
    explicit, bad, fine = split_words("explicit"), split_words("bad"), split_words("ok")
    assert meaning.is_bad(explicit)
    assert not meaning.is_bad(fine)
    assert (meaning.confirms(explicit, "explicit"), meaning.confirms(explicit, "gore")) == (True, False)
    assert (meaning.confirms(bad, "explicit"), meaning.confirms(bad, "gore")) == (True, True)
    assert (meaning.confirms(fine, "sfw"), meaning.confirms(bad, "sfw")) == (True, False)


def test_words_of_ones_own_are_told_apart_by_options() -> None:
    meaning = make_meaning(SIDES, ["hat", "shoe"], bad=["hat"], means=["gore=hat"])
    assert meaning.is_bad(split_words("hat"))
    assert not meaning.is_bad(split_words("shoe"))
    assert (meaning.confirms(split_words("hat"), "gore"), meaning.confirms(split_words("hat"), "explicit")) == (
        True,
        False,
    )


@pytest.mark.parametrize(
    ("words", "bad", "means", "message"),
    [
        (["explict"], [], [], "did you mean 'explicit'"),
        (["hat"], ["hta"], [], "no label says 'hta'; did you mean 'hat'"),
        (["hat"], ["hat"], ["gor=hat"], "no check 'gor'; did you mean 'gore'"),
        (["hat"], ["hat"], ["gore"], "expected CHECK=LABEL"),
    ],
)
def test_a_word_that_says_nothing_is_named(words: list[str], bad: list[str], means: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_meaning(SIDES, words, bad, means)
