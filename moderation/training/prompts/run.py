"""`moderation tune-prompts`: labelled pictures -> a file that replaces the words of a check, and its quality."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from moderation import storage
from moderation.config.model import Config
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.network import ClipNetwork
from moderation.detectors.clip.tuned import class_names, encode_tuned
from moderation.detectors.weights.locator import default_cache, resolve
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.training.prompts.coop import context_space
from moderation.training.prompts.curve import Point, Shots, learning_curve, shots_name, tune
from moderation.training.prompts.dataset import Data, describe_data, refuse_too_few, select_distinct
from moderation.training.prompts.embed import Embedded, embed_items
from moderation.training.prompts.labelled import Labelled, Rule, hold_to_labels, join_labels, read_labels
from moderation.training.prompts.spaces import Settings, Space, word_space
from moderation.training.prompts.tune import Learned, draw_shots
from moderation.training.prompts.variants import find_variants, same_question
from moderation.types import Item
from moderation.version import __version__

_MAX_PICTURES = 1_000_000
_MAX_CONTEXT_TOKENS = 16  # tokens before the words: CoOp's largest number, and what 77 tokens leave room for


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningOutcome:
    """What was written, and how good it is: `points` are cross-validated, zero-shot first."""

    uri: str
    sha256: str
    check: str
    method: str
    names: tuple[str, ...]
    data: Data
    epochs: Mapping[str, int]
    points: tuple[Point, ...]
    settings: Settings

    def as_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def tune_prompts(
    config: Config,
    *,
    images: str,
    labels: str,
    check: str,
    out: str,
    settings: Settings,
    shots: Shots | None = None,
    curve: Sequence[Shots] = (),
    context_tokens: int = 0,
    column: str = "label",
    rules: Sequence[Rule] = (),
    only: Sequence[str] = (),
    licence: str = "unknown",
    cache: Path | None = None,
) -> TuningOutcome:
    """Learn the class embeddings of a check and write them to `out`, a replacement for its words (`embeddings:`).

    shots: learn from this many pictures only (None: from all). curve: also measure with these numbers of pictures.
    context_tokens: learn this many vectors before the words (CoOp) instead. only: use these variants.
    Raises UsageError for a wrong call before any network is loaded; FatalError for weights.
    """
    if not 0 <= context_tokens <= _MAX_CONTEXT_TOKENS:
        raise UsageError(f"--context-tokens {context_tokens}: at most {_MAX_CONTEXT_TOKENS}")
    clips = find_variants(config, check, only)
    question = same_question(clips, check)
    names = class_names(question)
    listed = hold_to_labels(_list_pictures(images, config), labels, images)
    labelled = join_labels(listed, read_labels(labels, names, column=column, rules=rules), images, names)

    networks = {clip.name: clip.load_words(str(resolve(clip.weights[0]))) for clip in clips}
    embedded = _embed_pictures(labelled, clips, networks, config, cache)
    embedded, targets, repeated = select_distinct(labelled, embedded)
    refuse_too_few(targets, names, embedded)
    words = {c.name: _words(c, networks[c.name], embedded) for c in clips}
    spaces = words if not context_tokens else _contexts(clips, networks, embedded, context_tokens, settings.seed)

    used: Shots = 1.0 if shots is None else shots
    train = _draw(targets, shots, settings.seed)
    measured = _distinct([*curve, used])
    points = tuple(learning_curve(spaces, targets, measured, settings, probe=bool(curve), words=words))
    (tuned,) = tune(spaces, targets, [train], settings)
    data = describe_data(labelled, embedded, targets, names, repeated)
    record: dict[str, Any] = {
        "method": "context" if context_tokens else "words",
        "context_tokens": context_tokens,
        "variants": {clip.name: _describe_variant(clip, networks[clip.name]) for clip in clips},
        "data": {"hash": data.hash, "pictures": len(train), "classes": data.classes, "licence": licence},
        "licence": licence,
        "shots": shots_name(used),
        "seed": settings.seed,
        "folds": settings.folds,
        "together": settings.together,
        "epochs": {name: learned.epochs for name, learned in tuned.items()},
        "scores": _scores(points, used),
        "code_version": __version__,
    }
    content = encode_tuned(question, _class_vectors(spaces, tuned), record)
    storage.publish(out, content)
    return TuningOutcome(
        uri=out,
        sha256=hashlib.sha256(content).hexdigest(),
        check=check,
        method=record["method"],
        names=names,
        data=data,
        epochs=record["epochs"],
        points=points,
        settings=settings,
    )


def _list_pictures(images: str, config: Config) -> list[Item]:
    listed = list(islice(open_source(images, config.source), _MAX_PICTURES + 1))
    if len(listed) > _MAX_PICTURES:
        raise UsageError(f"{images}: over {_MAX_PICTURES:,} pictures")
    return listed


def _embed_pictures(
    labelled: Labelled, clips: Sequence[Clip], networks: Mapping[str, ClipNetwork], config: Config, cache: Path | None
) -> Embedded:
    folder = cache or default_cache() / "embeddings"
    return embed_items(labelled.items, [(clip, networks[clip.name]) for clip in clips], config, folder)


def _draw(targets: npt.NDArray[np.int64], shots: Shots | None, seed: int) -> npt.NDArray[np.int64]:
    every = np.arange(len(targets))
    return every if shots is None else draw_shots(targets, every, shots, seed)


def _distinct(shots: Sequence[Shots]) -> list[Shots]:
    # By name: 1 picture per class is not all of them, though 1 == 1.0.
    return list({shots_name(s): s for s in shots}.values())


def _describe_variant(clip: Clip, network: ClipNetwork) -> dict[str, Any]:
    weights = clip.weights[0]
    return {
        "model": clip.model_key(network),
        "width": clip.embedding_dim,
        "weights": {"sha256": weights.sha256, "origin": weights.origin},
        "weights_licence": weights.licence,
    }


def _class_vectors(spaces: Mapping[str, Space], tuned: Mapping[str, Learned]) -> dict[str, list[torch.Tensor]]:
    """Variant -> its tuned texts, float32 [n,D] for each answer."""
    return {name: [tuned[name].texts_TD[0][a:b].contiguous() for a, b in space.spans] for name, space in spaces.items()}


def _words(clip: Clip, network: ClipNetwork, embedded: Embedded) -> Space:
    own = clip.questions[0]  # the words may differ by variant
    contrasts = clip.embed_questions((own,), network, {})
    counts = [len(a.texts) for a in own.answers]
    return word_space(embedded.vectors[clip.name], list(torch.split(contrasts.texts_TD, counts)), network.scale)


def _contexts(
    clips: Sequence[Clip], networks: Mapping[str, ClipNetwork], embedded: Embedded, tokens: int, seed: int
) -> dict[str, Space]:
    spaces = {}
    for clip in clips:
        answers = [answer.texts for answer in clip.questions[0].answers]
        images = embedded.vectors[clip.name]
        spaces[clip.name] = context_space(images, networks[clip.name], answers, tokens=tokens, seed=seed)
    return spaces


def _scores(points: Sequence[Point], shots: Shots) -> dict[str, Any]:
    """Cross-validated figures for the pictures that the file was learned from, for its record."""
    named = shots_name(shots)
    scores: dict[str, Any] = {}
    for point in points:
        if point.method != "probe" and point.shots in ("", named):
            quality = point.quality
            scores[f"{point.method}/{point.variant}"] = {
                "accuracy": round(quality.accuracy, 4),
                "auc": None if quality.auc is None else round(quality.auc, 4),
            }
    return scores
