"""Class embeddings, their cache, and scores against them: arithmetic only, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moderation.detectors.clip.class_embeddings import (
    embed_question,
    make_contrasts,
    read_class_embeddings,
    score_embeddings,
)
from moderation.detectors.clip.questions import Question, QuestionAnswer, make_question
from moderation.errors import FatalError, UsageError

DIM = 16
KIND = Question(
    name="kind",
    answers=(
        QuestionAnswer(label="dog", texts=("a dog",)),
        QuestionAnswer(label="cat", texts=("a cat", "a kitten")),
        QuestionAnswer(label="bird", texts=("a bird",)),
    ),
    templates=("{}", "a photo of {}"),
)
MASK = make_question("mask", ["a mask"], ["a bare face"], templates=("{}",))


class Words:
    """A text tower that turns each sentence into numbers of its own, and counts the sentences that it encodes."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
        self.sentences += sentences
        rows = []
        for sentence in sentences:
            generator = torch.Generator().manual_seed(sum(map(ord, sentence)))
            rows.append(torch.randn(DIM, generator=generator))
        return torch.stack(rows)


def unit(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_a_question_of_two_texts_scores_as_clip_does() -> None:
    texts = unit(2, seed=1)
    contrasts = make_contrasts([MASK], [[texts[:1], texts[1:]]], scale=100.0)
    images = unit(5)
    expected = (100 * images @ texts.T).softmax(dim=1)[:, :1]
    torch.testing.assert_close(score_embeddings(images, contrasts), expected, rtol=0, atol=1e-5)


def test_answers_share_one_and_a_contrast_has_no_column() -> None:
    kind = [unit(1, 2), unit(2, 3), unit(1, 4)]
    mask = [unit(1, 5), unit(1, 6)]
    scores = score_embeddings(unit(7), make_contrasts([KIND, MASK], [kind, mask], scale=20.0))
    assert scores.shape == (7, 4)
    torch.testing.assert_close(scores[:, :3].sum(dim=1), torch.ones(7))


def test_questions_do_not_move_each_others_scores() -> None:
    kind, mask = [unit(1, 2), unit(2, 3), unit(1, 4)], [unit(1, 5), unit(1, 6)]
    both = score_embeddings(unit(7), make_contrasts([KIND, MASK], [kind, mask], scale=20.0))
    alone = score_embeddings(unit(7), make_contrasts([MASK], [mask], scale=20.0))
    torch.testing.assert_close(both[:, 3:], alone, rtol=0, atol=1e-6)


def test_saying_the_same_twice_does_not_make_it_likelier() -> None:
    texts = unit(2, seed=1)
    once = make_contrasts([MASK], [[texts[:1], texts[1:]]], scale=30.0)
    twice = make_contrasts([MASK], [[texts[:1].repeat(3, 1), texts[1:]]], scale=30.0)
    torch.testing.assert_close(score_embeddings(unit(5), once), score_embeddings(unit(5), twice))


def test_the_hottest_scales_give_numbers() -> None:
    texts = unit(2, seed=1)
    contrasts = make_contrasts([MASK], [[texts[:1], texts[1:]]], scale=117.0)
    scores = score_embeddings(torch.cat([texts, -texts]), contrasts)
    assert torch.isfinite(scores).all()
    assert scores[0] > 0.99 > 0.01 > scores[1]


def test_templates_are_averaged_on_the_sphere() -> None:
    words = Words()
    (dog, _, _) = embed_question(KIND, words, key="k", cache=None)
    parts = torch.nn.functional.normalize(words(["a dog", "a photo of a dog"]), dim=1)
    torch.testing.assert_close(dog[0], torch.nn.functional.normalize(parts.mean(dim=0), dim=0))


def test_words_are_computed_once_and_then_come_from_the_cache(tmp_path: Path) -> None:
    first, again, other = Words(), Words(), Words()
    computed = embed_question(KIND, first, key="k", cache=tmp_path)
    cached = embed_question(KIND, again, key="k", cache=tmp_path)
    assert len(first.sentences) == 8
    assert again.sentences == []
    assert all(torch.equal(a, b) for a, b in zip(computed, cached, strict=True))
    embed_question(KIND, other, key="another checkpoint", cache=tmp_path)
    assert len(other.sentences) == 8


def test_a_damaged_cache_is_computed_anew(tmp_path: Path) -> None:
    computed = embed_question(MASK, Words(), key="k", cache=tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"bit rot")
    again = embed_question(MASK, Words(), key="k", cache=tmp_path)
    assert torch.equal(computed[0], again[0])


def test_tuned_embeddings_are_found_by_variant_and_then_by_label(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    save_file({"clip_a/mask": unit(2, 1), "mask": unit(1, 2), "against": unit(3, 3)}, path)
    own, against = read_class_embeddings(str(path), MASK, "clip_a", DIM)
    torch.testing.assert_close(own, unit(2, 1))
    torch.testing.assert_close(against, unit(3, 3))
    assert len(read_class_embeddings(str(path), MASK, "clip_b", DIM)[0]) == 1


def test_tuned_embeddings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    save_file({"mask": unit(1, 2)}, path)
    with pytest.raises(UsageError, match="has no clip_a/against"):
        read_class_embeddings(str(path), MASK, "clip_a", DIM)
    with pytest.raises(UsageError, match="made for another variant"):
        read_class_embeddings(str(path), MASK, "clip_a", DIM + 1)
    path.write_bytes(b"no tensors")
    with pytest.raises(FatalError, match="not readable as safetensors"):
        read_class_embeddings(str(path), MASK, "clip_a", DIM)
