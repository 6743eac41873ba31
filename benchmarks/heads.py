"""`python -m benchmarks.heads HEAD.safetensors`: ten heads on one backbone beside one head, in turns, as a ratio."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import machine_facts, median, write_result
from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.detectors.heads.head_file import read_head_record
from moderation.detectors.weights.checksum import sha256_of
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.types import Frame

_FRAMES, _ROUNDS = 64, 7


def main() -> None:
    """Measure, print, and write results/heads.json."""
    path = Path(sys.argv[1]).absolute()
    record = read_head_record(path)
    one, ten = _stack(path, record.backbone.detector, 1), _stack(path, record.backbone.detector, 10)
    rng = np.random.default_rng(0)
    frames = [
        Frame(index=i, pixels=rng.integers(0, 255, (448, 448, 3), dtype=np.uint8), width=448, height=448)
        for i in range(_FRAMES)
    ]
    seconds: dict[str, list[float]] = {"one": [], "ten": []}
    for turn in range(_ROUNDS + 1):
        for name, stack in (("one", one), ("ten", ten)):
            began = time.process_time()
            stack.score(frames)
            if turn:  # the first packs weights
                seconds[name].append(time.process_time() - began)
    # By pairs, and CPU time: other work on the machine is in neither.
    ratio = median([b / a for a, b in zip(seconds["one"], seconds["ten"], strict=True)])
    figures = {
        "backbone": record.backbone.detector,
        "layers_of_its_own": record.depth is not None,
        "cpu_ms_per_frame": {name: round(1000 * median(own) / _FRAMES, 2) for name, own in seconds.items()},
        "ten_over_one": round(ratio, 3),
        "machine": machine_facts(),
    }
    print(figures, write_result("heads", figures))


def _stack(path: Path, backbone: str, heads: int) -> Stack:
    sha256 = sha256_of(path)
    entries = [DetectorConfig(name=f"head:h{i}", weights=f"file://{path}", sha256=sha256) for i in range(heads)]
    detectors = (DetectorConfig(name=backbone), *entries)
    stack = build_stack(Config(stack=StackConfig(detectors=detectors, device="cpu")))
    stack.load()
    return stack


if __name__ == "__main__":
    main()
