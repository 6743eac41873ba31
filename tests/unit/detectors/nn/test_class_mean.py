"""Where a picture lies among a classifier's classes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from moderation.detectors.nn.class_mean import ClassVectors, find_class_mean, join_class_mean


def drawn(seed: int, *, width: int = 12, classes: int = 7) -> tuple[torch.Tensor, ClassVectors]:
    """Embeddings [5,width], of relus, and a classifier."""
    rng = torch.Generator().manual_seed(seed)
    vectors = ClassVectors(
        weight_KD=torch.randn((classes, width), generator=rng), bias_K=torch.randn(classes, generator=rng)
    )
    return torch.randn((5, width), generator=rng).clamp_min(0), vectors


@given(seed=st.integers(0, 1000), scale=st.floats(1, 1e4))
def test_length_is_one_and_a_picture_does_not_depend_on_its_neighbours(seed: int, scale: float) -> None:
    embedding, vectors = drawn(seed)
    whole = find_class_mean(embedding * scale, vectors)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(5))
    alone = find_class_mean(embedding[1:2] * scale, vectors)
    # One row is multiplied in another order than five; a large scale makes more of it.
    torch.testing.assert_close(alone, whole[1:2], atol=1e-3, rtol=1e-3)


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
def test_what_all_classes_share_changes_nothing(seed: int, shift: float) -> None:
    embedding, vectors = drawn(seed)
    shifted = ClassVectors(weight_KD=vectors.weight_KD + shift, bias_K=vectors.bias_K - shift)
    torch.testing.assert_close(
        find_class_mean(embedding, shifted), find_class_mean(embedding, vectors), atol=1e-3, rtol=1e-3
    )


def test_picture_that_is_surely_of_one_class_lies_at_its_row() -> None:
    vectors = ClassVectors(weight_KD=torch.eye(4) * 30, bias_K=torch.zeros(4))
    placed = find_class_mean(torch.eye(4)[2:3], vectors)[0]
    assert placed.argmax() == 2
    assert (placed[[0, 1, 3]] < 0).all()


def test_embedding_of_zeros_has_finite_numbers() -> None:
    _, vectors = drawn(0)
    blank = torch.zeros((2, 3, 12))
    joined = join_class_mean(blank, find_class_mean(blank, vectors))
    assert joined.shape == (2, 3, 24)
    assert torch.isfinite(joined).all()
