"""The CLIP variants of a configuration that ask a question."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.config.hints import did_you_mean
from moderation.config.model import Config, DetectorConfig
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.questions import Question
from moderation.detectors.clip.tuned import class_names
from moderation.detectors.registry import build
from moderation.errors import UsageError


def find_variants(config: Config, check: str, only: Sequence[str] = ()) -> list[Clip]:
    """The CLIP detectors of a configuration that ask this question, each with this question only, in words.

    Raises UsageError that names the nearest question or variant.
    """
    entries = _select_variants(config, only)
    asking = [entry for entry in entries if check in entry.options.get("questions", {})]
    if not asking:
        questions = sorted({name for entry in entries for name in entry.options.get("questions", {})})
        hint = did_you_mean(check, questions) or "; there are: "
        raise UsageError(f"--check {check!r}: no such question{hint}")
    return [_with_one_question(entry, check) for entry in asking]


def _select_variants(config: Config, only: Sequence[str]) -> list[DetectorConfig]:
    """The CLIP detectors with these titles; all of them where no title is given."""
    entries = [entry for entry in config.stack.detectors if entry.name == "clip"]
    titles = [entry.title for entry in entries]
    unknown = sorted(set(only) - set(titles), key=only.index)
    if unknown:
        raise UsageError(f"--variant {unknown[0]!r}: this configuration has: {', '.join(titles) or 'no CLIP variant'}")
    if not entries:
        raise UsageError("this configuration has no CLIP variant; start from clip.yaml")
    return [entry for entry in entries if entry.title in only] if only else entries


def _with_one_question(entry: DetectorConfig, check: str) -> Clip:
    # Words even where the configuration has tuned embeddings: tuning starts from the words.
    spec = {k: v for k, v in entry.options["questions"][check].items() if k not in ("embeddings", "sha256")}
    options = {**entry.options, "questions": {check: spec}}
    clip = build(entry.model_copy(update={"options": options}))
    assert isinstance(clip, Clip)
    return clip


def same_question(clips: Sequence[Clip], check: str) -> Question:
    """The question of all variants, with the same labels. Raises UsageError where the labels differ."""
    question = clips[0].questions[0]
    for clip in clips[1:]:
        if class_names(clip.questions[0]) != class_names(question):
            raise UsageError(
                f"--check {check!r}: {clips[0].name} and {clip.name} have other answers; choose by --variant"
            )
    return question
