"""What would have changed a verdict: moves each threshold across the item's score, and judges the item again.

Nothing is estimated: a change is reported only where the judge itself decides otherwise with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy
from moderation.types import Judgement

THRESHOLDS = ("block", "review", "pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A threshold that decides otherwise when the score lies on its other side.

    check, name: whose threshold, and which (`block`, `review`, `pass`). threshold, score: the present ones. verdict:
    the new one. distance: between threshold and score, 0..1.
    """

    check: str
    name: str
    threshold: float
    score: float
    verdict: str

    @property
    def distance(self) -> float:
        """How far the score is from the threshold."""
        return abs(self.score - self.threshold)


def find_changes(
    judgement: Judgement,
    bound: BoundPolicy,
    judge: Callable[[BoundPolicy], Judgement | None],
    *,
    disabled: Collection[str] = (),
) -> list[WhatIf]:
    """Every threshold of one check that would have changed the verdict by itself, the nearest first.

    judge: judges the item by another policy. disabled: as in `bind`.
    """
    changes = []
    for check, name, threshold in thresholds_of(bound.policy):
        score = judgement.scores.get(check)
        if score is None:
            continue
        moved = _with_threshold(bound.policy, check, name, _beyond(score, threshold))
        other = None if moved is None else judge(bind(moved, bound.labels, disabled=disabled, as_of=bound.as_of))
        if other is not None and other.verdict != judgement.verdict:
            changes.append(WhatIf(check=check, name=name, threshold=threshold, score=score, verdict=str(other.verdict)))
    return sorted(changes, key=lambda change: (change.distance, change.check, change.name))


def thresholds_of(policy: Policy) -> Iterator[tuple[str, str, float]]:
    """(check, `block`, `review` or `pass`, its value) of every threshold that is set."""
    for check, section in policy.checks.items():
        values: Mapping[str, float | None] = {
            "block": section.block,
            "review": section.review,
            "pass": section.pass_,
        }
        yield from ((check, name, value) for name, value in values.items() if value is not None)


def _beyond(score: float, threshold: float) -> float:
    """The nearest threshold that lies on the other side of the score, by float32."""
    if np.float32(score) >= np.float32(threshold):
        return float(np.nextafter(np.float32(score), np.float32(math.inf)))
    return score


def _with_threshold(policy: Policy, check: str, name: str, value: float) -> Policy | None:
    """The policy with one threshold moved; None where it would be invalid (a review over its block)."""
    # Only the check is validated: a policy may have lists of a million entries.
    section = policy.checks[check]
    tree = section.model_dump(mode="json", by_alias=True, exclude_unset=True) | {name: value}
    try:
        moved = type(section).model_validate(tree)
    except ValidationError:
        return None
    return policy.model_copy(update={"checks": {**policy.checks, check: moved}})
