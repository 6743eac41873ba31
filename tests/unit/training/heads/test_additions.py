"""Labels that a head is to learn in addition: whose they are, what their words mean, and what is refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moderation.config.load import load_config
from moderation.errors import ItemError, UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.sources.fetch import Fetcher
from moderation.training.heads.additions import AdditionReading, Additions, read_additions
from moderation.types import ErrorCode

CLASSES = ("dress", "hat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures by their names: their bytes are not read here."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (pictures / name).write_bytes(b"x")
    return tmp_path


def read(folder: Path, text: str, *, images: bool = True, **options: tuple[str, ...] | bool) -> Additions:
    labels = folder / "labels.csv"
    labels.write_text(text)
    source = str(folder / "pictures") if images else None
    reading = AdditionReading(labels=str(labels), images=source, **options)  # type: ignore[arg-type] # of either type
    return read_additions(load_config(None), reading, CLASSES)


def names(additions: Additions) -> list[str]:
    return [item.uri.rpartition("/")[2] for item in additions.items]


def test_pictures_with_a_label_are_learned_and_labels_without_a_picture_counted(folder: Path) -> None:
    found = read(folder, "uri,label\n1.jpg,hat\n3.jpg,dress\n9.jpg,hat\n")
    assert names(found) == ["1.jpg", "3.jpg"]
    assert found.targets.tolist() == [[0, 1], [1, 0]]
    assert found.unused == 1


def test_labels_file_names_its_pictures_itself_where_no_images_are_given(folder: Path) -> None:
    found = read(folder, "uri,label\npictures/1.jpg,hat\npictures/2.jpg,dress\n", images=False)
    assert names(found) == ["1.jpg", "2.jpg"]


def test_reviewers_who_disagree_are_not_learned_from_unless_an_expert_settles_it(folder: Path) -> None:
    text = "uri,label,reviewer,expert\n1.jpg,hat,a,\n1.jpg,dress,b,\n2.jpg,hat,a,\n2.jpg,dress,b,\n2.jpg,dress,c,true\n"
    found = read(folder, text)
    assert (names(found), found.disputed) == (["2.jpg"], 1)
    assert found.targets.tolist() == [[1, 0]]


def test_two_rows_of_one_picture_in_a_file_of_pictures_are_one_picture(folder: Path) -> None:
    found = read(folder, "uri,label,reviewer\npictures/1.jpg,hat,a\npictures/1.jpg,hat,b\n", images=False)
    assert names(found) == ["1.jpg"]


def test_other_words_and_new_classes_are_told_by_options(folder: Path) -> None:
    found = read(folder, "uri,label\n1.jpg,block\n2.jpg,Scarf\n", means=("hat=block",), new_classes=("scarf",))
    assert found.classes == ("dress", "hat", "scarf")
    assert found.targets.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_head_of_several_classes_takes_several_words_and_none(folder: Path) -> None:
    found = read(folder, "uri,label\n1.jpg,hat|dress\n2.jpg,none\n", several=True)
    assert found.targets.tolist() == [[1, 1], [0, 0]]


def test_decisions_of_a_run_are_learned_and_those_of_its_audit_never(folder: Path) -> None:
    out = str(folder / "run")
    now = datetime.now(UTC)
    answers = {"1.jpg": ("hat", DecisionSource.QUEUE), "2.jpg": ("dress", DecisionSource.AUDIT)}
    decisions = [
        Decision(
            decision_id=name,
            item_id=name,
            uri=str(folder / "pictures" / name),
            decision=Answer.PASS,
            labels=(word,),
            reviewer="ana",
            decided_at=now,
            source=source,
        )
        for name, (word, source) in answers.items()
    ]
    append_decisions(out, decisions)
    reading = AdditionReading(labels=out, images=str(folder / "pictures"))
    assert names(read_additions(load_config(None), reading, CLASSES)) == ["1.jpg"]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("uri,label\n1.jpg,drss\n", {}, "did you mean 'dress'"),
        ("uri,label\n1.jpg,hat|dress\n", {}, "exactly one class"),
        ("uri,label\n9.jpg,hat\n", {}, "none of its 3 pictures"),
        ("uri,lable\n1.jpg,hat\n", {}, "no column `label`"),
        ("uri,label\n1.jpg,hat\n", {"means": ("hat",)}, "CLASS=WORD"),
        ("uri,label\n1.jpg,hat\n", {"means": ("hut=block",)}, "did you mean 'hat'"),
        ("uri,label\n1.jpg,hat\n", {"new_classes": ("hat",)}, "has this class"),
    ],
)
def test_what_can_not_be_learned_is_refused(
    text: str, options: dict[str, tuple[str, ...]], words: str, folder: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        read(folder, text, **options)


def test_labels_of_an_audit_in_a_file_are_not_learned(folder: Path) -> None:
    found = read(folder, "uri,label,source\n1.jpg,hat,audit\n2.jpg,dress,queue\n")
    assert names(found) == ["2.jpg"]
    with pytest.raises(UsageError, match="only labels of an audit"):
        read(folder, "uri,label,source\n1.jpg,hat,audit\n")
    # Nor is another answer about such a picture.
    found = read(folder, "uri,label,source\n1.jpg,hat,audit\n1.jpg,hat,queue\n2.jpg,dress,queue\n")
    assert names(found) == ["2.jpg"]


def test_a_picture_that_was_replaced_since_its_label_is_not_learned(folder: Path) -> None:
    held = hashlib.sha256(b"x").hexdigest()
    found = read(folder, f"uri,label,content_hash\n1.jpg,hat,{held}\n2.jpg,dress,{held}\n")
    (folder / "pictures" / "2.jpg").write_bytes(b"another picture")
    fetch = Fetcher(found.items, load_config(None).media)
    ((first,), (second,)) = [fetch(item) for item in found.items]
    assert first == b"x"
    assert isinstance(second, ItemError) and second.code is ErrorCode.CHANGED
