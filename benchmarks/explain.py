"""Explanations: how often the box holds what a score rests on, how far maps change with the weights, and what it takes.

`python -m benchmarks.explain [--cases 50] [--stride 32] [--seed 7]`. Objects of ../shared/data are pasted on a plain
background, see tests/pasted_objects.py; `imagenet` scores them. Speed is a ratio to one call a window: the same
windows, each covered in the frame and scored by `Stack.score`, once by the deciding detector and once by the stack.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.machine import median, write_result
from moderation.config.explain import ExplainConfig
from moderation.config.load import load_config
from moderation.explain.deletion import deletion_curve, order_of_map, random_order
from moderation.explain.gradients import attribute, rank_correlation
from moderation.explain.maps import Map, overlap, responsible_box
from moderation.explain.occlusion import occlude
from moderation.explain.vote_stack import VoteStack, load_vote_stack
from moderation.explain.windows import place_windows, view_geometry
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.types import Frame
from tests.job_runs import SHARED
from tests.pasted_objects import PastedObject, draw_objects, object_config, randomise

PICTURES = SHARED / "images"
METHODS = ("occlusion", "gradcam", "guided", "deconvolution")
BAR_OVERLAP = 0.3
SPEED_PICTURES = 1
DETECTORS = ("open_nsfw", "image_safety", "imagenet")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--stride", type=int, default=32, help="pixels of the view; the default of the program is 16")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=("quality", "speed"), help="measure one half")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice. 1 on a busy machine")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    config = ExplainConfig(stride_px=given.stride)
    record: dict[str, Any] = {"cases": given.cases, "seed": given.seed, "threads": torch.get_num_threads()}
    record["explain"] = config.model_dump()
    if given.only != "quality":
        record["speed"] = {name: compare_speed(name, ExplainConfig()) for name in DETECTORS}
    write_result("explain", record)
    if given.only != "speed":
        record["quality"] = measure_quality(given.cases, given.seed, config)
    print(json.dumps(record, indent=1))
    print(write_result("explain", record).name)


def compare_speed(name: str, config: ExplainConfig) -> Mapping[str, float]:
    """Windows a second: in batches as explained, one call a window by the detector, and by the whole default stack."""
    default = load_config(None, ["stack.device=cpu"])
    votes = load_vote_stack(default, name)
    whole = build_stack(default)
    whole.load()
    frames = _photographs()
    occlude(votes.stack, 0, votes.view, frames[:1], config)
    began = time.perf_counter()
    occluded = occlude(votes.stack, 0, votes.view, frames, config)
    batched = sum(2 * one.windows + 2 for one in occluded) / (time.perf_counter() - began)
    single = _one_call_a_window(votes, votes.stack, frames, config)
    stack = _one_call_a_window(votes, whole, frames[:1], config, most=30)
    return {
        "windows_per_s": round(batched, 1),
        "one_call_a_window_per_s": round(single, 1),
        "one_call_of_the_stack_a_window_per_s": round(stack, 1),
        "ratio_to_one_call": round(batched / single, 2),
        "ratio_to_one_call_of_the_stack": round(batched / stack, 2),
    }


def _one_call_a_window(
    votes: VoteStack, stack: Stack, frames: Sequence[Frame], config: ExplainConfig, most: int = 60
) -> float:
    """Windows a second, each covered by its mean in the frame's own pixels and scored by a call."""
    began, calls = time.perf_counter(), 0
    for frame in frames:
        high, wide = frame.pixels.shape[:2]
        geometry = view_geometry(votes.view, frame.pixels.shape, (frame.width, frame.height))
        for x0, y0, x1, y1 in place_windows(geometry, config.window_px, config.stride_px)[: most // len(frames)]:
            pixels = frame.pixels.copy()
            window = pixels[round(y0 * high) : round(y1 * high), round(x0 * wide) : round(x1 * wide)]
            window[:] = window.mean(axis=(0, 1))
            stack.score([Frame(index=0, pixels=pixels, width=frame.width, height=frame.height)])
            calls += 1
    return calls / (time.perf_counter() - began)


def _photographs() -> list[Frame]:
    from moderation.config.model import MediaConfig
    from moderation.media import decode_image

    paths = sorted(PICTURES.glob("*.JPEG"))[:SPEED_PICTURES]
    return [decode_image(path.read_bytes(), MediaConfig()).frames[0] for path in paths]


def measure_quality(count: int, seed: int, config: ExplainConfig) -> Mapping[str, Any]:
    """Per method: overlap with the pasted object, deletion beside chance, and likeness after randomising."""
    votes = load_vote_stack(object_config(PICTURES, device="cpu"), "imagenet")
    cases = draw_objects(PICTURES, votes, count, seed)
    measured: dict[str, Any] = {}
    for method in METHODS:
        # Anew each time: guided backpropagation replaces the activations of its network.
        exact = load_vote_stack(object_config(PICTURES, device="cpu", dtype="fp32"), "imagenet", exact=True)
        maps_of = _maps_of(method, config)
        asked = votes if method == "occlusion" else exact
        began = time.perf_counter()
        maps = maps_of(asked, cases)
        seconds = (time.perf_counter() - began) / count
        overlaps = _overlaps(maps, cases)
        some = cases[:5]
        before = maps_of(exact, some)
        randomise(exact, seed)
        alike = [rank_correlation(a, b) for a, b in zip(before, maps_of(exact, some), strict=True)]
        measured[method] = {
            "share_with_overlap": float(np.mean([o >= BAR_OVERLAP for o in overlaps])),
            "median_overlap": median(overlaps),
            "deletion": _deletion(votes, maps, cases, config),
            "rank_correlation_with_random_weights": round(float(np.mean(alike)), 3),
            "seconds_a_picture": round(seconds, 3),
        }
        print(method, measured[method], flush=True)
    return measured


def _maps_of(method: str, config: ExplainConfig) -> Callable[[VoteStack, Sequence[PastedObject]], list[Map]]:
    def maps(votes: VoteStack, cases: Sequence[PastedObject]) -> list[Map]:
        if method == "occlusion":
            return [occlude(votes.stack, votes.column(c.label), votes.view, [c.frame], config)[0].drop for c in cases]
        return [attribute(votes, votes.column(c.label), [c.frame], method)[0] for c in cases]

    return maps


def _overlaps(maps: Sequence[Map], cases: Sequence[PastedObject]) -> list[float]:
    boxes = [responsible_box(values) for values in maps]
    return [0.0 if box is None else overlap(box, case.place) for box, case in zip(boxes, cases, strict=True)]


def _deletion(
    votes: VoteStack, maps: Sequence[Map], cases: Sequence[PastedObject], config: ExplainConfig
) -> Mapping[str, float]:
    rng = np.random.default_rng(0)
    areas: dict[str, list[float]] = {"by_map": [], "at_random": []}
    for values, case in list(zip(maps, cases, strict=True))[:20]:
        column = votes.column(case.label)
        for name, order in (("by_map", order_of_map(values)), ("at_random", random_order(rng))):
            areas[name].append(float(deletion_curve(votes, column, case.frame, order, config).mean()))
    return {name: round(float(np.mean(own)), 3) for name, own in areas.items()}


if __name__ == "__main__":
    main()
