"""What `backfill --extend` says at its end."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.extending import is_scored_only
from moderation.runtime.resume import RunOutcome


@pytest.mark.parametrize(
    ("summary", "nothing_left", "scored_only"),
    [
        ({"slice": "1/2", "items": 9}, False, True),
        ({"slice": "2/2", "items": 0}, True, True),  # a slice in which no shard lies
        ({"extended": {"added": []}}, False, False),
        ({"verdicts": {"pass": 3}}, True, False),
    ],
)
def test_a_slice_says_what_comes_next_though_it_had_nothing_to_score(
    summary: dict[str, Any], nothing_left: bool, scored_only: bool
) -> None:
    outcome = RunOutcome(summary=summary, nothing_left=nothing_left, partial=False, error_rate=0.0, max_error_rate=0.05)
    assert is_scored_only(outcome) is scored_only
