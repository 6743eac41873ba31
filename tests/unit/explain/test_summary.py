"""Responsible regions, grouped by what they show; and what the page says of where they lie."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from moderation.explain.page import describe_error, describe_region
from moderation.explain.run import Explained
from moderation.explain.summary import OTHERS, RegionClass, group_regions, read_passed
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.results.explanations import Explanation


def explained(item_id: str, label: str = "nsfw", drop: float = 0.5, error: str | None = None) -> Explained:
    explanation = Explanation(
        item_id=item_id,
        uri=item_id,
        kind="image",
        verdict="review",
        reason=None,
        check=None,
        threshold=None,
        method="occlusion",
        detector="a",
        label=label,
        score=0.9,
        drop=drop,
        alone=0.3,
        error_code=error,
    )
    return Explained(explanation=explanation, crop=np.full((224, 224, 3), int(100 * drop), np.uint8))


def test_regions_of_one_class_are_a_group_and_single_ones_are_counted_together() -> None:
    regions = [
        explained("1", drop=0.2),
        explained("2", drop=0.8),
        explained("3"),
        explained("4"),
        explained("5", "other"),
    ]
    names = ["miniskirt", "miniskirt", "tub", "car", "miniskirt"]
    groups = group_regions(regions, [RegionClass(name=name, probability=0.9) for name in names])
    by_name = {(g.vote, g.name): g for g in groups}
    assert [(g.vote, g.name, g.regions) for g in groups] == [
        ("a.nsfw", "miniskirt", 2),
        ("a.nsfw", OTHERS, 2),
        ("a.other", OTHERS, 1),
    ]
    largest = by_name["a.nsfw", "miniskirt"]
    assert (largest.drop, largest.score, largest.share) == (pytest.approx(0.5), pytest.approx(0.9), 0.5)
    # The one whose cover lowers the score most comes first.
    assert largest.item_ids == ("2", "1") and len(largest.examples) == 2
    shares: dict[str, float] = defaultdict(float)
    for group in groups:
        shares[group.vote] += group.share
    assert dict(shares) == {"a.nsfw": 1.0, "a.other": 1.0}


def test_what_people_passed_is_counted_and_nothing_where_nobody_decided(tmp_path: Path) -> None:
    regions = [explained("1"), explained("2")]
    classes = [RegionClass(name="tub", probability=0.9)] * 2
    assert [g.passed for g in group_regions(regions, classes, {"2", "9"})] == [1]
    assert [g.passed for g in group_regions(regions, classes)] == [None]
    out = str(tmp_path)
    assert read_passed(out) is None
    said = [("a", "1", Answer.PASS), ("b", "2", Answer.PASS), ("c", "2", Answer.BLOCK)]
    append_decisions(
        out,
        [
            Decision(decision_id=key, item_id=item, decision=answer, reviewer="r", decided_at=datetime.now(UTC))
            for key, item, answer in said
        ],
    )
    assert read_passed(out) == {"1"}


def test_no_region_is_no_group() -> None:
    assert group_regions([], []) == []


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (None, "no part stands out"),
        ((0.0, 0.0, 0.2, 0.5), "upper left, 10% of the picture"),
        ((0.4, 0.4, 0.6, 0.6), "middle, 4% of the picture"),
        ((0.0, 0.0, 1.0, 1.0), "middle, 100% of the picture"),
        ((0.8, 0.7, 1.0, 1.0), "lower right, 6% of the picture"),
    ],
)
def test_a_box_is_told_in_words(box: tuple[float, float, float, float] | None, words: str) -> None:
    assert describe_region(box) == words


@pytest.mark.parametrize("code", ["changed", "not_found", "no_vote", "no_gradient", "no_detector", "not_scored"])
def test_every_code_is_told_in_words(code: str) -> None:
    assert describe_error(explained("1", error=code).explanation).endswith(".")
