"""When a detector of the stack runs: a condition on an earlier vote."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.types import F32

_COMPARE: Mapping[str, Callable[[F32, float], npt.NDArray[np.bool_]]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


_CONDITION = re.compile(
    r"^\s*(?P<vote>[\w.\-]+)\s*(?P<compare>>=|<=|>|<)\s*(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`when: open_nsfw.nsfw >= 0.1`: a detector runs on the frames that meet it; null never meets it."""

    vote: str
    compare: str
    number: float

    def met(self, scores: F32) -> npt.NDArray[np.bool_]:
        """bool [B] from the votes' scores, float32 [B]; NaN never meets it."""
        return _COMPARE[self.compare](scores, self.number)


def parse_condition(text: str, labels: Sequence[str]) -> Condition:
    """Parse `open_nsfw.nsfw >= 0.1`. Raises UsageError unless the vote is one of the earlier `labels`."""
    match = _CONDITION.match(text)
    if match is None:
        raise UsageError(f"when: {text!r}: expected `detector.label >= number` (or >, <=, <)")
    vote = match["vote"]
    if vote not in labels:
        hint = did_you_mean(vote, labels) or "; there are: none"
        raise UsageError(f"when: {text!r}: no earlier vote {vote!r}{hint}")
    return Condition(vote=vote, compare=match["compare"], number=float(match["number"]))
