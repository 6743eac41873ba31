"""Labels that a head is to learn in addition, of a file or of the reviewers of a run; and their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.config.hints import did_you_mean
from moderation.config.model import Config, SourceConfig
from moderation.detectors.heads.head_file import MAX_CLASSES, column_label
from moderation.errors import UsageError
from moderation.labels.label_files import read_training_rows
from moderation.labels.resolve import Label, LabelTable, Words, find_label, resolve_labels
from moderation.labels.rows import AUDIT, KEYS, LABEL_SUFFIXES, LabelRow, read_label_rows
from moderation.pages.text import short_line
from moderation.results.record import read_record
from moderation.sources import open_source
from moderation.training.heads.labelled import NONE
from moderation.training.prompts.labelled import names_of_item
from moderation.training.reading import hold_to_contents
from moderation.types import Item

_MAX_PICTURES: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditionReading:
    """How added labels are read.

    means: `CLASS=WORD`: the word of a label that stands for a class. new_classes: that the head does not have yet.
    several: a picture may be of several classes. images: where the pictures lie; None: the labels' own URIs.
    """

    labels: str
    images: str | None = None
    means: tuple[str, ...] = ()
    new_classes: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """Items with their added labels.

    targets: float32 [N,A]. classes: the head's, then the new ones. groups: "" where a label names none. disputed:
    items on which reviewers do not agree. unused: labels of no item of the source.
    """

    items: tuple[Item, ...]
    targets: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    disputed: int
    unused: int


def read_additions(config: Config, reading: AdditionReading, classes: Sequence[str]) -> Additions:
    """The pictures that have an added label.

    Raises UsageError for a word that is no class, naming the nearest; where no picture has a label; where the file
    cannot be read.
    """
    every = _all_classes(classes, reading)
    words = _word_table(every, reading)
    source, rows, source_config = _read_rows(reading, config.source)
    table = resolve_labels(rows)
    items = list(islice(open_source(source, source_config), _MAX_PICTURES + 1))
    if len(items) > _MAX_PICTURES:
        raise UsageError(f"{source}: over {_MAX_PICTURES:,} pictures")
    # A file that names its pictures itself names them from its own folder.
    found = _match(items, reading.images or reading.labels.rpartition("/")[0] or ".", table)
    settled = [(item, label) for item, label in found if label.words is not None]
    if not settled:
        example = next(iter(rows[0].keys.values()))
        raise UsageError(
            f"{source}: none of its {len(items):,} pictures has a label of {reading.labels}; the first label there is"
            f" of {short_line(example, 100)!r}"
        )
    return Additions(
        items=tuple(hold_to_contents([item for item, _ in settled], _contents_of(rows))),
        targets=_as_targets([label.words or frozenset() for _, label in settled], every, words, reading),
        classes=every,
        groups=tuple(label.group for _, label in settled),
        disputed=len(found) - len(settled),
        unused=_count_pictures(rows) - len(found),
    )


def _contents_of(rows: Sequence[LabelRow]) -> dict[str, str]:
    return {
        row.keys[name]: row.keys["content_hash"]
        for row in rows
        if "content_hash" in row.keys
        for name in ("item_id", "uri")
        if name in row.keys
    }


def _all_classes(classes: Sequence[str], reading: AdditionReading) -> tuple[str, ...]:
    fresh = tuple(dict.fromkeys(column_label(name) for name in reading.new_classes))
    known = [name for name in fresh if name in classes]
    if known:
        raise UsageError(f"--new-class {known[0]}: the head has this class")
    if len(classes) + len(fresh) > MAX_CLASSES:
        raise UsageError(f"--new-class: a head has at most {MAX_CLASSES} classes")
    return (*classes, *fresh)


def _word_table(classes: Sequence[str], reading: AdditionReading) -> Mapping[str, str]:
    """Word of a label, spelled as a class -> class."""
    table = {name: name for name in classes}
    for entry in reading.means:
        name, equals, word = (part.strip() for part in entry.partition("="))
        if not equals or not name or not word:
            raise UsageError(f"--means {entry!r}: expected CLASS=WORD")
        if column_label(name) not in classes:
            raise UsageError(f"--means {entry!r}: no class {name!r}{did_you_mean(name, classes)}")
        table[column_label(word)] = column_label(name)
    return table


def _read_rows(reading: AdditionReading, config: SourceConfig) -> tuple[str, list[LabelRow], SourceConfig]:
    """(source of the pictures, rows, how the source is read)."""
    if reading.labels.lower().endswith(LABEL_SUFFIXES):
        learned = _without_audit(read_label_rows(reading.labels))
        if not learned:
            raise UsageError(f"--add {reading.labels}: only labels of an audit, which nothing may learn from")
        return reading.images or reading.labels, learned, config
    record = read_record(reading.labels)
    rows = _read_decided(reading.labels)
    if record is None and not rows:
        raise UsageError(
            f"--add {reading.labels}: neither a file of labels ({', '.join(LABEL_SUFFIXES)}), nor the output of a run"
        )
    if not rows:
        raise UsageError(f"--add {reading.labels}: nobody has decided anything there yet")
    if reading.images is not None:
        return reading.images, rows, config
    identity = (record or {}).get("identity", {})
    try:
        return str(identity["source"]), rows, SourceConfig.model_validate(identity["source_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--add {reading.labels}: its record names no source; say --images, where its pictures lie"
        ) from error


def _without_audit(rows: Sequence[LabelRow]) -> list[LabelRow]:
    """The rows of items that are of no audit: whichever row of such an item is learned, the head has seen it."""
    audited = {key for row in rows if row.source == AUDIT for key in row.keys.items()}
    return [row for row in rows if not audited & row.keys.items()]


def _read_decided(out: str) -> list[LabelRow]:
    """What the decisions of a run come to, one row an item; not of the audit, whose labels are there to certify."""
    return [
        LabelRow(keys={name: row[name] for name in KEYS if row[name]}, label=row["label"], group=row["group"])
        for row in read_training_rows(out) or ()
    ]


def _match(items: Sequence[Item], root: str, table: LabelTable) -> list[tuple[Item, Label]]:
    names = [names_of_item(item, root) for item in items]
    pictures = {item.uri: own for item, own in zip(items, names, strict=True)}
    bearers = Counter(name for own in pictures.values() for name in set(own))
    found: list[tuple[Item, Label]] = []
    taken: set[int] = set()
    for item, own in zip(items, names, strict=True):
        label = find_label(table.labels, {"item_id": item.item_id})
        if label is None:
            usable = (name for name in own if bearers[name] == 1 or name == item.uri)
            label = next((table.labels["uri"][name] for name in usable if name in table.labels["uri"]), None)
        # Two rows of one picture in a file that is the source, too, are two items of it.
        if label is not None and id(label) not in taken:
            taken.add(id(label))
            found.append((item, label))
    return found


def _count_pictures(rows: Sequence[LabelRow]) -> int:
    return len({next(row.keys[key] for key in KEYS if key in row.keys) for row in rows})


def _as_targets(
    answers: Sequence[Words], classes: Sequence[str], words: Mapping[str, str], reading: AdditionReading
) -> npt.NDArray[np.float32]:
    targets = np.zeros((len(answers), len(classes)), dtype=np.float32)
    for row, answer in enumerate(answers):
        own = {_class_of(word, words, reading) for word in answer} - {""}
        if not reading.several and len(own) != 1:
            said = short_line("|".join(sorted(answer)), 80)
            raise UsageError(f"{reading.labels}: label {said!r}: a picture is of exactly one class of this head")
        targets[row, [classes.index(name) for name in own]] = 1
    return targets


def _class_of(word: str, words: Mapping[str, str], reading: AdditionReading) -> str:
    """The class that a word stands for; "" for `none` of a head of several classes."""
    label = column_label(word)
    if label in words:
        return words[label]
    if reading.several and label == NONE:
        return ""
    shown = short_line(word, 60)
    raise UsageError(
        f"{reading.labels}: label {shown!r} is no class of the head: say --means CLASS={shown} for another word of a"
        f" class, --new-class {shown} for a new one{did_you_mean(shown, sorted(words))}"
    )
