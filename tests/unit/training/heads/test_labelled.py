"""Where classes come from: folders, attributes, a file; and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from moderation.config.load import load_config
from moderation.errors import ItemError, UsageError
from moderation.sources.fetch import Fetcher
from moderation.training.heads.labelled import LabelReading, classify_items
from moderation.training.prompts.labelled import hold_to_labels
from moderation.types import ErrorCode, Item, MediaObject

SOURCE = "/pictures"


def item(path: str, **attributes: str) -> Item:
    uri = f"{SOURCE}/{path}"
    return Item(item_id=path, uri=uri, objects=(MediaObject(uri=uri, name=path),), attributes=attributes)


def test_folders_name_the_classes_and_loose_pictures_have_none() -> None:
    found = classify_items([item("Long Sleeve/1.jpg"), item("hat/2.jpg"), item("3.jpg")], SOURCE, LabelReading())
    assert found.classes == ("hat", "long_sleeve")
    assert found.targets.tolist() == [[0, 1], [1, 0]]
    assert found.unlabelled == 1


def test_attribute_comes_before_the_folder() -> None:
    items = [item("x/1.jpg", label="猫", by="ana"), item("x/2.jpg", label="dog", by="ben")]
    found = classify_items(items, SOURCE, LabelReading(group_column="by"))
    assert found.classes == ("dog", "猫")
    assert found.groups == ("ana", "ben")


def test_file_with_several_classes_and_none(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n1.jpg,hat|dress\n2.jpg,none\n3.jpg,\n")
    items = [item(f"{n}.jpg") for n in (1, 2, 3)]
    found = classify_items(items, SOURCE, LabelReading(labels=str(labels), several=True))
    assert found.classes == ("dress", "hat")
    assert found.targets.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,lable\n1.jpg,hat\n", "did you mean 'lable'"),
        ("picture,label\n1.jpg,hat\n", "names no picture"),
        ("file,label\n1.jpg,hat\n1.jpg,cap\n", "two labels"),
        ("file,label\n9.jpg,hat\n", "none of its 2 pictures"),
        ("file,label\n1.jpg,hat\n2.jpg,hat\n", "1 classes"),
        ("file,label\n1.jpg,...\n2.jpg,hat\n", "letters or digits"),
    ],
)
def test_labels_that_can_not_be_learned_from_are_refused(text: str, words: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    with pytest.raises(UsageError, match=words):
        classify_items([item("1.jpg"), item("2.jpg")], SOURCE, LabelReading(labels=str(labels)))


def test_class_that_the_head_does_not_have_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'dress'"):
        classify_items([item("dres/1.jpg")], SOURCE, LabelReading(), classes=("dress", "hat"))


def test_labels_of_an_audit_are_tested_on_and_never_learned(tmp_path: Path) -> None:
    """Another answer about such a picture is not learned either."""
    labels = tmp_path / "labels.csv"
    rows = ("1.jpg,hat,audit", "1.jpg,hat,queue", "2.jpg,hat,queue", "3.jpg,dress,queue")
    labels.write_text("\n".join(["file,label,source", *rows]))
    items = [item(f"{n}.jpg") for n in (1, 2, 3)]
    for learned, wanted in ((True, ["2.jpg", "3.jpg"]), (False, ["1.jpg", "2.jpg", "3.jpg"])):
        found = classify_items(items, SOURCE, LabelReading(labels=str(labels), learned=learned))
        assert [one.item_id for one in found.items] == wanted
    labels.write_text("file,label,source\n1.jpg,hat,audit\n")
    with pytest.raises(UsageError, match="only labels of an audit"):
        classify_items(items, SOURCE, LabelReading(labels=str(labels)))


def test_name_of_two_pictures_is_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n1.jpg,hat\n")
    with pytest.raises(UsageError, match="could mean 2 pictures"):
        classify_items([item("a/1.jpg"), item("b/1.jpg")], SOURCE, LabelReading(labels=str(labels)))


def replaced_since(folder: Path) -> tuple[list[Item], str]:
    """Two pictures and labels of them; the second was replaced since."""
    items = []
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(b"x")
        media = MediaObject(uri=str(folder / name), name=name)
        items.append(Item(item_id=f"id-{name}", uri=str(folder / name), objects=(media,)))
    held = hashlib.sha256(b"x").hexdigest()
    (folder / "labels.csv").write_text(f"file,label,content_hash\n1.jpg,hat,{held}\n2.jpg,dress,{held}\n")
    (folder / "2.jpg").write_bytes(b"another picture")
    return items, str(folder / "labels.csv")


@pytest.mark.parametrize("way", ["heads", "prompts"])
def test_a_picture_that_was_replaced_since_its_label_is_not_read(way: str, tmp_path: Path) -> None:
    items, labels = replaced_since(tmp_path)
    if way == "heads":
        held = classify_items(items, str(tmp_path), LabelReading(labels=labels)).items
    else:
        held = tuple(hold_to_labels(items, labels, str(tmp_path)))
    fetch = Fetcher(held, load_config(None).media)
    ((first,), (second,)) = [fetch(item) for item in held]
    assert first == b"x"
    assert isinstance(second, ItemError) and second.code is ErrorCode.CHANGED
