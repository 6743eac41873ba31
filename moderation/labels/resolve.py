"""Answers to labels: what reviewers agree on, what an expert settled, and what is in dispute. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from moderation.labels.rows import AUDIT, KEYS, LabelRow

Words = frozenset[str]
_CONTENT: Final = "content_hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What an item is. words: None where reviewers disagree and no expert settled it.

    answers: from different reviewers. agreed: whether all of them were the same. settled: by an expert, or by two
    answers or more that agree; certificates ask for it. probability: with which the item was drawn to be labelled.
    content_hash: what was looked at; None: not said.
    """

    words: Words | None
    answers: int
    agreed: bool
    settled: bool
    group: str = ""
    probability: float | None = None
    content_hash: str | None = None

    def fits(self, content_hash: str | None) -> bool:
        """Whether it may be the label of this content: another picture may lie at the same place by now."""
        return None in (self.content_hash, content_hash) or self.content_hash == content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Labels by the three ways in which a row may name its item: name of the key -> its value -> the label.

    rows: of the file. audit: the labels of audit rows alone; other items were chosen by somebody, and never certify.
    """

    rows: int
    labels: Mapping[str, Mapping[str, Label]]
    audit: Mapping[str, Mapping[str, Label]]

    @property
    def words(self) -> Words:
        """Every word that a label uses."""
        return frozenset(
            word for by_key in self.labels.values() for label in by_key.values() for word in label.words or ()
        )


def split_words(label: str) -> Words:
    """`explicit | gore` -> its words."""
    return frozenset(word.strip() for word in label.split("|") if word.strip())


def resolve_labels(rows: Iterable[LabelRow]) -> LabelTable:
    """One label per item. A reviewer who answers twice has changed their mind: the later answer holds."""
    listed = list(rows)
    return LabelTable(
        rows=len(listed),
        labels=_resolve(listed),
        audit=_resolve([row for row in listed if row.source == AUDIT]),
    )


def find_label(labels: Mapping[str, Mapping[str, Label]], keys: Mapping[str, str | None]) -> Label | None:
    """The label of an item, by its id, else by its URI, else by its content."""
    for name in KEYS:
        value = keys.get(name)
        label = None if value is None else labels[name].get(value)
        if label is not None and label.fits(keys.get("content_hash")):
            return label
    return None


def _resolve(rows: list[LabelRow]) -> dict[str, dict[str, Label]]:
    resolved: dict[str, dict[str, Label]] = {name: {} for name in KEYS}
    answers: dict[tuple[str, str], list[LabelRow]] = {}
    for row in rows:
        # A row that names its item by several keys is found by each of them.
        for name, value in row.keys.items():
            answers.setdefault((name, value), []).append(row)
    for (name, value), given in answers.items():
        content = next((own for row in reversed(given) if (own := row.keys.get(_CONTENT))), None)
        # Of an item with several contents the last one holds; the others are found by their hash.
        rows_of_it = [row for row in given if row.keys.get(_CONTENT, content) == content]
        resolved[name][value] = replace(_settle(rows_of_it), content_hash=content)
    return resolved


def _settle(rows: list[LabelRow]) -> Label:
    # Without a name nobody knows who answered: each row counts as another reviewer's.
    latest: dict[str, LabelRow] = {}
    for index, row in enumerate(rows):
        name = row.reviewer or f"\0{index}"
        latest.pop(name, None)  # so that they stand in the order of the answers that hold
        latest[name] = row
    answers, rulings = _words(latest.values(), expert=False), _words(latest.values(), expert=True)
    group = next((row.group for row in rows if row.group), "")
    probability = min((row.probability for row in rows if row.probability is not None), default=None)
    agreed = len(set(answers)) <= 1
    if rulings:
        return Label(
            words=rulings[-1], answers=len(latest), agreed=agreed, settled=True, group=group, probability=probability
        )
    words = answers[0] if agreed else None
    settled = agreed and len(answers) > 1
    return Label(words=words, answers=len(latest), agreed=agreed, settled=settled, group=group, probability=probability)


def _words(rows: Iterable[LabelRow], *, expert: bool) -> list[Words]:
    return [split_words(row.label) for row in rows if row.expert is expert]
