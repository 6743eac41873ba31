"""Pictures with their classes and groups: from a file of labels, an attribute of the items, or the names of folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.detectors.heads.head_file import MAX_CLASSES, column_label
from moderation.errors import UsageError
from moderation.training.prompts.labelled import NAMES, hold_to_labels, names_of_item, picture_of, read_label_rows
from moderation.types import Item

NONE: Final = "none"  # label of a picture of no class; only where a picture may have several classes
_SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedItems:
    """Items with their classes.

    targets: float32 [N,A], 1 where the picture is of the class. classes: labels of columns, sorted. groups: pictures
    of one group stay on one side of a split; "" where none is given. unlabelled: items without a label.
    """

    items: tuple[Item, ...]
    targets: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    unlabelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReading:
    """How labels are read. labels: URI of a file; None: an attribute of the items, else the folder they lie in.

    column, group_column: of the file, or attributes. several: `dress|hat` are two classes of one picture. learned: what
    a file labels for an audit is left out; False: a test may use it.
    """

    labels: str | None = None
    column: str = "label"
    group_column: str | None = None
    several: bool = False
    learned: bool = True


def classify_items(
    items: Sequence[Item], source: str, reading: LabelReading, *, classes: Sequence[str] | None = None
) -> ClassifiedItems:
    """The items that have a label. classes: the allowed ones (None: all that occur).

    Raises UsageError where no picture has a label, there is one class only, or a label's name fits several pictures.
    """
    if reading.labels:
        items = hold_to_labels(items, reading.labels, source)
    said = _from_file(items, source, reading) if reading.labels else _from_items(items, source, reading)
    chosen = [(item, answer) for item, answer in zip(items, said, strict=True) if answer is not None]
    if not chosen:
        where = (
            f"the labels in {reading.labels}" if reading.labels else "a label; name a file by --labels, or use folders"
        )
        raise UsageError(f"{source}: none of its {len(items):,} pictures has {where}")
    sets = [_parse(text, reading) for _, (text, _) in chosen]
    names = tuple(sorted(frozenset[str]().union(*sets))) if classes is None else tuple(classes)
    _refuse_classes(names, sets, source)
    targets = _as_targets(sets, names)
    return ClassifiedItems(
        items=tuple(item for item, _ in chosen),
        targets=targets,
        classes=names,
        groups=tuple(group for _, (_, group) in chosen),
        unlabelled=len(items) - len(chosen),
    )


def _as_targets(sets: Sequence[frozenset[str]], names: Sequence[str]) -> npt.NDArray[np.float32]:
    targets = np.zeros((len(sets), len(names)), dtype=np.float32)
    for row, own in enumerate(sets):
        targets[row, [names.index(name) for name in own]] = 1
    return targets


_Said = tuple[str, str]  # the label as written, the group


def _from_items(items: Sequence[Item], source: str, reading: LabelReading) -> list[_Said | None]:
    by_attribute = any(reading.column in item.attributes for item in items)
    said: list[_Said | None] = []
    for item in items:
        text = item.attributes.get(reading.column, "") if by_attribute else _folder_of(item, source)
        group = item.attributes.get(reading.group_column, "") if reading.group_column else ""
        said.append((text, group) if text.strip() else None)
    return said


def _folder_of(item: Item, source: str) -> str:
    root = storage.canonical(source).rstrip("/") + "/"
    folder, slash, _ = item.uri.removeprefix(root).rpartition("/")
    return folder.rpartition("/")[2] if slash and item.uri.startswith(root) else ""


def _from_file(items: Sequence[Item], source: str, reading: LabelReading) -> list[_Said | None]:
    assert reading.labels is not None  # the caller has checked
    labels = _read_file(reading.labels, reading)
    names = [names_of_item(item, source) for item in items]
    bearers = Counter(name for own in names for name in set(own))
    return [_label_of(own, labels, bearers) for own in names]


def _label_of(own: Sequence[str], labels: Mapping[str, _Said], bearers: Mapping[str, int]) -> _Said | None:
    name = next((name for name in own if name in labels), None)
    if name is not None and bearers[name] > 1:
        raise UsageError(f"the label of {name!r} could mean {bearers[name]} pictures; write more of its path")
    return None if name is None else labels[name]


def _read_file(uri: str, reading: LabelReading) -> dict[str, _Said]:
    labels: dict[str, _Said] = {}
    for number, row in read_label_rows(uri, learned=reading.learned):
        where = f"{uri}, line {number}"
        key, answer = _read_row(row, reading, where)
        if answer[0] and labels.setdefault(key, answer) != answer:
            raise UsageError(f"{where}: {key!r} has two labels; --several takes a{_SEPARATOR}b")
    if not labels:
        raise UsageError(f"{uri}: labels nothing")
    return labels


def _read_row(row: Mapping[str, str], reading: LabelReading, where: str) -> tuple[str, _Said]:
    key = picture_of(row)
    if not key:
        raise UsageError(f"{where}: names no picture; a column is called one of: {', '.join(NAMES)}")
    for column in filter(None, (reading.column, reading.group_column)):
        if column not in row:
            raise UsageError(f"{where}: no column {column!r}{did_you_mean(column, row)}")
    return key, (row[reading.column].strip(), row[reading.group_column] if reading.group_column else "")


def _parse(text: str, reading: LabelReading) -> frozenset[str]:
    if not reading.several:
        return frozenset({column_label(text)})
    return frozenset(column_label(word) for word in text.split(_SEPARATOR) if word.strip().lower() not in ("", NONE))


def _refuse_classes(names: Sequence[str], sets: Sequence[frozenset[str]], source: str) -> None:
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UsageError(f"{source}: labels of {len(names)} classes; a head has 2 to {MAX_CLASSES}")
    for own in sets:
        for name in own:
            if name not in names:
                raise UsageError(f"{source}: no class {name!r}{did_you_mean(name, names)}")


def refuse_small_classes(counts: Mapping[str, int], failed: Mapping[str, str]) -> None:
    """Raises UsageError for a class of fewer than two readable pictures: it can't be both held back and learned."""
    for name, count in counts.items():
        if count < 2:
            why = f" ({len(failed)} failed, the first: {' '.join(next(iter(failed.items())))})" if failed else ""
            raise UsageError(f"class {name!r} has {count} pictures that can be read; at least two are needed{why}")


def refuse_two_labels(
    items: Sequence[Item], targets: npt.NDArray[np.float32], repeated: Sequence[tuple[int, int]]
) -> None:
    """Raises UsageError where items of the same bytes, as pairs of their rows, are labelled as different classes."""
    for first, other in repeated:
        if (targets[first] != targets[other]).any():
            raise UsageError(
                f"{items[first].uri} and {items[other].uri} are the same picture, labelled as different classes"
            )
