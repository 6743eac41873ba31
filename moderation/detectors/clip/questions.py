"""Questions in words: their options in the configuration, and their checks. Pure; loads without torch.

    questions:
      mask:                                    # a label of its own: `clip_b32.mask`
        texts: [a person wearing a face mask]
        against: [a person with a bare face]   # the alternative; or the name of a set in `contrasts`
      subject:                                 # several answers, each a label: `clip_b32.explicit`, ...
        answers:
          explicit: [pornography, ...]
          ordinary_person: [...]

A score is an answer's share among all answers of its question, by softmax at the checkpoint's own temperature. The
texts of an answer are averaged (mean of their exponentials), so one more synonym does not make the answer likelier.
Templates ("a photo of {}") are averaged per text, after Radford et al. 2021, https://arxiv.org/abs/2103.00020, 3.1.4.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from moderation.config.load import validate
from moderation.detectors.base import Weights
from moderation.errors import UsageError

# Averaged per text. `photo` for what a camera saw, `graphic` for drawn or printed pictures.
TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "plain": ("{}",),
    "photo": ("{}", "a photo of {}", "a picture of {}", "a frame of a video of {}", "a low quality photo of {}"),
    "graphic": ("{}", "a picture of {}", "a screenshot of {}", "an illustration of {}"),
}
# The alternative where a question names none: ordinary things, and nothing in particular.
NEUTRAL: Final = (
    "something else",
    "an ordinary scene",
    "an everyday object",
    "a person",
    "a landscape",
    "a room",
)
OPENAI_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Final = (0.26862954, 0.26130258, 0.27577711)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MAX_TEXTS = 20_000  # one matrix of 20,000 x 1,024 float32 is 80 MB


class _ClipSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QuestionOptions(_ClipSection):
    """One question, as written in the configuration."""

    texts: tuple[str, ...] = Field(default=(), description="texts that score high; the label is the question's name")
    against: str | tuple[str, ...] | None = Field(
        default=None, description="the alternative: texts, or the name of a set in `contrasts`; none: NEUTRAL"
    )
    answers: Mapping[str, tuple[str, ...]] = Field(default={}, description="instead of texts: label -> its texts")
    templates: str | tuple[str, ...] | None = Field(default=None, description="name of a set, or texts with {}")
    embeddings: str | None = Field(
        default=None, description="locator of a safetensors file of class embeddings that replace the words"
    )
    sha256: str | None = Field(default=None, description="of that file")

    @model_validator(mode="after")
    def _one_form(self) -> QuestionOptions:
        if bool(self.texts) == bool(self.answers):
            raise ValueError("give either `texts` or `answers`")
        if self.answers and (len(self.answers) < 2 or self.against is not None):
            raise ValueError("`answers` are told from each other: give two or more, and no `against`")
        if (self.embeddings is None) != (self.sha256 is None):
            raise ValueError("`embeddings` and `sha256` go together")
        return self


class ClipOptions(_ClipSection):
    """Options of the detector `clip`. Its weights are the detector's own keys `weights:` and `sha256:`."""

    architecture: str | Mapping[str, Any] = Field(description="name of an open_clip architecture, or its JSON")
    questions: Mapping[str, QuestionOptions] = Field(min_length=1)
    templates: Mapping[str, tuple[str, ...]] = Field(default={}, description="more sets, besides TEMPLATES")
    contrasts: Mapping[str, tuple[str, ...]] = Field(default={}, description="named sets for `against`")
    default_templates: str = "photo"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    resize: Literal["crop", "squash"] = Field(default="crop", description="crop: short side, then the centre")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    licence: str = Field(default="unknown", description="of the weights, for the record")
    origin: str = Field(default="unknown", description="model card or repository of the weights")
    size_bytes: int | None = Field(default=None, gt=0, description="of the weights; named when they are missing")

    @field_validator("templates", mode="after")
    @classmethod
    def _have_a_place(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for name, texts in value.items():
            if not texts or any(text.count("{}") != 1 for text in texts):
                raise ValueError(f"set {name!r}: every template needs one {{}}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswer:
    """One answer of a question; `label` None: the alternative, which has no column."""

    label: str | None
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A complete question; embeddings: a file that replaces the words."""

    name: str
    answers: tuple[QuestionAnswer, ...]
    templates: tuple[str, ...]
    embeddings: Weights | None = None


def parse_options(options: Mapping[str, Any]) -> ClipOptions:
    """Check the options. Raises UsageError that names every wrong key and the nearest right one."""
    return validate(ClipOptions, options, where="detector 'clip'")


def read_questions(options: ClipOptions) -> tuple[Question, ...]:
    """The questions of a configuration, in its order. Raises UsageError."""
    questions = tuple(_question(name, spec, options) for name, spec in options.questions.items())
    _refuse_repeated([a.label for q in questions for a in q.answers if a.label is not None])
    total = sum(len(a.texts) for q in questions for a in q.answers)
    if total > _MAX_TEXTS:
        raise UsageError(f"detector 'clip': {total} texts, at most {_MAX_TEXTS}")
    return questions


def _refuse_repeated(labels: Sequence[str]) -> None:
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise UsageError(f"detector 'clip': two questions give the label {min(twice)!r}")


def make_question(
    name: str, texts: Sequence[str], against: Sequence[str] = (), *, templates: Sequence[str] = TEMPLATES["photo"]
) -> Question:
    """A two-sided question; without `against` the alternative is NEUTRAL. Raises UsageError."""
    sides = (tuple(texts), tuple(against) or tuple(text for text in NEUTRAL if text not in texts))
    for side in sides:
        _check_answer(name, side)
    both = set(sides[0]) & set(sides[1])
    if both:
        raise UsageError(f"question {name!r}: {min(both)!r} stands on both sides")
    return Question(
        name=name,
        answers=(QuestionAnswer(label=name, texts=sides[0]), QuestionAnswer(label=None, texts=sides[1])),
        templates=tuple(templates),
    )


def _check_answer(name: str, texts: Sequence[str]) -> None:
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"question {name!r}: use small letters, digits and _")
    if not texts or any(not text.strip() for text in texts):
        raise UsageError(f"question {name!r}: a text is empty")


def _question(name: str, spec: QuestionOptions, options: ClipOptions) -> Question:
    templates = _templates(name, spec, options)
    if spec.answers:
        for label, texts in spec.answers.items():
            _check_answer(label, texts)
        answers = tuple(QuestionAnswer(label=label, texts=texts) for label, texts in spec.answers.items())
    else:
        answers = make_question(name, spec.texts, _against(name, spec, options)).answers
    return Question(name=name, answers=answers, templates=templates, embeddings=_embeddings(name, spec))


def _templates(name: str, spec: QuestionOptions, options: ClipOptions) -> tuple[str, ...]:
    wanted = spec.templates if spec.templates is not None else options.default_templates
    if not isinstance(wanted, str):
        if not wanted or any(text.count("{}") != 1 for text in wanted):
            raise UsageError(f"detector 'clip': question {name!r}: every template needs one {{}}")
        return wanted
    sets = {**TEMPLATES, **options.templates}
    if wanted not in sets:
        raise UsageError(f"detector 'clip': question {name!r}: no templates {wanted!r}; there are: {', '.join(sets)}")
    return tuple(sets[wanted])


def _against(name: str, spec: QuestionOptions, options: ClipOptions) -> tuple[str, ...]:
    if not isinstance(spec.against, str):
        return spec.against or ()
    if spec.against not in options.contrasts:
        names = ", ".join(options.contrasts) or "none"
        raise UsageError(f"detector 'clip': question {name!r}: no contrast set {spec.against!r}; there are: {names}")
    return tuple(options.contrasts[spec.against])


def _embeddings(name: str, spec: QuestionOptions) -> Weights | None:
    if spec.embeddings is None or spec.sha256 is None:
        return None
    return Weights(locator=spec.embeddings, sha256=spec.sha256, licence="of its data", origin=f"tuned for {name}")
