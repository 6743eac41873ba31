"""Folds by group: nobody on two sides, classes spread, and the order of the pictures without a say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moderation.training.heads.split import group_folds

LABELLED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), min_size=1, max_size=60)


def one_hot(classes: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.eye(3, dtype=np.float32)[classes]


@given(LABELLED, st.integers(2, 6), st.integers(0, 3))
def test_no_group_is_on_two_sides_whatever_the_order(rows: list[tuple[int, int]], folds: int, seed: int) -> None:
    groups = [f"g{group}" for _, group in rows]
    fold_of = group_folds(one_hot([c for c, _ in rows]), groups, folds, seed)
    assert len(fold_of) == len(rows)
    of_group = dict(zip(groups, fold_of.tolist(), strict=True))
    assert [of_group[group] for group in groups] == fold_of.tolist()
    assert set(fold_of.tolist()) <= set(range(folds))
    order = np.random.default_rng(seed).permutation(len(rows))
    again = group_folds(one_hot([rows[i][0] for i in order]), [groups[i] for i in order], folds, seed)
    if len({c for c, _ in rows}) == len({group for _, group in rows}) == 1:
        assert again.tolist() == fold_of.tolist()


def test_classes_are_spread_evenly() -> None:
    classes = [0] * 40 + [1] * 20 + [2] * 10
    fold_of = group_folds(one_hot(classes), [str(i) for i in range(70)], 5, 0)
    for fold in range(5):
        assert np.bincount(np.array(classes)[fold_of == fold], minlength=3).tolist() == [8, 4, 2]


def test_picture_of_no_class_has_a_fold_too() -> None:
    targets = np.zeros((4, 3), dtype=np.float32)
    assert sorted(group_folds(targets, list("abcd"), 2, 0).tolist()) == [0, 0, 1, 1]
