"""Milliseconds per frame of each detector, beside what README's table says of it: `python -m benchmarks.frame_cost`.

64 photographs of 0.2 megapixels, decoded before, through a stack of the detector and what it needs, in batches of 16;
what it needs is not counted. Two figures: by the clock, and of this process's cores divided by their number, which on a
busy machine is the fairer. The stated cost is for ordering: within SPREAD of the measured one it will do. It is of two
cores with AVX512 and native bf16; another machine has another factor, so ratios are divided by their median.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.device.models import decode_frames, load_stack, needed_by, with_only
from benchmarks.machine import median, write_result
from benchmarks.peers.inputs import PHOTOGRAPHS
from benchmarks.peers.process import REPOSITORY
from moderation.config.load import load_config
from moderation.config.model import Config, DetectorConfig
from moderation.detectors.registry import build
from moderation.errors import ModerationError
from moderation.types import Frame

FRAMES = 64
ROUNDS = 5
SPREAD = 2.0
# Detectors of README's table that full.yaml lacks, and that run without a list, a gallery or a hub.
FURTHER = ("nudity", "c2pa")


def measure_detectors(frames: Sequence[Frame], config: Config, rounds: int) -> dict[str, Any]:
    """Detector -> its figures; rounds are interleaved."""
    calls: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for entry in config.stack.detectors:
        try:
            stack = load_stack(with_only(config, needed_by(config, entry.title)))
        except ModerationError as error:
            absent[entry.title] = str(error)
            continue
        calls[entry.title] = partial(_time_once, stack, entry.title, frames)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            times = call()
            if turn:  # kernels are chosen at the first
                spent[name].append(times)
    return {"detectors": {name: _figures(name, config, times) for name, times in spent.items()}, "absent": absent}


def _time_once(stack: Any, name: str, frames: Sequence[Frame]) -> tuple[float, float]:  # noqa: ANN401 - a Stack
    """(ms by the clock, ms of the cores over their number) per frame, of this detector alone."""
    before, began_s, began_cpu_s = stack.seconds[name], time.perf_counter(), time.process_time()
    stack.score(frames)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    own_s = stack.seconds[name] - before
    share = own_s / wall_s if wall_s else 0.0
    return own_s / len(frames) * 1000, cpu_s * share / torch.get_num_threads() / len(frames) * 1000


def _figures(name: str, config: Config, times: Sequence[tuple[float, float]]) -> dict[str, float]:
    entry = next(entry for entry in config.stack.detectors if entry.title == name)
    wall_ms, cpu_ms = (median(values) for values in zip(*times, strict=True))
    return {"stated_ms": build(entry).cost_ms, "wall_ms": wall_ms, "cpu_ms": cpu_ms}


def compare_with_stated(detectors: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Detector -> measured over stated cost, in units of the machine: of the median detector 1."""
    ratios = {n: f["cpu_ms"] / f["stated_ms"] for n, f in detectors.items() if f["stated_ms"] >= 1}
    middle = median(list(ratios.values()))
    return {name: round(ratio / middle, 2) for name, ratio in ratios.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    config = load_config("full.yaml", [])
    entries = (*config.stack.detectors, *(DetectorConfig(name=name) for name in FURTHER))
    config = config.model_copy(update={"stack": config.stack.model_copy(update={"detectors": entries})})
    frames = decode_frames([path.read_bytes() for path in sorted(PHOTOGRAPHS.iterdir())[:FRAMES]], config)
    record = measure_detectors(frames, config, given.rounds)
    record["of_stated"] = compare_with_stated(record["detectors"])
    record["outside_the_spread"] = sorted(
        name for name, ratio in record["of_stated"].items() if not 1 / SPREAD <= ratio <= SPREAD
    )
    record |= {"frames": len(frames), "rounds": given.rounds, "threads": torch.get_num_threads(), "spread": SPREAD}
    for name, figures in record["detectors"].items():
        print(f"  {name}: {figures}")
    print(f"  outside a factor of {SPREAD:g}: {record['outside_the_spread']}")
    print(write_result("frame_cost", record).relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
