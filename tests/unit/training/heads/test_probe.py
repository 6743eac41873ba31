"""The probe: what it learns, how classes count, and that views and starts change only how it gets there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.detectors.nn.class_mean import ClassVectors
from moderation.training.heads import probe as probe_module
from moderation.training.heads.probe import choose_probes, class_weights, fit_probe, head_loss


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
    probe, _, outside = choose_probes(x, y, np.arange(60) % 5, several=several, balance=True)
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


def families(
    pictures: int, *, relatives: bool, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, ClassVectors]:
    """Pictures [N,1,64], each of a class of its own; their families as targets; and a classifier of all classes.

    relatives: rows of one family have a part in common, which the pictures themselves hardly show.
    """
    rng = np.random.default_rng(seed)
    own = np.arange(pictures) % 3
    rows = rng.normal(0, 1, (pictures, 64))
    shared = rng.normal(0, 1, (3, 64))[own] if relatives else 0
    x = np.maximum(rows + rng.normal(0, 0.3, rows.shape), 0)
    vectors = ClassVectors(weight_KD=torch.from_numpy((rows + shared).astype(np.float32)), bias_K=torch.zeros(pictures))
    y = torch.from_numpy(np.eye(3, dtype=np.float32)[own])
    return torch.from_numpy(x.astype(np.float32))[:, None], y, torch.from_numpy(own), vectors


@pytest.mark.parametrize("several", [False, True])
def test_classes_of_the_backbone_tell_families_of_which_no_member_was_seen(several: bool) -> None:
    x, y, own, vectors = families(90, relatives=True, seed=0)
    folds = np.arange(60) % 5
    plain, _, _ = choose_probes(x[:60], y[:60], folds, several=several, balance=True)
    related, _, outside = choose_probes(x[:60], y[:60], folds, several=several, balance=True, classifier=vectors)
    assert related.classifier is vectors
    assert outside.shape == (60, 3)
    right = [(probe.logits(x[60:, 0]).argmax(1) == own[60:]).float().mean() for probe in (plain, related)]
    assert right[1] > 0.85 > 0.7 > right[0]


def test_the_probe_that_reads_no_classes_comes_from_the_same_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers start from it; its penalty was searched for twice."""
    x, y, _, vectors = families(90, relatives=True, seed=0)
    folds = np.arange(90) % 5
    wanted, _, _ = choose_probes(x, y, folds, several=False, balance=True)
    best, fit_plain, _ = choose_probes(x, y, folds, several=False, balance=True, classifier=vectors)
    assert best.classifier is vectors
    monkeypatch.delattr(probe_module, "_answer_outside")
    plain = fit_plain()
    assert (plain.classifier, plain.penalty) == (None, wanted.penalty)
    torch.testing.assert_close(plain.weight_AD, wanted.weight_AD)


def test_classes_that_say_nothing_of_the_pictures_are_not_read() -> None:
    x, y = clusters(60)
    noise = ClassVectors(
        weight_KD=torch.randn((20, 8), generator=torch.Generator().manual_seed(0)), bias_K=torch.zeros(20)
    )
    probe, _, outside = choose_probes(x, y, np.arange(60) % 5, several=False, balance=True, classifier=noise)
    alone, _, expected = choose_probes(x, y, np.arange(60) % 5, several=False, balance=True)
    assert probe.classifier is None
    torch.testing.assert_close(outside, expected)
    torch.testing.assert_close(probe.weight_AD, alone.weight_AD)
