"""Section `profiles`: one batch under torch's profiler, and its steps apart: what the next change has to mend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from benchmarks.device.models import Place, config_of, decode_frames, load_stack
from benchmarks.device.pictures import read_variants
from benchmarks.device.record import Record
from benchmarks.device.timing import median_s
from moderation.detectors.views import TensorFrames
from moderation.scoring.stack import Stack
from moderation.types import Frame

STACKS = (("default", 256), ("clip_l14", 256))
_TOP = 15
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpyAsync", "cudaMemcpy")


def run(record: Record, place: Place) -> None:
    """Each stack on frames of many sizes, then of one."""
    folder = place.scratch / "pictures"
    for name, batch in STACKS[:1] if place.tiny else STACKS:
        batch = 4 if place.tiny else batch
        holder: list[Stack] = []
        if not record.measure(f"{name}: load", partial(_load, name, place, batch, holder), needs_s=8):
            continue
        config = config_of(name, place)
        many = list(islice(cycle(decode_frames(read_variants(folder, "small"), config)), batch))
        one = list(islice(cycle(decode_frames(read_variants(folder, "medium")[:1], config)), batch))
        kinds = (("many sizes", many), ("one size", one))
        for title, frames in kinds[:1] if place.tiny else kinds:
            record.measure(f"{name}: steps, {title}", partial(_steps, holder[0], frames), needs_s=3)
            record.measure(f"{name}: profile, {title}", partial(_profile, holder[0], frames), needs_s=5)


def _load(name: str, place: Place, batch: int, holder: list[Stack]) -> dict[str, Any]:
    holder.append(load_stack(config_of(name, place, batch=batch)))
    return {}


def _steps(stack: Stack, frames: Sequence[Frame]) -> dict[str, Any]:
    """Milliseconds of each step of a batch, the device idle between them."""
    device = stack.device
    pixels = [f.pixels for f in frames]
    sizes = [(f.width, f.height) for f in frames]

    def ms(work: Any) -> float:  # noqa: ANN401 - a call
        return round(1000 * median_s(work, device, budget_s=0.2, warm=1), 3)

    flat = np.concatenate([p.reshape(-1) for p in pixels])
    host = torch.from_numpy(flat)
    facts: dict[str, Any] = {"megabytes": round(flat.nbytes / 1e6, 1), "sizes": len({p.shape for p in pixels})}
    facts["put_together_ms"] = ms(lambda: np.concatenate([p.reshape(-1) for p in pixels]))
    facts["copy_pageable_ms"] = ms(lambda: host.to(device))
    if device.type == "cuda":
        pinned = host.pin_memory()
        facts["copy_pinned_ms"] = ms(lambda: pinned.to(device, non_blocking=True))
        facts["copy_into_pinned_ms"] = ms(lambda: pinned.copy_(host))
    facts["upload_ms"] = ms(lambda: TensorFrames(pixels, sizes, device))
    for view in dict.fromkeys(s.detector.view for s in stack.slots if s.detector.view.mode != "canvas"):
        title = f"{view.mode} {view.resize or view.crop} {view.interpolation}"
        uploaded = TensorFrames(pixels, sizes, device)

        def derive(view: Any = view, uploaded: TensorFrames = uploaded) -> None:  # noqa: ANN401 - a View
            uploaded._views.clear()
            with torch.inference_mode():
                uploaded.view(view)

        facts[f"view {title} ms"] = ms(derive)
    facts["whole_ms"] = ms(lambda: stack.score(frames))
    return facts


def _profile(stack: Stack, frames: Sequence[Frame]) -> dict[str, Any]:
    """Counts and the heaviest operators of one batch."""
    from torch.profiler import ProfilerActivity, profile

    on_device = stack.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    for _ in range(2):
        stack.score(frames)
    with profile(activities=activities) as found:
        stack.score(frames)
    averages = found.key_averages()
    counts = {e.key: e.count for e in averages}
    kernels = [e for e in averages if e.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "launches": sum(counts.get(name, 0) for name in _LAUNCHES),
        "waits": {name: counts[name] for name in _WAITS if name in counts},
        "copies": {e.key: [e.count, round(_device_us(e) / 1000, 3)] for e in kernels if e.key.startswith("Mem")},
        "device_ms": round(sum(_device_us(e) for e in kernels) / 1000, 3),
        "by_device": _top(kernels or averages, _device_us if kernels else _host_us),
        "by_host": _top([e for e in averages if e not in kernels], _host_us),
    }


def _top(events: Sequence[Any], weight: Any) -> list[list[Any]]:  # noqa: ANN401 - the profiler's events
    chosen = sorted(events, key=weight, reverse=True)[:_TOP]
    return [[e.key[:110], e.count, round(weight(e) / 1000, 3)] for e in chosen]


def _device_us(event: Any) -> float:  # noqa: ANN401 - its attribute was renamed
    value = getattr(event, "self_device_time_total", None)
    return float(value if value is not None else event.self_cuda_time_total)


def _host_us(event: Any) -> float:  # noqa: ANN401 - a profiler's event
    return float(event.self_cpu_time_total)
