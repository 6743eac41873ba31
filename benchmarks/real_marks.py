"""`python -m benchmarks.real_marks --pictures IMAGES`: the detector `watermark` on real marks.

IMAGES: the 200 sample photographs of ImageNet. 32 of them bear a mark (names of photographers, sites and agencies,
dates), which was seen by eye before any score was known: `real_marks.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from moderation.detectors.general.watermark import LEAD_THRESHOLD, Watermark
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.scoring.devices import pick_dtype

LABELS: Final = Path(__file__).with_name("real_marks.json")
_CPU: Final = torch.device("cpu")
_KINDS: Final = ("plain", "faint", "none")
_THRESHOLDS: Final = (0.5, 0.8, 0.9, LEAD_THRESHOLD)


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", required=True, help="folder of the 200 photographs")
    parser.add_argument("--weights", help="watermark.safetensors; default: the packaged one")
    parser.add_argument("--out", help="file for the figures")
    options = parser.parse_args()
    detector = Watermark({})
    detector.load(_CPU, pick_dtype("auto", _CPU), [options.weights or str(resolve(detector.weights[0]))])
    marked = json.loads(LABELS.read_text(encoding="utf-8"))["marked"]
    scores = {path.name: _score(detector, path) for path in sorted(Path(options.pictures).glob("*.JPEG"))}
    figures = summarise(scores, {name: own["mark"] for name, own in marked.items()})
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def summarise(scores: dict[str, float], marks: dict[str, str]) -> dict[str, Any]:
    """Found of plain and of faint marks, and pictures without a mark over each threshold; the surest false alarms.

    average_precision: over all thresholds, plain and faint marks together.
    """
    kinds = {kind: [s for name, s in scores.items() if marks.get(name, "none") == kind] for kind in _KINDS}
    wrong = sorted((s, name) for name, s in scores.items() if name not in marks)[::-1]
    return {
        "pictures": {kind: len(own) for kind, own in kinds.items()},
        "at_threshold": {
            f"{t:g}": {kind: sum(s >= t for s in own) for kind, own in kinds.items()} for t in _THRESHOLDS
        },
        "average_precision": round(average_precision([(s, name in marks) for name, s in scores.items()]), 3),
        "surest_without_a_mark": [[name, round(score, 3)] for score, name in wrong[:10]],
    }


def average_precision(answers: Sequence[tuple[float, bool]]) -> float:
    """The mean, over pictures with a mark, of the precision at their scores. answers: (score, has a mark)."""
    scores, marked = (np.array(side) for side in zip(*answers, strict=True))
    precisions = [float(marked[scores >= own].mean()) for own in scores[marked]]
    return sum(precisions) / max(1, len(precisions))


def _score(detector: Watermark, path: Path) -> float:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    given = TensorFrames([pixels], [(pixels.shape[1], pixels.shape[0])], _CPU)
    with torch.inference_mode():
        return float(detector.score(given, {}).scores[0, 0])


if __name__ == "__main__":
    main()
