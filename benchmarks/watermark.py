"""`python -m benchmarks.watermark`: the detector `watermark` on composites that it has not learned from.

By default 3,197 pictures: 2,795 clean (half of them with what is mistaken for marks), 302 with marks of families that
were trained on, 100 of families that never were; on backgrounds other than those of training. Recall is also told by
contrast: how much a mark changes what is under it, over how much that differs within itself (`Composite.contrasts`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine_facts
from benchmarks.watermark_baseline import HogBaseline, train_baseline
from moderation.config.load import load_config
from moderation.detectors.general.watermark import LEAD_THRESHOLD, Watermark
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.scoring.devices import pick_dtype
from moderation.training.watermark.backgrounds import read_backgrounds
from moderation.training.watermark.composites import Composite, make_composite
from moderation.training.watermark.marks import known_families, unseen_families

_CPU = torch.device("cpu")
_PARTS = {"clean": 2795, "known": 302, "unseen": 100}
_SEED = 90_210  # of no training
_BATCH = 16
_THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)
_BASELINE_COMPOSITES = 1500
Ask = Callable[[list[Any]], list[float]]
_CONTRASTS = (0.0, 1.0, 2.0, 4.0)  # marks under 1 are hardly seen


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkAnswer:
    """Of one picture. confusing: what is mistaken for a mark; contrast: the highest of its marks; ground: number."""

    score: float
    confusing: str
    contrast: float
    ground: int


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backgrounds", action="append", required=True, help="pictures not used in training")
    parser.add_argument("--weights", help="watermark.safetensors; default: the packaged one")
    parser.add_argument("--share", type=float, default=1.0, help="of the 3,197 pictures")
    parser.add_argument("--threshold", type=float, default=LEAD_THRESHOLD)
    parser.add_argument("--out", help="file for the figures")
    parser.add_argument("--baseline", action="append", help="backgrounds to train the classical baseline on")
    options = parser.parse_args()
    detector = Watermark({})
    detector.load(_CPU, pick_dtype("auto", _CPU), [options.weights or str(resolve(detector.weights[0]))])
    grounds = read_backgrounds(options.backgrounds, load_config(None), seed=_SEED)
    figures = _measure(partial(_ask_detector, detector), options.share, grounds, options.threshold)
    if options.baseline:
        baseline = _train_baseline(options.baseline)
        figures["baseline"] = _measure(baseline.score, options.share, grounds, options.threshold)
    figures["machine"] = machine_facts()
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def _measure(ask: Ask, share: float, grounds: list[Any], threshold: float) -> dict[str, Any]:
    """All figures of one detector."""
    answers: dict[str, list[MarkAnswer]] = {}
    seconds = 0.0
    for part, whole in _PARTS.items():
        answers[part], part_s = _score(part, max(1, round(whole * share)), grounds, ask)
        seconds += part_s
    figures = _summarise(answers, threshold)
    figures["ms_per_picture"] = round(1000 * seconds / sum(map(len, answers.values())), 1)
    return figures


def _ask_detector(detector: Watermark, frames: list[Any]) -> list[float]:
    with torch.inference_mode():
        given = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], _CPU)
        scores: list[float] = detector.score(given, {}).scores[:, 0].tolist()
    return scores


def _train_baseline(sources: list[str]) -> HogBaseline:
    grounds = read_backgrounds(sources, load_config(None), seed=0)

    def make(number: int) -> Composite:
        ground = grounds[int(np.random.default_rng([0, 31, number]).integers(len(grounds)))]
        marked, confusing = number % 2 == 0, number % 4 >= 2
        return make_composite(ground, known_families(), (0, 31, number), marked=marked, confusing=confusing)

    return train_baseline(make, _BASELINE_COMPOSITES)


def _score(part: str, count: int, grounds: list[Any], ask: Ask) -> tuple[list[MarkAnswer], float]:
    """The answers on `count` composites of a part, and the seconds that they took."""
    answers: list[MarkAnswer] = []
    seconds = 0.0
    for start in range(0, count, _BATCH):
        batch = [_make(part, number, grounds) for number in range(start, min(count, start + _BATCH))]
        began = time.perf_counter()
        scores = ask([composite.pixels for composite in batch])
        seconds += time.perf_counter() - began
        answers += [
            MarkAnswer(
                score=score,
                confusing=c.confusing or "nothing",
                contrast=float(c.contrasts.max(initial=0)),
                ground=_ground(part, start + place, len(grounds)),
            )
            for place, (score, c) in enumerate(zip(scores, batch, strict=True))
        ]
    return answers, seconds


def _make(part: str, number: int, grounds: list[Any]) -> Composite:
    families = unseen_families() if part == "unseen" else known_families()
    seed = (_SEED, len(part), number)
    ground = grounds[_ground(part, number, len(grounds))]
    return make_composite(ground, families, seed, marked=part != "clean", confusing=number % 2 == 1)


def _ground(part: str, number: int, count: int) -> int:
    return int(np.random.default_rng([_SEED, len(part), number]).integers(count))


def _summarise(answers: dict[str, list[MarkAnswer]], threshold: float) -> dict[str, Any]:
    scores = {part: [answer.score for answer in own] for part, own in answers.items()}
    at = {}
    for t in sorted({threshold, *_THRESHOLDS}):
        over = {part: sum(s >= t for s in own) for part, own in scores.items()}
        hits = over["known"] + over["unseen"]
        at[f"{t:g}"] = {
            "recall_known": round(over["known"] / len(scores["known"]), 3),
            "recall_unseen": round(over["unseen"] / len(scores["unseen"]), 3),
            "precision": round(hits / (hits + over["clean"]), 3) if hits + over["clean"] else None,
            "false_alarms": over["clean"],
        }
    by_kind: dict[str, list[float]] = defaultdict(list)
    for answer in answers["clean"]:
        by_kind[answer.confusing].append(answer.score)
    alarming = Counter(answer.ground for answer in answers["clean"] if answer.score >= threshold)
    return {
        "pictures": {part: len(own) for part, own in scores.items()},
        "at_threshold": at,
        "threshold": threshold,
        "false_alarms_by_kind": {
            kind: f"{sum(s >= threshold for s in own)} of {len(own)}" for kind, own in sorted(by_kind.items())
        },
        "false_alarms_by_background": [[ground, count] for ground, count in alarming.most_common(10)],
        "found_by_contrast": {part: _by_contrast(answers[part], threshold) for part in ("known", "unseen")},
        "at_precision": {f"{p:g}": _at_precision(scores, p) for p in (0.5, 0.8, 0.9, 0.95)},
    }


def _by_contrast(answers: list[MarkAnswer], threshold: float) -> dict[str, str]:
    """Marked pictures found, of all, by the least contrast of their span."""
    figures = {}
    for low, high in zip(_CONTRASTS, (*_CONTRASTS[1:], float("inf")), strict=True):
        own = [answer.score for answer in answers if low <= answer.contrast < high]
        figures[f"from {low:g}"] = f"{sum(score >= threshold for score in own)} of {len(own)}"
    return figures


def _at_precision(scores: dict[str, list[float]], precision: float) -> dict[str, float] | None:
    """Recall at the least threshold with this precision here; None where there is none: to compare detectors by."""
    for threshold in sorted(scores["known"] + scores["unseen"]):
        hits = sum(s >= threshold for part in ("known", "unseen") for s in scores[part])
        if hits / (hits + sum(s >= threshold for s in scores["clean"])) >= precision:
            share = {
                part: sum(s >= threshold for s in scores[part]) / len(scores[part]) for part in ("known", "unseen")
            }
            return {"threshold": round(threshold, 4), **{f"recall_{k}": round(v, 3) for k, v in share.items()}}
    return None


if __name__ == "__main__":
    main()
