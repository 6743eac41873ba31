"""`moderation tune-prompts`: labelled pictures -> a file that stands for the words of a check, and how good it is."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from moderation import storage
from moderation.config.model import Config, DetectorConfig
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.network import ClipNetwork
from moderation.detectors.clip.questions import Question
from moderation.detectors.clip.tuned import class_names, encode_tuned
from moderation.detectors.registry import build
from moderation.detectors.weights.locator import default_cache, resolve
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.training.prompts.coop import context_space
from moderation.training.prompts.curve import FUSED, Point, Shots, learning_curve, shots_name, tune
from moderation.training.prompts.embed import Embedded, embed_items
from moderation.training.prompts.labelled import Labelled, Rule, join_labels, read_labels
from moderation.training.prompts.tune import Settings, Space, draw_shots, word_space
from moderation.version import __version__

_MOST_PICTURES = 1_000_000
_MOST_CONTEXT = 16  # tokens before the words; CoOp's largest, and what 77 tokens have room for


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The pictures that were learned from. hash: of content hashes and labels. classes: name -> pictures.

    repeated: pictures that have the bytes of another; one of each is kept, or a fold would judge what it learned from.
    """

    pictures: int
    repeated: int
    classes: Mapping[str, int]
    hash: str
    unlabelled: int
    failed: Mapping[str, str]
    computed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
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
) -> Outcome:
    """Learn the class embeddings of a check and write them to `out`, a drop-in for its words (`embeddings:`).

    shots: learn from so many pictures only (None: from all). curve: also measure with these numbers of them.
    context_tokens: learn that many vectors before the words (CoOp) instead. only: these variants.
    Raises UsageError before any network is loaded where the call is wrong; FatalError for weights.
    """
    if not 0 <= context_tokens <= _MOST_CONTEXT:
        raise UsageError(f"--context-tokens {context_tokens}: at most {_MOST_CONTEXT}")
    clips = find_variants(config, check, only)
    question = _same_question(clips, check)
    names = class_names(question)
    listed = []
    for item in open_source(images, config.source):
        listed.append(item)
        if len(listed) > _MOST_PICTURES:
            raise UsageError(f"{images}: over {_MOST_PICTURES:,} pictures")
    known = read_labels(labels, names, column=column, rules=rules)
    labelled = join_labels(listed, known, images, names)

    networks = {clip.name: clip.load_words(str(resolve(clip.weights[0]))) for clip in clips}
    folder = cache or default_cache() / "embeddings"
    found = embed_items(labelled.items, [(c, networks[c.name]) for c in clips], config, folder)
    found, targets, repeated = _one_of_each(labelled, found)
    _refuse_too_few(targets, names, found)
    words = {c.name: _words(c, networks[c.name], found) for c in clips}
    spaces = words
    if context_tokens:
        spaces = {c.name: _context(c, networks[c.name], found, context_tokens, settings.seed) for c in clips}

    every = np.arange(len(targets))
    train = every if shots is None else draw_shots(targets, every, shots, settings.seed)
    # By name: 1 picture a class is not all of them, though 1 == 1.0.
    wanted = list({shots_name(s): s for s in [*curve, 1.0 if shots is None else shots]}.values())
    points = tuple(learning_curve(spaces, targets, wanted, settings, probe=bool(curve), words=words))
    (tuned,) = tune(spaces, targets, [train], settings)
    data = Data(
        pictures=len(targets),
        repeated=repeated,
        classes={name: int((targets == i).sum()) for i, name in enumerate(names)},
        hash=_data_hash(found.hashes, targets, names),
        unlabelled=labelled.unlabelled,
        failed=found.failed,
        computed=found.computed,
    )
    method = "context" if context_tokens else "words"
    record: dict[str, Any] = {
        "method": method,
        "context_tokens": context_tokens,
        "variants": {
            c.name: {
                "model": c.model_key(networks[c.name]),
                "width": c.embedding_dim,
                "weights": {"sha256": c.weights[0].sha256, "origin": c.weights[0].origin},
                "weights_licence": c.weights[0].licence,
            }
            for c in clips
        },
        "data": {"hash": data.hash, "pictures": len(train), "classes": data.classes, "licence": licence},
        "licence": licence,
        "shots": "100%" if shots is None else shots_name(shots),
        "seed": settings.seed,
        "folds": settings.folds,
        "together": settings.together,
        "epochs": {name: part.epochs for name, part in tuned.items()},
        "scores": _scores(points, 1.0 if shots is None else shots),
        "code_version": __version__,
    }
    vectors = {
        name: [tuned[name].texts_TD[0][a:b].contiguous() for a, b in space.spans] for name, space in spaces.items()
    }
    content = encode_tuned(question, vectors, record)
    storage.publish(out, content)
    return Outcome(
        uri=out,
        sha256=hashlib.sha256(content).hexdigest(),
        check=check,
        method=method,
        names=names,
        data=data,
        epochs=record["epochs"],
        points=points,
        settings=settings,
    )


def find_variants(config: Config, check: str, only: Sequence[str] = ()) -> list[Clip]:
    """The CLIP detectors of a configuration that ask this question, each with nothing but it, in words.

    Raises UsageError naming the nearest question or variant.
    """
    entries = [entry for entry in config.stack.detectors if entry.name == "clip"]
    titles = [entry.title for entry in entries]
    unknown = [name for name in only if name not in titles]
    if unknown:
        raise UsageError(f"--variant {unknown[0]!r}: this configuration has: {', '.join(titles) or 'no CLIP variant'}")
    chosen = [entry for entry in entries if not only or entry.title in only]
    if not chosen:
        raise UsageError("this configuration has no CLIP variant; start from clip.yaml")
    asking = [entry for entry in chosen if check in entry.options.get("questions", {})]
    if not asking:
        known = sorted({name for entry in chosen for name in entry.options.get("questions", {})})
        close = difflib.get_close_matches(check, known, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
        raise UsageError(f"--check {check!r}: no such question{hint}")
    return [_with_one_question(entry, check) for entry in asking]


def _with_one_question(entry: DetectorConfig, check: str) -> Clip:
    # Words, even where the configuration has tuned ones already: they are where tuning begins.
    spec = {k: v for k, v in entry.options["questions"][check].items() if k not in ("embeddings", "sha256")}
    options = {**entry.options, "questions": {check: spec}}
    clip = build(entry.model_copy(update={"options": options}))
    assert isinstance(clip, Clip)
    return clip


def _same_question(clips: Sequence[Clip], check: str) -> Question:
    question = clips[0].questions[0]
    for clip in clips[1:]:
        if class_names(clip.questions[0]) != class_names(question):
            raise UsageError(
                f"--check {check!r}: {clips[0].name} and {clip.name} have other answers; choose by --variant"
            )
    return question


def _words(clip: Clip, network: ClipNetwork, found: Embedded) -> Space:
    own = clip.questions[0]  # the words may differ by variant
    contrasts = clip.embed_questions((own,), network, {})
    counts = [len(a.texts) for a in own.answers]
    return word_space(found.vectors[clip.name], list(torch.split(contrasts.texts_TD, counts)), network.scale)


def _context(clip: Clip, network: ClipNetwork, found: Embedded, tokens: int, seed: int) -> Space:
    answers = [answer.texts for answer in clip.questions[0].answers]
    return context_space(found.vectors[clip.name], network, answers, tokens=tokens, seed=seed)


def _one_of_each(labelled: Labelled, found: Embedded) -> tuple[Embedded, npt.NDArray[np.int64], int]:
    """Pictures of the same bytes once, and the classes. Raises UsageError where they are said to be of two."""
    targets = np.array(labelled.targets, dtype=np.int64)[found.kept]
    first: dict[str, int] = {}
    for row, name in enumerate(found.hashes):
        other = first.setdefault(name, row)
        if targets[other] != targets[row]:
            uris = [labelled.items[found.kept[r]].uri for r in (other, row)]
            raise UsageError(f"{uris[0]} and {uris[1]} are the same picture, labelled as two classes")
    rows = np.array(list(first.values()), dtype=np.int64)
    single = replace(
        found,
        kept=found.kept[rows],
        hashes=tuple(first),
        vectors={name: vectors[rows] for name, vectors in found.vectors.items()},
    )
    return single, targets[rows], len(targets) - len(rows)


def _refuse_too_few(targets: npt.NDArray[np.int64], names: Sequence[str], found: Embedded) -> None:
    counts = Counter(targets.tolist())
    for index, name in enumerate(names):
        if counts[index] < 2:
            first = next(iter(found.failed.items()), ("", ""))
            raise UsageError(
                f"class {name!r} has {counts[index]} pictures that can be read; at least two are needed "
                f"({len(found.failed)} failed, the first: {first[0]} {first[1]})"
            )


def _data_hash(hashes: Sequence[str], targets: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    rows = sorted(f"{name} {names[target]}" for name, target in zip(hashes, targets.tolist(), strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _scores(points: Sequence[Point], shots: Shots) -> dict[str, Any]:
    """Cross-validated figures of what the file was learned from, for its record."""
    named = shots_name(shots)
    found: dict[str, Any] = {}
    for point in points:
        if point.method != "probe" and point.shots in ("", named):
            q = point.quality
            found[f"{point.method}/{point.variant}"] = {
                "accuracy": round(q.accuracy, 4),
                "auc": None if q.auc is None else round(q.auc, 4),
            }
    return found


__all__ = ["FUSED", "Data", "Outcome", "find_variants", "tune_prompts"]
