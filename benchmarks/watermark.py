"""`python -m benchmarks.watermark`: the detector `watermark` on composites that it has not learned from.

By default 3,197 pictures: 2,795 clean (half of them with what is mistaken for marks), 302 with marks of families that
were trained on, 100 of families that never were; on backgrounds other than those of training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine_facts
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
_Answer = tuple[float, str]  # the score, and what in the picture is mistaken for a mark


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backgrounds", action="append", required=True, help="pictures not used in training")
    parser.add_argument("--weights", help="watermark.safetensors; default: the packaged one")
    parser.add_argument("--share", type=float, default=1.0, help="of the 3,197 pictures")
    parser.add_argument("--threshold", type=float, default=LEAD_THRESHOLD)
    parser.add_argument("--out", help="file for the figures")
    options = parser.parse_args()
    detector = Watermark({})
    detector.load(_CPU, pick_dtype("auto", _CPU), [options.weights or str(resolve(detector.weights[0]))])
    grounds = read_backgrounds(options.backgrounds, load_config(None), seed=_SEED)
    answers: dict[str, list[_Answer]] = {}
    seconds = 0.0
    for part, whole in _PARTS.items():
        answers[part], part_s = _score(part, max(1, round(whole * options.share)), grounds, detector)
        seconds += part_s
    figures = _summarise(answers, options.threshold)
    figures["ms_per_picture"] = round(1000 * seconds / sum(map(len, answers.values())), 1)
    figures["machine"] = machine_facts()
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def _score(part: str, count: int, grounds: list[Any], detector: Watermark) -> tuple[list[_Answer], float]:
    """The answers on `count` composites of a part, and the seconds that the detector took."""
    answers: list[_Answer] = []
    seconds = 0.0
    for start in range(0, count, _BATCH):
        batch = [_make(part, number, grounds) for number in range(start, min(count, start + _BATCH))]
        frames = [composite.pixels for composite in batch]
        began = time.perf_counter()
        with torch.inference_mode():
            given = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], _CPU)
            scores = detector.score(given, {}).scores[:, 0].tolist()
        seconds += time.perf_counter() - began
        answers += [(score, c.confusing or "nothing") for score, c in zip(scores, batch, strict=True)]
    return answers, seconds


def _make(part: str, number: int, grounds: list[Any]) -> Composite:
    families = unseen_families() if part == "unseen" else known_families()
    pick = int(np.random.default_rng([_SEED, len(part), number]).integers(len(grounds)))
    seed = (_SEED, len(part), number)
    return make_composite(grounds[pick], families, seed, marked=part != "clean", confusing=number % 2 == 1)


def _summarise(answers: dict[str, list[_Answer]], threshold: float) -> dict[str, Any]:
    scores = {part: [score for score, _ in own] for part, own in answers.items()}
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
    for score, kind in answers["clean"]:
        by_kind[kind].append(score)
    return {
        "pictures": {part: len(own) for part, own in scores.items()},
        "at_threshold": at,
        "threshold": threshold,
        "false_alarms_by_kind": {
            kind: f"{sum(s >= threshold for s in own)} of {len(own)}" for kind, own in sorted(by_kind.items())
        },
    }


if __name__ == "__main__":
    main()
