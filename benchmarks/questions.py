"""What questions and variants cost: 100 questions beside one, and three variants in one pass beside each alone.

`python -m benchmarks.questions [--frames 16] [--rounds 25]`. Random weights in real architectures (built here, no hub):
time does not depend on what the numbers are. What is timed is `Stack.score` on decoded frames, as a worker calls it.
Rounds are interleaved, so that what else the machine does meets all alike; the median of their ratios counts.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import median, write_result
from moderation.config.model import Config
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.types import Frame

BAR_QUESTIONS = 1.03
BAR_VARIANTS = 1.05
# Three sizes, as an ensemble has them; ViT-B-16 is four times ViT-B-32.
VARIANTS = ("ViT-B-32", "RN50", "ViT-B-16")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=16, help="frames a call")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice. 1 on a busy machine")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: write_random_weights(name, Path(scratch)) for name in VARIANTS}
        frames = random_frames(given.frames)
        print(f"100 questions beside one, {VARIANTS[0]}")
        questions = compare_questions(paths, frames, given.rounds, given.dtype)
        print(f"{' + '.join(VARIANTS)} in one pass beside each alone")
        variants = compare_variants(paths, frames, given.rounds, given.dtype)
    record = {**vars(given), "threads": torch.get_num_threads(), "questions": questions, "variants": variants}
    print(json.dumps(record, indent=1))
    print(write_result("questions", record).name)


def write_random_weights(name: str, folder: Path) -> tuple[Path, str]:
    """A checkpoint of an open_clip architecture with random numbers, and its sha256."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model(name)
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def random_frames(count: int) -> list[Frame]:
    """Frames of the size that a worker decodes photographs to."""
    rng = np.random.default_rng(0)
    return [
        Frame(index=i, pixels=rng.integers(0, 256, (448, 597, 3), dtype=np.uint8), width=1024, height=768)
        for i in range(count)
    ]


def load_stack(paths: Mapping[str, tuple[Path, str]], names: Sequence[str], questions: int, dtype: str) -> Stack:
    """A stack of these variants, each asked that many questions."""
    asked = {
        f"q{i}": {"texts": [f"a picture of thing {i}"], "against": ["a picture of nothing"], "templates": "plain"}
        for i in range(questions)
    }
    entries = [
        {
            "name": "clip",
            "alias": name.lower().replace("-", "_"),
            "weights": f"file://{paths[name][0]}",
            "sha256": paths[name][1],
            "options": {"architecture": name, "questions": asked},
        }
        for name in names
    ]
    config = Config.model_validate({"stack": {"detectors": entries, "batch_size": 32, "dtype": dtype}})
    stack = build_stack(config)
    stack.load()
    gc.collect()
    return stack


def compare_questions(
    paths: Mapping[str, tuple[Path, str]], frames: list[Frame], rounds: int, dtype: str
) -> dict[str, Any]:
    """Seconds a call with one question and with a hundred."""
    stacks = {"one": load_stack(paths, VARIANTS[:1], 1, dtype), "hundred": load_stack(paths, VARIANTS[:1], 100, dtype)}
    return compared(interleave(stacks, frames, rounds), "hundred", ["one"], BAR_QUESTIONS)


def compare_variants(
    paths: Mapping[str, tuple[Path, str]], frames: list[Frame], rounds: int, dtype: str
) -> dict[str, Any]:
    """Seconds a call of three variants in one stack, and of three stacks of one."""
    stacks = {name: load_stack(paths, [name], 28, dtype) for name in VARIANTS}
    seconds = interleave({"together": load_stack(paths, VARIANTS, 28, dtype), **stacks}, frames, rounds)
    return compared(seconds, "together", VARIANTS, BAR_VARIANTS)


def interleave(stacks: Mapping[str, Stack], frames: list[Frame], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds of a call of each, a round after the other, the order turned every round."""
    names = list(stacks)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began, busy = time.perf_counter(), time.process_time()
            stacks[name].score(frames)
            if number:  # the first call of each warms it
                seconds[name].append((time.perf_counter() - began, time.process_time() - busy))
    return seconds


def compared(
    seconds: Mapping[str, list[tuple[float, float]]], one: str, others: Sequence[str], bar: float
) -> dict[str, Any]:
    """`one` beside the sum of `others`: the median of the rounds' ratios, which a drift of the machine leaves alone.

    cpu: the same of CPU time, which waiting for a core leaves alone; what to look at where others use the machine.
    """
    wall, cpu = (
        [s[kind] / sum(seconds[name][i][kind] for name in others) for i, s in enumerate(seconds[one])]
        for kind in (0, 1)
    )
    ratio, ratio_cpu = median(wall), median(cpu)
    print(f"  wall {ratio:.4f}, cpu {ratio_cpu:.4f}, bar {bar}", flush=True)
    return {
        "seconds": {name: median([w for w, _ in values]) for name, values in seconds.items()},
        "cpu_seconds": {name: median([c for _, c in values]) for name, values in seconds.items()},
        "ratio": round(ratio, 4),
        "ratio_cpu": round(ratio_cpu, 4),
        "rounds": [round(r, 4) for r in wall],
        "bar": bar,
        "met": ratio <= bar,
    }


if __name__ == "__main__":
    main()
