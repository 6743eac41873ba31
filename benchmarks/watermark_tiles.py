"""`python -m benchmarks.watermark_tiles --backgrounds PICTURES/`: small marks on large pictures, tiled and not.

Photographs are enlarged until their short side is three canvases (1,344 pixels). Half get one mark as large as on a
picture of 384 pixels. Each is decoded as a run decodes it, with `media.tiles: off` and `auto`; its score is the highest
of its frames.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine_facts
from moderation.config.load import load_config
from moderation.config.model import MediaConfig
from moderation.detectors.general.watermark import LEAD_THRESHOLD, Watermark
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.media.decode import decode_item
from moderation.media.tiles import DETAIL_RATIO
from moderation.scoring.devices import pick_dtype
from moderation.training.watermark.backgrounds import read_backgrounds
from moderation.training.watermark.composites import make_large_composite
from moderation.training.watermark.marks import known_families
from moderation.types import U8, Item, Kind, MediaObject

_SEED = 90_211  # of no training
_CPU = torch.device("cpu")
_MODES = ("off", "auto")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backgrounds", action="append", required=True, help="pictures not used in training")
    parser.add_argument("--pictures", type=int, default=200, help="half of them are marked")
    parser.add_argument("--out", help="file for the figures")
    options = parser.parse_args()
    detector = load_packaged()
    grounds = read_backgrounds(options.backgrounds, load_config(None), seed=_SEED)
    scores: dict[str, list[tuple[float, bool]]] = {mode: [] for mode in _MODES}
    for number in range(options.pictures):
        marked = number % 2 == 0
        encoded = encode(large_picture(grounds, number, marked=marked))
        for mode in _MODES:
            scores[mode].append((ask(detector, encoded, mode), marked))
    figures: dict[str, Any] = {mode: _summarise(own) for mode, own in scores.items()}
    text = json.dumps({**figures, "pictures": options.pictures, "machine": machine_facts()}, indent=1)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def load_packaged() -> Watermark:
    """The detector with the weights that ship."""
    detector = Watermark({})
    detector.load(_CPU, pick_dtype("auto", _CPU), [str(resolve(detector.weights[0]))])
    return detector


def large_picture(grounds: list[U8], number: int, *, marked: bool) -> U8:
    """Picture `number`, uint8 [H,W,3], its short side three canvases."""
    seed = (_SEED, number)
    ground = grounds[int(np.random.default_rng(seed).integers(len(grounds)))]
    side = DETAIL_RATIO * MediaConfig().canvas_px
    return make_large_composite(ground, known_families(), seed, side_px=side, marked=marked).pixels


def encode(pixels: U8) -> bytes:
    """As a JPEG, whose own losses are small beside the picture's."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def ask(detector: Watermark, data: bytes, tiles: str) -> float:
    """The highest score of the frames that a run would have of it."""
    item = Item(item_id="a", uri="a.jpg", kind=Kind.IMAGE, objects=(MediaObject(uri="a.jpg", name="a.jpg"),))
    media = decode_item(item, [data], MediaConfig.model_validate({"tiles": tiles}))
    frames = TensorFrames([f.pixels for f in media.frames], [(f.width, f.height) for f in media.frames], _CPU)
    with torch.inference_mode():
        return float(detector.score(frames, {}).scores.max())


def _summarise(answers: list[tuple[float, bool]]) -> dict[str, Any]:
    found = sum(score >= LEAD_THRESHOLD for score, marked in answers if marked)
    false = sum(score >= LEAD_THRESHOLD for score, marked in answers if not marked)
    marked = sum(marked for _, marked in answers)
    return {"found": f"{found} of {marked}", "false_alarms": f"{false} of {len(answers) - marked}"}


if __name__ == "__main__":
    main()
