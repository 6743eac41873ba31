"""Files of tuned class embeddings, which `moderation tune-prompts` writes and a question's `embeddings:` names.

safetensors. Tensors `<variant>/<label>`, float32 [n,D], normalised; the other side of a two-sided question is
`against`. The header holds one JSON record under `moderation`, so that no file replaces words that it was not made for:

    check, labels             the question and its answers, in order
    variants                  name -> model (weights and architecture, as `Clip.model_key`), width
    method                    `words` (class embeddings), or `context` (vectors before the words)
    data, folds, seed, scores, licence, ...   provenance; for people, not checked

A file without a record is accepted as it is: somebody made it by other means and pinned it by its sha256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moderation.config.canonical import canonical_json, parse_json
from moderation.detectors.clip.questions import Question
from moderation.errors import FatalError, UsageError

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

_KEY = "moderation"
KIND = "class_embeddings"


def class_names(question: Question) -> tuple[str, ...]:
    """The names of a question's answers in such a file: their labels, and `against` for the alternative."""
    return tuple(answer.label or "against" for answer in question.answers)


def encode_tuned(
    question: Question, embeddings: Mapping[str, Sequence[torch.Tensor]], record: Mapping[str, Any]
) -> bytes:
    """Encode a file. embeddings: variant -> float32 [n,D] per answer; record: `variants` with models, and more."""
    from safetensors.torch import save

    names = class_names(question)
    tensors = {
        f"{variant}/{name}": tensor.float().contiguous()
        for variant, of_answers in embeddings.items()
        for name, tensor in zip(names, of_answers, strict=True)
    }
    whole = {**record, "kind": KIND, "version": 1, "check": question.name, "labels": list(names)}
    data: bytes = save(tensors, metadata={_KEY: canonical_json(whole)})
    return data


def read_tuned_record(path: str) -> dict[str, Any] | None:
    """The record of a file, None where it has none. Raises FatalError when it is not readable."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        record = None if text is None else parse_json(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise FatalError(f"{path}: not readable as safetensors: {error}") from error
    return record if isinstance(record, dict) and record.get("kind") == KIND else None


def tuned_name(path: str, question: Question, variant: str, model: str) -> str:
    """The name under which the file holds this variant's model, whatever either configuration calls it.

    Raises UsageError when it was tuned for another check, for other answers, or for other models.
    """
    record = read_tuned_record(path)
    if record is None:
        return variant
    file = Path(path).name
    if record.get("check") != question.name:
        raise UsageError(f"{file}: tuned for the check {record.get('check')!r}, not for {question.name!r}")
    names = list(class_names(question))
    if sorted(map(str, record.get("labels", ()))) != sorted(names):
        raise UsageError(
            f"{file}: tuned for the answers {record.get('labels')}, question {question.name!r} has {names}"
        )
    variants: Mapping[str, Mapping[str, Any]] = record.get("variants", {})
    same = [name for name, variant_facts in variants.items() if variant_facts.get("model") == model]
    if not same:
        holds = ", ".join(variants) or "none"
        raise UsageError(
            f"{file}: tuned for other weights or another architecture than {variant!r} has; it holds: {holds}. "
            f"Tune it again: moderation tune-prompts --check {question.name}"
        )
    return variant if variant in same else same[0]
