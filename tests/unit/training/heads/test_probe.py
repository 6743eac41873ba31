"""The probe: what it learns, how classes count, and that views and starts change only how it gets there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.training.heads.probe import choose_probe, class_weights, fit_probe, head_loss


def clusters(count: int, *, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [N,1,8] around a point a class, and targets."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(7).normal(0, 2, (classes, 8))
    own = np.arange(count) % classes
    x = middles[own] + rng.normal(0, 0.5, (count, 8)) + 5
    return torch.from_numpy(x.astype(np.float32))[:, None], torch.from_numpy(np.eye(classes, dtype=np.float32)[own])


@pytest.mark.parametrize("several", [False, True])
def test_learns_what_can_be_told_apart(several: bool) -> None:
    x, y = clusters(60)
    probe, outside = choose_probe(x, y, np.arange(60) % 5, several=several, balance=True)
    fresh, truth = clusters(60, seed=1)
    assert (probe.logits(fresh[:, 0]).argmax(1) == truth.argmax(1)).float().mean() > 0.95
    assert (outside.argmax(1) == y.argmax(1)).float().mean() > 0.95


def test_another_start_ends_in_the_same_place() -> None:
    x, y = clusters(60)
    far = fit_probe(x, y, 0.3, several=False, balance=True)
    direct = fit_probe(x, y, 0.03, several=False, balance=True)
    from_far = fit_probe(x, y, 0.03, several=False, balance=True, start=far)
    torch.testing.assert_close(from_far.logits(x[:, 0]), direct.logits(x[:, 0]), atol=0.05, rtol=0.05)


def test_repeated_views_are_no_new_pictures() -> None:
    x, y = clusters(30)
    once = fit_probe(x, y, 0.1, several=False, balance=True)
    thrice = fit_probe(x.expand(-1, 3, -1), y, 0.1, several=False, balance=True)
    torch.testing.assert_close(once.logits(x[:, 0]), thrice.logits(x[:, 0]), atol=0.02, rtol=0.02)


def test_balanced_classes_count_alike_however_few_they_are() -> None:
    y = torch.from_numpy(np.eye(2, dtype=np.float32)[[0] * 9 + [1]])
    weights = class_weights(y, balance=True)
    assert (y.sum(dim=0) * weights).tolist() == pytest.approx([5, 5])
    assert class_weights(y, balance=False).tolist() == [1, 1]


def test_loss_of_mixed_pictures_lies_between() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    ones = torch.ones(2)
    first, second, half = (
        float(head_loss(logits, torch.tensor([t]), ones, several=False)) for t in ([1.0, 0], [0, 1.0], [0.5, 0.5])
    )
    assert half == pytest.approx((first + second) / 2)
