"""Files of labels joined to items."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.training.prompts.labelled import join_labels, parse_rule, read_labels
from moderation.types import Item, MediaObject

SIDES = ("mask", "against")
KINDS = ("dog", "cat")


def items_of(*paths: str) -> list[Item]:
    return [
        Item(item_id=f"id-{p}", uri=f"/pics/{p}", objects=(MediaObject(uri=f"/pics/{p}", name=p.rsplit("/", 1)[-1]),))
        for p in paths
    ]


def written(folder: Path, text: str, name: str = "labels.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_labels_of_a_two_sided_question_are_its_name_or_one_and_zero(tmp_path: Path) -> None:
    uri = written(tmp_path, "file,label\na.png,mask\nb.png,against\nc.png,1\nd.png,no\ne.png,\n")
    assert read_labels(uri, SIDES) == {"a.png": 0, "b.png": 1, "c.png": 0, "d.png": 1}


def test_labels_of_an_audit_are_not_learned(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "file,label,source\na,cat,audit\nb,dog,queue\n"), KINDS) == {"b": 0}
    # Nor the same content under another name.
    rows = "file,content_hash,label,source\na,aa,cat,audit\nb,aa,cat,queue\nc,cc,dog,queue\n"
    assert read_labels(written(tmp_path, rows), KINDS) == {"c": 0}


def test_json_lines_and_tabs_are_read_too(tmp_path: Path) -> None:
    lines = written(tmp_path, '{"uri": "/pics/a.png", "label": "cat"}\n\n{"uri": "b", "label": "dog"}\n', "l.jsonl")
    assert read_labels(lines, KINDS) == {"/pics/a.png": 1, "b": 0}
    tabs = written(tmp_path, "name\tlabel\na\tcat\n", "l.tsv")
    assert read_labels(tabs, KINDS) == {"a": 1}


def test_rules_make_classes_of_ratings_and_leave_out_the_middle(tmp_path: Path) -> None:
    uri = written(tmp_path, "img_name,moral_mean\na,1.5\nb,3\nc,4.5\nd,\n")
    rules = [parse_rule("mask: moral_mean < 2.5"), parse_rule("against: moral_mean>=4.5")]
    assert read_labels(uri, SIDES, rules=rules) == {"a": 0, "c": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,mas\n", r"line 2: no class 'mas'; did you mean 'mask'"),
        ("file,lable\na,mask\n", r"no column 'label'; did you mean 'lable'"),
        ("thing,label\na,mask\n", "names no picture"),
        ("file,label\na,mask\na,against\n", "'a' has two labels"),
        ("file,label\n", "labels nothing"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labels(written(tmp_path, text), SIDES)


def test_a_wrong_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected `class: column < number`"):
        parse_rule("mask = 1")
    with pytest.raises(UsageError, match="no class 'msk'; did you mean 'mask'"):
        read_labels(written(tmp_path, "file,x\na,1\n"), SIDES, rules=[parse_rule("msk: x < 2")])
    with pytest.raises(UsageError, match="no column 'y'"):
        read_labels(written(tmp_path, "file,x\na,1\n"), SIDES, rules=[parse_rule("mask: y < 2")])


def test_pictures_are_found_by_uri_id_path_name_or_stem() -> None:
    items = items_of("x/a.png", "x/b.png", "c.png", "d.png", "e.png", "f.png")
    labels = {"/pics/x/a.png": 0, "x/b.png": 0, "id-c.png": 1, "d.png": 1, "e": 1}
    found = join_labels(items, labels, "/pics", ("dog", "cat"))
    assert found.targets == (0, 0, 1, 1, 1)
    assert found.unlabelled == 1


def test_a_name_that_could_mean_two_pictures_is_refused() -> None:
    with pytest.raises(UsageError, match="could mean 2 pictures"):
        join_labels(items_of("x/a.png", "y/a.png"), {"a.png": 0}, "/pics", ("dog", "cat"))


def test_a_class_needs_two_pictures() -> None:
    with pytest.raises(UsageError, match="class 'cat' has 1 labelled"):
        join_labels(items_of("a", "b", "c"), {"a": 0, "b": 0, "c": 1}, "/pics", ("dog", "cat"))
    with pytest.raises(UsageError, match="none of its 1 pictures has a label; the first label is of 'z'"):
        join_labels(items_of("a"), {"z": 0}, "/pics", ("dog", "cat"))
