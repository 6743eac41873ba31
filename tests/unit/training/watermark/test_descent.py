"""The threshold that a training names: the least with the wanted precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moderation.training.watermark.descent import pick_threshold


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_threshold_is_the_least_with_the_wanted_precision(rows: list[tuple[float, bool]]) -> None:
    scores = torch.tensor([score for score, _ in rows])
    marked = torch.tensor([float(yes) for _, yes in rows])

    def precision(threshold: float) -> float:
        return marked[scores >= threshold].mean().item()

    threshold, recall = pick_threshold(scores, marked, 0.8)
    good = [score for score in scores.tolist() if precision(score) >= 0.8]
    assert threshold == (min(good) if good else None)
    if threshold is not None:
        assert recall == pytest.approx((marked[scores >= threshold].sum() / marked.sum()).item())


def test_nothing_that_is_precise_enough_has_no_threshold() -> None:
    assert pick_threshold(torch.tensor([0.9, 0.2]), torch.tensor([0.0, 1.0])) == (None, 0.0)
