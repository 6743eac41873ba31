"""Verdicts by slice: of every attribute with few enough values, the slices where the machine is wrong most. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moderation.evaluation.measures import VerdictMeasures, measure_verdicts
from moderation.evaluation.population import JudgedItem, group_numbers
from moderation.evaluation.walks import Bools

LEAST_ITEMS = 30
_MAX_VALUES = 50  # an attribute with more is an id, or free text
_MAX_ATTRIBUTES = 50
_KIND = "kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMeasures:
    """Labelled items with one value of an attribute; `kind` is one, too."""

    attribute: str
    value: str
    measures: VerdictMeasures


def measure_slices(
    items: Sequence[JudgedItem], bad: Bools, only: Sequence[str] = (), least: int = LEAST_ITEMS
) -> tuple[SliceMeasures, ...]:
    """Slices of at least `least` items, worst first: by the lower bound of the rate of wrong decisions, then the rate.

    The lower bound, because among many small slices one looks bad by chance. only: these attributes.
    """
    members = _members(items, only)
    slices = [
        SliceMeasures(attribute=attribute, value=value, measures=_measure(value, own, items, bad))
        for attribute in sorted(members)[:_MAX_ATTRIBUTES]
        for value, own in members[attribute].items()
        if len(own) >= least
    ]
    return tuple(sorted(slices, key=_badness))


def attributes_of(items: Sequence[JudgedItem]) -> set[str]:
    """The names by which items can be sliced."""
    return {_KIND}.union(*(item.attributes for item in items))


def _members(items: Sequence[JudgedItem], only: Sequence[str]) -> Mapping[str, Mapping[str, list[int]]]:
    """attribute -> its value -> the items that have it; attributes with one value or very many are left out."""
    members: dict[str, dict[str, list[int]]] = {}
    for index, item in enumerate(items):
        for attribute, value in {**item.attributes, _KIND: item.kind}.items():
            members.setdefault(attribute, {}).setdefault(value, []).append(index)
    if only:
        return {name: members[name] for name in only if name in members}
    return {name: values for name, values in members.items() if 1 < len(values) <= _MAX_VALUES}


def _measure(value: str, own: Sequence[int], items: Sequence[JudgedItem], bad: Bools) -> VerdictMeasures:
    groups, _ = group_numbers([items[i] for i in own])
    return measure_verdicts(value, [items[i].verdict for i in own], bad[np.array(own)], groups)


def _badness(one: SliceMeasures) -> tuple[float, float, str, str]:
    wrong = one.measures.wrong
    return (-wrong.low, -(wrong.share or 0.0), one.attribute, one.value)
