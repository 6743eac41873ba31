"""Check names -> the three-level label taxonomy of a cloud moderation API, as data, so that readers need not change.

A table is a CSV of `check, level_1, level_2, level_3`; a check without levels has no label there. The packaged one,
`taxonomies/rekognition_v7.csv`, follows the published label categories of version 7 of that API:
https://docs.aws.amazon.com/rekognition/latest/dg/moderation-api.html
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moderation.config.load import resolve_config_path
from moderation.errors import UsageError, one_line

PACKAGED = "taxonomies/rekognition_v7.csv"
_HEADER = ["check", "level_1", "level_2", "level_3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxonomyLabel:
    """One label of an item: confidence 0..100, parent "" at level 1; the fields of that API's ModerationLabel."""

    name: str
    parent: str
    level: int
    confidence: float

    def as_api(self) -> dict[str, object]:
        """The label as that API writes it."""
        return {
            "Name": self.name,
            "ParentName": self.parent,
            "TaxonomyLevel": self.level,
            "Confidence": self.confidence,
        }


def load_taxonomy(path: str | None = None) -> dict[str, tuple[str, ...]]:
    """check -> its labels from level 1 down, at most three; none where the taxonomy has none for it.

    Raises UsageError, with the line, where the table is not one.
    """
    file = resolve_config_path(path or PACKAGED)
    levels_of: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(_read_rows(file), start=2):
        levels = [row[name].strip() for name in _HEADER[1:]]
        given = [level for level in levels if level]
        if levels[: len(given)] != given:
            raise UsageError(f"{file}, line {number}: a level is empty above one that is not")
        if not row["check"] or row["check"] in levels_of:
            raise UsageError(f"{file}, line {number}: check {row['check']!r} is empty or stands twice")
        levels_of[row["check"]] = tuple(given)
    _check_parents(levels_of, file)
    return levels_of


def label_scores(
    scores: Mapping[str, float | None], taxonomy: Mapping[str, tuple[str, ...]], *, least: float = 0.5
) -> tuple[TaxonomyLabel, ...]:
    """The labels of an item by its checks' scores (0..1), where at least `least`; a parent has its child's confidence.

    Order: level 1 first, the surest first, then by name. Null scores and checks without levels give no label.
    """
    best: dict[tuple[str, ...], float] = {}
    for check, score in scores.items():
        if score is None or score < least:
            continue
        path = taxonomy.get(check, ())
        for depth in range(1, len(path) + 1):
            best[path[:depth]] = max(score, best.get(path[:depth], 0.0))
    labels = [
        TaxonomyLabel(
            name=path[-1], parent=path[-2] if len(path) > 1 else "", level=len(path), confidence=100.0 * score
        )
        for path, score in best.items()
    ]
    return tuple(sorted(labels, key=lambda label: (label.level, -label.confidence, label.name)))


def _read_rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if list(reader.fieldnames or []) != _HEADER:
                raise UsageError(f"{file}: the first line must be {','.join(_HEADER)}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file}: not readable as CSV: {one_line(error)}") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UsageError(f"{file}, line {number}: not {len(_HEADER)} cells")
    return rows


def _check_parents(levels_of: Mapping[str, tuple[str, ...]], file: Path) -> None:
    parents: dict[str, tuple[str, ...]] = {}
    for path in levels_of.values():
        for depth, name in enumerate(path):
            if parents.setdefault(name, path[:depth]) != path[:depth]:
                raise UsageError(f"{file}: {name!r} stands at two places")
