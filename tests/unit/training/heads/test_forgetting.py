"""What a newer head has gained and lost against an older one, by class, and when that refuses it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.training.heads.forgetting import HeadChange, HeadPair, compare_heads

CLASSES = ("a", "b")


def logits(answers: list[int], width: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.eye(width, dtype=np.float32)[answers]) * 4 - 2


def compare(
    before: list[int], after: list[int], truth: list[int], kinds: list[str], *, limit: float = 0.05, width: int = 2
) -> HeadChange:
    classes = ("a", "b", "c")[:width]
    targets = torch.from_numpy(np.eye(width, dtype=np.float32)[truth])
    pair = HeadPair(before=logits(before), after=logits(after, width), targets=targets, kinds=kinds)
    return compare_heads(pair, classes, several=False, max_forgotten=limit)


def test_pictures_are_counted_by_class_and_by_where_they_are_from() -> None:
    change = compare([0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1], ["old", "old", "added", "test"])
    a, b = change.old
    assert (a.name, a.pictures, a.before, a.after, a.gained, a.lost) == ("a", 2, 1, 2, 1, 0)
    assert b.pictures == 0
    assert change.added[1].before == change.added[1].after == 1
    assert (change.test[1].gained, change.refused) == (1, ())


@pytest.mark.parametrize(
    ("lost", "limit", "refused"), [(1, 0.0, False), (2, 0.0, True), (2, 0.1, False), (3, 0.1, True)]
)
def test_more_than_the_limit_of_a_class_refuses_and_one_picture_never(lost: int, limit: float, refused: bool) -> None:
    change = compare([0] * 20, [1] * lost + [0] * (20 - lost), [0] * 20, ["old"] * 20, limit=limit)
    assert bool(change.refused) is refused
    assert change.old[0].forgotten == pytest.approx(lost / 20)


def test_what_is_gained_in_a_class_makes_up_for_what_is_lost_in_it_and_not_in_another() -> None:
    assert not compare([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0] * 6, ["old"] * 6, limit=0).refused
    other = compare([0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], ["old"] * 6, limit=0)
    assert [reason.partition(":")[0] for reason in other.refused] == ["a"]


def test_what_is_lost_of_added_pictures_refuses_nothing() -> None:
    assert not compare([0] * 4, [1] * 4, [0] * 4, ["added"] * 4, limit=0).refused


def test_test_pictures_refuse_too() -> None:
    assert "test pictures" in compare([0] * 4, [1] * 4, [0] * 4, ["test"] * 4, limit=0).refused[0]


def test_new_class_has_nothing_to_forget() -> None:
    change = compare([0, 1], [2, 2], [2, 2], ["old", "old"], width=3)
    assert (change.old[2].before, change.old[2].after, change.refused) == (None, 2, ())


def test_pictures_without_an_answer_are_left_out() -> None:
    before = logits([0, 0])
    before[0] = float("nan")
    pair = HeadPair(before=before, after=logits([1, 1]), targets=logits([0, 0]).clamp(0, 1), kinds=["old", "old"])
    assert compare_heads(pair, CLASSES, several=False, max_forgotten=0).old[0].pictures == 1


def test_with_several_classes_a_false_alarm_is_lost_too() -> None:
    targets = torch.zeros(4, 2)
    pair = HeadPair(
        before=torch.full((4, 2), -1.0), after=torch.tensor([[1.0, -1]] * 4), targets=targets, kinds=["old"] * 4
    )
    change = compare_heads(pair, CLASSES, several=True, max_forgotten=0.5)
    assert (change.old[0].lost, change.old[1].lost) == (4, 0)
    assert len(change.refused) == 1
