"""Learning class embeddings: arithmetic on synthetic pictures, no network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moderation.detectors.clip.class_embeddings import make_contrasts, score_embeddings
from moderation.detectors.clip.questions import make_question
from moderation.errors import UsageError
from moderation.policy.aggregate import fuse
from moderation.training.prompts.curve import FUSED, learning_curve, parse_shots, shots_name, tune
from moderation.training.prompts.spaces import (
    Settings,
    Space,
    class_logits,
    fuse_logits,
    predict,
    word_space,
    zero_shot,
)
from moderation.training.prompts.tune import draw_shots, learn, stratified_folds

DIM = 24
QUICK = Settings(epochs=40, rate=0.3, folds=3, seed=3)


def made_up(count: int, *, classes: int = 2, seed: int = 0, off: float = 2.0) -> tuple[Space, np.ndarray]:
    """Pictures around one centre per class, and words that point beside it: right more often than not."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, DIM))
    targets = np.arange(count, dtype=np.int64) % classes
    images = centres[targets] + rng.normal(size=(count, DIM)) * 2.0
    words = centres + off * rng.normal(size=(classes, DIM)) + 0.7 * rng.normal(size=DIM)
    unit = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    return word_space(unit, [torch.from_numpy(w[None]).float() for w in words], 20.0), targets


def accuracy(space: Space, texts: torch.Tensor, targets: np.ndarray, which: np.ndarray) -> float:
    return float((predict(space, texts, which).argmax(dim=1).numpy() == targets[which]).mean())


def test_logits_are_the_detectors_own_scores() -> None:
    generator = torch.Generator().manual_seed(1)
    texts = torch.nn.functional.normalize(torch.randn(5, DIM, generator=generator), dim=1)
    images = torch.nn.functional.normalize(torch.randn(7, DIM, generator=generator), dim=1)
    question = make_question("mask", ["a", "b"], ["c", "d", "e"], templates=("{}",))
    expected = score_embeddings(images, make_contrasts([question], [[texts[:2], texts[2:]]], 30.0))[:, 0]
    found = class_logits(images, texts[None], [(0, 2), (2, 5)], 30.0)[0, :, 0].exp()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_fused_logits_of_two_answers_are_the_policys_mean_of_logits() -> None:
    generator = torch.Generator().manual_seed(2)
    parts = [torch.randn(6, 2, generator=generator).log_softmax(dim=1) for _ in range(3)]
    found = fuse_logits(parts).exp()[:, 0]
    expected = [fuse([float(p[i, 0].exp()) for p in parts], method="mean_logit") for i in range(6)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_no_epochs_leave_the_words_as_they_are() -> None:
    space, targets = made_up(20)
    (found,) = learn([space], targets, [np.arange(20)], Settings(epochs=0))
    torch.testing.assert_close(found.texts_TD[0], zero_shot(space))


@pytest.mark.parametrize("classes", [2, 4])
def test_ten_pictures_a_class_beat_the_words_on_others(classes: int) -> None:
    space, targets = made_up(600, classes=classes)
    whole = np.arange(600)
    train = draw_shots(targets, whole[:300], 10, seed=0)
    (found,) = learn([space], targets, [train], QUICK)
    before = accuracy(space, zero_shot(space), targets, whole[300:])
    assert accuracy(space, found.texts_TD[0], targets, whole[300:]) > before + 0.02
    assert found.epochs > 0


def test_the_same_seed_learns_the_same() -> None:
    space, targets = made_up(60)
    first, second = (learn([space], targets, [np.arange(40)], QUICK)[0] for _ in range(2))
    assert first.epochs == second.epochs
    torch.testing.assert_close(first.texts_TD[0], second.texts_TD[0], rtol=0, atol=0)


def test_side_by_side_learns_what_one_after_the_other_does() -> None:
    space, targets = made_up(90)
    trains = [np.arange(0, 30), np.arange(30, 90)]
    together = learn([space], targets, trains, QUICK)
    for both, train in zip(together, trains, strict=True):
        (alone,) = learn([space], targets, [train], QUICK)
        assert alone.epochs == both.epochs
        torch.testing.assert_close(alone.texts_TD[0], both.texts_TD[0], rtol=0, atol=1e-4)


def test_labels_by_chance_make_it_less_sure_of_itself() -> None:
    space, _ = made_up(60)
    chance = np.random.default_rng(5).integers(0, 2, 60).astype(np.int64)
    (found,) = learn([space], chance, [np.arange(60)], QUICK)
    before, after = (
        float(predict(space, texts, np.arange(60)).exp().max(dim=1).values.mean())
        for texts in (zero_shot(space), found.texts_TD[0])
    )
    assert after < before  # indistinguishable pictures do not get confident answers


def test_one_picture_a_class_does_not_undo_the_words() -> None:
    space, targets = made_up(300)
    train = draw_shots(targets, np.arange(150), 1, seed=1)
    (found,) = learn([space], targets, [train], QUICK)
    assert found.epochs == QUICK.epochs // 10
    test = np.arange(150, 300)
    before = accuracy(space, zero_shot(space), targets, test)
    assert accuracy(space, found.texts_TD[0], targets, test) > before - 0.03


def test_folds_hold_every_picture_once_and_every_class_evenly() -> None:
    targets = np.array([0] * 10 + [1] * 5, dtype=np.int64)
    folds = stratified_folds(targets, 5, seed=0)
    assert sorted(np.concatenate(folds).tolist()) == list(range(15))
    assert [int((targets[f] == 1).sum()) for f in folds] == [1] * 5


def test_shots_are_drawn_a_class_or_as_a_share() -> None:
    targets = np.array([0] * 40 + [1] * 20, dtype=np.int64)
    whole = np.arange(60)
    assert np.bincount(targets[draw_shots(targets, whole, 4, seed=0)]).tolist() == [4, 4]
    assert np.bincount(targets[draw_shots(targets, whole, 0.1, seed=0)]).tolist() == [4, 2]
    assert draw_shots(targets, whole, 0.01, seed=0).size == 2  # never none
    fewer, more = (set(draw_shots(targets, whole, n, seed=0).tolist()) for n in (3, 8))
    assert fewer < more  # a curve needs nested draws: the same pictures and some more


def test_shots_are_read_as_they_are_written() -> None:
    assert parse_shots("1, 10,40%,100%") == (1, 10, 0.4, 1.0)
    assert [shots_name(s) for s in (1, 0.4, 1.0)] == ["1", "40%", "100%"]
    for wrong in ("0", "-1", "140%", "ten", "1.5"):
        with pytest.raises(UsageError, match="--curve"):
            parse_shots(wrong)


def test_the_curve_judges_every_picture_by_what_has_not_seen_it() -> None:
    space, targets = made_up(120)
    points = list(learning_curve({"a": space}, targets, [4, 1000, 1.0], QUICK))
    assert [(p.method, p.shots) for p in points] == [
        ("zero-shot", ""), ("tuned", "4"), ("probe", "4"), ("tuned", "100%"), ("probe", "100%"),
    ]  # fmt: skip
    assert all(p.variant == "a" for p in points)  # a single variant is not fused with itself
    by_name = {(p.method, p.shots): p for p in points}
    assert by_name["tuned", "100%"].quality.accuracy > by_name["zero-shot", ""].quality.accuracy
    assert by_name["tuned", "100%"].pictures == 80
    chance = np.random.default_rng(0).integers(0, 2, 120).astype(np.int64)
    seen = [p for p in learning_curve({"a": space}, chance, [1.0], QUICK) if p.method != "zero-shot"]
    assert all(p.quality.accuracy < 0.65 for p in seen)  # an overfitted probe would have 1


def test_variants_learn_together_on_their_fused_answer_or_apart() -> None:
    first, targets = made_up(80, seed=1)
    second, _ = made_up(80, seed=2)
    spaces = {"a": first, "b": second}
    apart = Settings(epochs=20, rate=0.3, folds=2, together=False)
    (found,) = tune(spaces, targets, [np.arange(80)], apart)
    (alone,) = learn([first], targets, [np.arange(80)], apart)
    torch.testing.assert_close(found["a"].texts_TD[0], alone.texts_TD[0])
    both = Settings(epochs=20, rate=0.3, folds=2)
    (joined,) = tune(spaces, targets, [np.arange(80)], both)
    assert not torch.equal(joined["a"].texts_TD[0], found["a"].texts_TD[0])
    assert {p.variant for p in learning_curve(spaces, targets, [4], both)} == {"a", "b", FUSED}
