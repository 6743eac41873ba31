"""What goes wrong on a device: no memory, a lost context, two threads at once, and devices that are hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moderation.scoring.stack import Stack
from moderation.types import Frame
from tests.gpu.device_stacks import frames, load_stack

pytestmark = [pytest.mark.gpu, pytest.mark.weights, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
# Batches of another size take other kernels, which add in another order; TF32 has 10 bits.
SAME = 5e-3

# A detector that reads beyond the end of a tensor: the device stops with an assertion, and with it the context.
LOST = """
import sys
import torch
from moderation.config.model import Config, StackConfig
from moderation.detectors.base import DetectorDefaults, Scored, View
from moderation.errors import ItemError, ShardError
from moderation.pipeline.clock import Clock
from moderation.scoring.batching import Decoded, score_items
from moderation.scoring.slots import Slot
from moderation.scoring.stack import Stack
from moderation.types import Frame, Item, Kind, Media
import numpy as np

class Lost(DetectorDefaults):
    name, version, labels, view, cost_ms = "lost", "1", ("x",), View(mode="canvas"), 1.0
    def load(self, device, dtype, paths): self.device = device
    def score(self, batch, earlier):
        table = torch.zeros(4, device=self.device)
        return Scored(scores=table[torch.full((len(batch), 1), 10**6, device=self.device)])

config = Config(stack=StackConfig(device=sys.argv[1], batch_size=4))
stack = Stack([Slot(detector=Lost(), condition=None, columns=slice(0, 1), weights=())], config)
stack.load()
frame = Frame(index=0, pixels=np.zeros((8, 8, 3), np.uint8), width=8, height=8)
media = Media(kind=Kind.IMAGE, frames=(frame,), frames_total=1)
items = [Item(item_id=str(i), uri=str(i), objects=()) for i in range(4)]
decoded = [Decoded(item=i, media=media, size_bytes=1, content_hash=None) for i in items]
try:
    votes = list(score_items(decoded, stack, Clock()))
except ShardError as error:
    print("ShardError", type(error.__cause__).__name__)
else:
    print("rows", [v.detail.split(":")[0] if isinstance(v, ItemError) else "votes" for _, v in votes])
"""


def many(count: int) -> Sequence[Frame]:
    return list(islice(cycle(frames()), count))


def peak_bytes(stack: Stack, batch: Sequence[Frame], device: torch.device) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    stack.score(batch)
    return torch.cuda.max_memory_allocated(device)


def test_a_batch_that_does_not_fit_is_halved_and_scores_the_same(cuda: torch.device, told: Any) -> None:
    batch = many(256)
    stack = load_stack("default", None, cuda, "fp32", batch_size=256)
    stack.score(batch)  # kernels and workspaces are there
    expected = stack.score(batch)
    peak = peak_bytes(stack, batch, cuda)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(cuda)
    total = torch.cuda.get_device_properties(cuda).total_memory
    # Room for what is held and for two fifths of what the batch takes beyond it.
    torch.cuda.set_per_process_memory_fraction((held + 0.4 * (peak - held)) / total, 0)
    try:
        votes = stack.score(batch)
        halved_to = stack.batch_size
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    off = float(np.nanmax(np.abs(votes.scores - expected.scores) / np.maximum(1, np.abs(expected.scores))))
    told("halved batch", halved_to=halved_to, peak_mib=peak >> 20, held_mib=held >> 20, max_difference=round(off, 6))
    assert halved_to < 256
    assert off <= SAME


def test_a_lost_device_is_an_error_of_the_shard_and_of_no_item(cuda: torch.device, told: Any) -> None:
    said = lose("cuda")
    told("lost device", said=said)
    assert said == "ShardError AcceleratorError"


def test_on_a_cpu_the_same_mistake_is_an_error_of_each_item() -> None:
    """Runs everywhere, so that what the GPU's test runs stays a detector."""
    assert lose("cpu") == f"rows {['IndexError'] * 4}"


def lose(device: str) -> str:
    """What came of a batch whose detector reads beyond the end of a tensor."""
    command = [sys.executable, "-c", LOST, device]
    done = subprocess.run(command, cwd=ROOT, env=paths(), capture_output=True, text=True, timeout=120, check=False)
    return (done.stdout.strip().splitlines() or [done.stderr[-1500:]])[-1]


def test_two_threads_on_two_streams_score_the_same(cuda: torch.device, told: Any) -> None:
    batch = many(48)
    stacks = [load_stack("default", None, cuda, "bf16", batch_size=16) for _ in range(2)]
    expected = [stack.score(batch) for stack in stacks]

    def score(stack: Stack) -> list[Any]:
        with torch.cuda.stream(torch.cuda.Stream(cuda)):
            return [stack.score(batch) for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(score, stacks))
    off = max(
        float(np.nanmax(np.abs(votes.scores - alone.scores) / np.maximum(1, np.abs(alone.scores))))
        for rounds, alone in zip(found, expected, strict=True)
        for votes in rounds
    )
    hashes = all(v.blobs == alone.blobs for rounds, alone in zip(found, expected, strict=True) for v in rounds)
    told("two threads", max_difference=off, same_hashes=hashes)
    assert off <= 1e-6
    assert hashes


def test_one_stack_scores_the_same_twice(cuda: torch.device, told: Any) -> None:
    stack = load_stack("full", None, cuda, "bf16", batch_size=16)
    first, again = stack.score(frames()), stack.score(frames())
    off = float(np.nanmax(np.abs(first.scores - again.scores), initial=0.0))
    told("twice", max_difference=off, same_regions=first.regions == again.regions)
    assert off <= 1e-6
    assert first.blobs == again.blobs


def paths(**more: str) -> dict[str, str]:
    """The environment, with this checkout first on the path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]), **more}


def picked(visible: str, *names: str) -> list[str]:
    """What each name is where only these devices are visible: a device, or why it is none."""
    code = """
import sys
from moderation.errors import UsageError
from moderation.scoring.devices import pick_device
for name in sys.argv[1:]:
    try:
        print(pick_device(name))
    except UsageError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, *names]
    env = paths(CUDA_VISIBLE_DEVICES=visible)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout.splitlines()


def test_hidden_devices_are_not_used(cuda: torch.device) -> None:
    assert picked("", "auto", "cuda") == ["cpu", "stack.device: cuda is not available here; use auto or cpu"]


def test_a_visible_device_is_used_by_its_number(cuda: torch.device) -> None:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    beyond = "stack.device: no 'cuda:1' here; there are 1 GPUs"
    assert picked(first, "auto", "cuda:0", "cuda:1") == ["cuda", "cuda:0", beyond]
