"""Positive rules of more than one check, bound to a stack's votes and asked of an item; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderation.policy.aggregate import is_null
from moderation.policy.matching import attribute_values
from moderation.policy.thresholds import as_float32
from moderation.policy.vouching import Vouch
from moderation.types import ItemFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundDeclared:
    """What the item must be declared as. column_of: value of the attribute -> column; columns: all competing votes."""

    attribute: str
    columns: tuple[int, ...]
    column_of: Mapping[str, int]
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundVouch:
    """A positive rule. at_least, below: check -> float32 threshold."""

    name: str
    at_least: Mapping[str, float]
    below: Mapping[str, float]
    declared: BoundDeclared | None


def bind_vouch(name: str, rule: Vouch, negative: Sequence[str], columns: Mapping[str, int]) -> BoundVouch:
    """A rule tied to columns. negative: the names of all negative checks."""
    below = dict(rule.below)
    if rule.others_below is not None:
        below |= {check: rule.others_below for check in negative if check not in below}
    return BoundVouch(name=name, at_least=_rounded(rule.at_least), below=_rounded(below), declared=_bind(rule, columns))


def _rounded(thresholds: Mapping[str, float]) -> dict[str, float]:
    return {check: as_float32(number) or 0.0 for check, number in thresholds.items()}


def _bind(rule: Vouch, columns: Mapping[str, int]) -> BoundDeclared | None:
    declared = rule.declared
    if declared is None:
        return None
    named = declared.values or {label.partition(".")[2]: label for label in declared.votes}
    return BoundDeclared(
        attribute=declared.attribute,
        columns=tuple(columns[label] for label in declared.votes),
        column_of={value: columns[label] for value, label in named.items()},
        least=as_float32(declared.least) or 0.0,
    )


def is_as_declared(
    declared: BoundDeclared, facts: ItemFacts | None, rows: Sequence[Sequence[float]], asked: Sequence[int]
) -> bool:
    """Whether on every one of the `asked` rows the declared label scores higher than all others, and at least `least`.

    rows: votes per frame, NaN = null; false where one of the competing votes is null.
    """
    values = attribute_values(facts.attributes.get(declared.attribute)) if facts is not None else ()
    if len(values) != 1 or values[0] not in declared.column_of or not asked:
        return False
    column = declared.column_of[values[0]]
    return all(_is_top(rows[row], column, declared) for row in asked)


def _is_top(row: Sequence[float], column: int, declared: BoundDeclared) -> bool:
    if any(is_null(row[c]) for c in declared.columns):
        return False
    own = row[column]
    return own >= declared.least and all(row[c] < own for c in declared.columns if c != column)
