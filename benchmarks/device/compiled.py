"""Section `compiled`: the networks under torch.compile, as the library compiles them and with CUDA graphs.

Processes side by side compile all of them first, one each: what they compile is kept, and measuring starts from there.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.device.models import CLIPS, Place, bare_networks, load_stack
from benchmarks.device.networks import bare_call, bare_rate, stack_config, through_stack
from benchmarks.device.record import Record
from benchmarks.device.weights import accept_packed
from moderation.detectors.nn.compile import compile_networks
from moderation.detectors.nn.conv import Conv
from moderation.types import Frame

NAMES = ("clip_l14", "open_nsfw", "image_safety", "imagenet", "clip_b32")
BATCH = 256
_PREPARED_S = 60.0
_SHARE = 0.5  # of the time that is left, for compiling


def run(record: Record, place: Place, frames: list[Frame]) -> None:
    """Each network eager, compiled, and compiled with CUDA graphs."""
    for mode in ("default", "reduce-overhead"):
        names = NAMES[1:2] if place.tiny else NAMES
        if not place.tiny:
            record.measure(f"compiling: {mode}", partial(_compile_all, names, place, mode, record.left_s()), needs_s=20)
        for name in names:
            record.measure(f"{name}: {mode}", partial(_compiled, name, place, mode, False, frames), needs_s=6)


def _compile_all(names: Sequence[str], place: Place, mode: str, left_s: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    began_s = time.monotonic()
    processes = {name: context.Process(target=_compile_one, args=(name, place, mode)) for name in names}
    for process in processes.values():
        process.start()
    ended: dict[str, Any] = {}
    while len(ended) < len(processes) and time.monotonic() - began_s < _SHARE * left_s:
        time.sleep(0.2)
        for name, process in processes.items():
            if name not in ended and not process.is_alive():
                ended[name] = {"seconds": round(time.monotonic() - began_s, 1), "exit_code": process.exitcode}
    for process in processes.values():
        process.kill()
    return {"ended": ended}


def _compile_one(name: str, place: Place, mode: str) -> None:
    accept_packed()
    _compiled(name, place, mode, True, [])


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
