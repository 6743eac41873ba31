"""Section `compiled`: the networks under torch.compile, as the library compiles them and with CUDA graphs.

`warm` does the same without measuring, beside the tests: what it compiles is kept, and the section starts from there.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from benchmarks.device.models import CLIPS, Place, bare_networks, load_stack
from benchmarks.device.networks import bare_call, bare_rate, stack_config, through_stack
from benchmarks.device.record import Record
from moderation.detectors.nn.compile import compile_networks
from moderation.detectors.nn.conv import Conv
from moderation.types import Frame

NAMES = ("clip_l14", "open_nsfw", "image_safety", "imagenet", "clip_b32")
BATCH = 256
_PREPARED_S = 60.0


def run(record: Record, place: Place, *, warm: bool = False, frames: list[Frame] | None = None) -> None:
    """Each network eager, compiled, and compiled with CUDA graphs."""
    names = NAMES[1:2] if place.tiny else sorted(NAMES, key=CLIPS.__contains__) if warm else NAMES
    for mode in ("default", "reduce-overhead"):
        for name in names:
            title = f"{name}: {mode}" + (" (warm)" if warm else "")
            record.measure(title, partial(_compiled, name, place, mode, warm, frames or []), needs_s=6)


def _compiled(name: str, place: Place, mode: str, warm: bool, frames: list[Frame]) -> dict[str, Any]:
    batch = 4 if place.tiny else BATCH
    budget_s = 0.05 if place.tiny else 0.5
    _wait_for(name, place)
    stack = load_stack(stack_config(name, place, "bf16"))
    title, network = bare_networks(stack)[0]
    facts: dict[str, Any] = {} if warm else {"eager": bare_rate(title, network, stack, batch, budget_s)}
    began_s = time.monotonic()
    if place.tiny:
        network.compile(backend="eager")  # a CPU's compiler takes minutes
    elif mode == "default":
        compile_networks(stack.slots[0].detector.networks, stack.device)
    else:
        for module in network.modules():
            if isinstance(module, Conv):
                module.unpack()
        network.compile(mode=mode, dynamic=False)
    with torch.inference_mode(), stack._autocast():
        call = bare_call(title, network, stack, batch)
        for _ in range(3):
            call()
    facts["compile_s"] = round(time.monotonic() - began_s, 1)
    if not warm:
        facts["compiled"] = bare_rate(title, network, stack, batch, budget_s)
        facts["gain"] = round(facts["compiled"]["per_s"] / facts["eager"]["per_s"], 3)
        if frames and mode == "default":
            facts["stack"] = through_stack(stack, frames, batch, budget_s)
    torch.compiler.reset()
    return facts


def _wait_for(name: str, place: Place) -> None:
    """Until the checkpoint is there, which is made beside the first compilation."""
    ends_s = time.monotonic() + _PREPARED_S
    while name in CLIPS and not (place.scratch / f"{name}.json").is_file() and time.monotonic() < ends_s:
        time.sleep(0.2)
