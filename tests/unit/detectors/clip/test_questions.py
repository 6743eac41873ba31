"""Questions in words: how a configuration writes them, and the messages for mistakes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moderation.config.load import load_config
from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.detectors import registry
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.questions import NEUTRAL, make_question, parse_options, read_questions
from moderation.errors import UsageError
from moderation.scoring.build import build_stack

MASK = {"texts": ["a mask"], "against": ["a bare face"]}
SHA256 = "0" * 64


def options(**more: Any) -> dict[str, Any]:
    return {"architecture": "ViT-B-32", "questions": {"mask": MASK}, **more}


def clip(**more: Any) -> DetectorConfig:
    return DetectorConfig(name="clip", **{"weights": "s3://b/x.safetensors", "sha256": SHA256, **more})


def test_a_question_is_a_label_and_a_question_of_several_answers_is_one_each() -> None:
    questions = {"mask": MASK, "kind": {"answers": {"dog": ["a dog"], "cat": ["a cat", "a kitten"]}}}
    found = Clip(options(questions=questions))
    assert found.labels == ("mask", "dog", "cat")
    assert found.embedding_dim == 512
    assert (found.view.resize, found.view.crop, found.view.interpolation) == (224, 224, "bicubic")


def test_a_question_without_a_contrast_is_told_from_neutral_texts_that_it_does_not_name_itself() -> None:
    assert make_question("person", ["a person"]).answers[1].texts == tuple(t for t in NEUTRAL if t != "a person")


def test_named_templates_and_contrasts_are_used_where_they_are_named() -> None:
    spec = {"texts": ["a mask"], "against": "faces", "templates": "mine"}
    parsed = parse_options(
        options(questions={"mask": spec}, contrasts={"faces": ["a face"]}, templates={"mine": ["my {}"]})
    )
    (question,) = read_questions(parsed)
    assert question.answers[1].texts == ("a face",)
    assert question.templates == ("my {}",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "ViT-B-23"}, "did you mean 'ViT-B-"),
        ({"architecture": "../ViT-B-32"}, "no architecture"),
        ({"architecture": {"embed_dim": 8}}, "lacks vision_cfg, text_cfg"),
        ({"question": {}}, "did you mean 'questions'"),
        ({"questions": {"mask": {"text": ["x"]}}}, "did you mean 'texts'"),
        ({"questions": {"mask": {}}}, "either `texts` or `answers`"),
        ({"questions": {"mask": {"texts": ["x"], "against": ["x"]}}}, "stands on both sides"),
        ({"questions": {"mask": {"texts": ["x"], "against": "none"}}}, "no contrast set 'none'"),
        ({"questions": {"mask": {"texts": [" "]}}}, "a text is empty"),
        ({"questions": {"a.b": MASK}}, "small letters"),
        ({"questions": {"q": {"answers": {"a": ["x"]}}}}, "two or more"),
        ({"questions": {"mask": MASK, "q": {"answers": {"mask": ["x"], "b": ["y"]}}}}, "two questions give the label"),
        ({"questions": {"mask": {**MASK, "templates": ["no place"]}}}, "needs one {}"),
        ({"questions": {"mask": {**MASK, "templates": "phto"}}}, "no templates 'phto'"),
        ({"questions": {"mask": {**MASK, "embeddings": "s3://b/e"}}}, "go together"),
    ],
)
def test_a_wrong_option_is_refused_and_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("{}", r"\{\}")):
        Clip(options(**changed))


def test_other_words_are_another_version() -> None:
    other = {"mask": {**MASK, "templates": "plain"}}
    assert Clip(options()).version == Clip(options()).version != Clip(options(questions=other)).version


def test_two_variants_stand_side_by_side_under_their_aliases() -> None:
    entries = (clip(alias="clip_a", options=options()), clip(alias="clip_b", options=options()))
    stack = build_stack(Config(stack=StackConfig(detectors=entries, keep_embeddings=True)))
    assert stack.labels == ("clip_a.mask", "clip_b.mask")
    assert stack.embedding_dims == {"clip_a": 512, "clip_b": 512}
    with pytest.raises(UsageError, match="give one an `alias:`"):
        build_stack(Config(stack=StackConfig(detectors=(clip(options=options()), clip(options=options())))))


def test_one_variant_may_be_asked_only_where_another_has_doubts() -> None:
    entries = (
        clip(alias="small", options=options()),
        clip(alias="large", options=options(), when="small.mask >= 0.1"),
    )
    stack = build_stack(Config(stack=StackConfig(detectors=entries)))
    assert stack.gated == ("large.mask",)


def test_other_words_are_another_fingerprint() -> None:
    def fingerprint(questions: dict[str, Any]) -> str:
        entry = clip(alias="clip_a", options=options(questions=questions))
        return build_stack(Config(stack=StackConfig(detectors=(entry,)))).fingerprint

    assert fingerprint({"mask": MASK}) != fingerprint({"mask": {**MASK, "against": ["a naked face"]}})


def test_weights_must_be_named_and_a_checksum_may_lack_only_where_a_hub_has_its_own() -> None:
    with pytest.raises(UsageError, match="say where they lie"):
        registry.build(DetectorConfig(name="clip", options=options()))
    with pytest.raises(UsageError, match="go together"):
        registry.build(DetectorConfig(name="clip", options=options(), weights="s3://b/x.safetensors"))
    built = registry.build(DetectorConfig(name="clip", options=options(), weights="hf://o/n/x.safetensors"))
    assert [w.locator for w in built.weights] == ["hf://o/n/x.safetensors"]


def test_files_that_stand_for_words_are_weights_of_the_detector() -> None:
    tuned = {"mask": {**MASK, "embeddings": "s3://b/mask.safetensors", "sha256": "1" * 64}}
    entry = clip(alias="clip_a", options=options(questions=tuned))
    built = registry.build(entry)
    assert [w.locator for w in built.weights] == ["s3://b/x.safetensors", "s3://b/mask.safetensors"]
    assert registry.weights_of(built, entry) == built.weights


def test_shared_options_are_read_with_the_configuration_and_its_own_win(tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text("questions: {mask: {texts: [a mask]}}\nresize: squash\n", encoding="utf-8")
    (tmp_path / "policy.yaml").write_text("checks: {a: {side: attribute, votes: [clip.mask]}}\n", encoding="utf-8")
    (tmp_path / "c.yaml").write_text(
        "policy: policy.yaml\nstack: {detectors: [{name: clip, options_from: shared.yaml, options: {resize: crop}}]}\n",
        encoding="utf-8",
    )
    config = load_config(str(tmp_path / "c.yaml"))
    (entry,) = config.stack.detectors
    assert entry.options == {"questions": {"mask": {"texts": ["a mask"]}}, "resize": "crop"}
    assert Config.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(UsageError, match="read by load_config"):
        registry.build(DetectorConfig(name="clip", options_from="shared.yaml"))


def test_the_packaged_configuration_asks_three_variants_at_least_24_checks() -> None:
    stack = build_stack(load_config("clip.yaml"))
    variants = [slot.detector for slot in stack.slots if isinstance(slot.detector, Clip)]
    assert [v.name for v in variants] == ["clip_b32", "clip_b16", "clip_l14"]
    assert all(len(v.labels) >= 24 for v in variants)
    assert set(stack.embedding_dims) == {"clip_b32", "clip_b16", "clip_l14"}
