"""Section `networks`: pictures a second of each detector and stack on frames in memory, beside the bare network."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn

from benchmarks.device.models import (
    CLIPS,
    Place,
    bare_networks,
    config_of,
    decode_frames,
    load_stack,
    with_only,
)
from benchmarks.device.pictures import read_variants
from benchmarks.device.record import Record
from benchmarks.device.timing import device_median_s, median_s, peak_mib, reset_peak
from moderation.config.model import Config
from moderation.scoring.stack import Stack
from moderation.types import Frame

# What is measured, in this order, and the batches of each.
BATCHES: Mapping[str, Sequence[int]] = {
    "default": (16, 64, 256, 512),
    "clip_l14": (32, 64, 256),
    "clip_b32": (64, 256, 512),
    "open_nsfw": (32, 64, 256, 512),
    "image_safety": (32, 64, 256, 512),
    "imagenet": (32, 64, 256, 512),
    "watermark": (32, 64, 256),
    "full": (16, 64),
    "clip_b16": (64, 256, 512),
    "faces": (64, 256),
    "text": (16, 64),
    "quality": (64, 256),
    "pdq": (64, 256),
    "skin": (64, 256),
    "codes": (64,),
}
# Fp32 whatever the stack says, or on the host.
_MEASUREMENTS = ("quality", "pdq", "skin", "codes")
_TINY = ("default", "clip_b32", "open_nsfw")
_SIDE = 224
# Inputs that are no squares of _SIDE: heights and widths. A network that looks at the whole canvas is given these for a
# photograph of 4 to 3.
_INPUTS: Mapping[str, tuple[int, int]] = {
    "watermark.network": (320, 320),
    "faces.network": (384, 480),
    "text.glancer": (416, 544),
    "text.detector": (736, 992),
    "text.recogniser": (48, 320),
}


def run(record: Record, place: Place) -> None:
    """Each model in turn, in bf16 and, once, in fp32."""
    frames = decode_frames(read_variants(place.scratch / "pictures", "small"), config_of("default", place))
    alike = decode_frames(read_variants(place.scratch / "pictures", "medium")[:1], config_of("default", place))
    chosen = dict.fromkeys(_TINY, (4,)) if place.tiny else BATCHES
    for name, sizes in chosen.items():
        holder: list[Stack] = []
        make = partial(_load, name, place, "bf16", holder)
        if record.measure(f"{name}: load", make, needs_s=6):
            _measure(record, place, name, holder[0], frames, alike, sizes)
        holder.clear()
        _forget(place)
        middle = sizes[len(sizes) // 2]
        if name not in _MEASUREMENTS and not place.tiny:
            record.measure(f"{name}: fp32", partial(_fp32, name, place, frames, middle), needs_s=10)
            _forget(place)


def _measure(
    record: Record,
    place: Place,
    name: str,
    stack: Stack,
    frames: Sequence[Frame],
    alike: Sequence[Frame],
    sizes: Sequence[int],
) -> None:
    budget_s = 0.05 if place.tiny else 0.4
    for batch in sizes:
        record.measure(f"{name}: stack {batch}", partial(through_stack, stack, frames, batch, budget_s))
    # The largest batch again, of frames of one size: what the many sizes cost.
    record.measure(f"{name}: one size {sizes[-1]}", partial(through_stack, stack, alike, sizes[-1], budget_s))
    if name in ("default", "full"):
        return
    for title, network in bare_networks(stack):
        for batch in sizes:
            work = partial(bare_rate, title, network, stack, batch, budget_s / 2)
            record.measure(f"{name}: bare {title} {batch}", work)


def _load(name: str, place: Place, dtype: str, holder: list[Stack]) -> dict[str, Any]:
    holder.append(load_stack(stack_config(name, place, dtype)))
    return {"device": str(holder[0].device), "dtype": str(holder[0].dtype)}


def stack_config(name: str, place: Place, dtype: str) -> Config:
    """A stack by its name, or one detector alone."""
    if name in CLIPS or name in ("default", "full"):
        return config_of(name, place, dtype=dtype)
    return with_only(config_of("full", place, dtype=dtype), [name])


def _fp32(name: str, place: Place, frames: Sequence[Frame], batch: int) -> dict[str, Any]:
    stack = load_stack(stack_config(name, place, "fp32"))
    facts = through_stack(stack, frames, batch, 0.3)
    for title, network in bare_networks(stack) if name in CLIPS else ():
        facts |= {f"bare_{key}": value for key, value in bare_rate(title, network, stack, batch, 0.3).items()}
    return facts


def through_stack(stack: Stack, frames: Sequence[Frame], batch: int, budget_s: float) -> dict[str, Any]:
    """Upload, views, networks, copies back: pictures a second by the host's clock; seconds of each detector."""
    stack.batch_size = batch
    chosen = list(islice(cycle(frames), batch))
    reset_peak(stack.device)
    stack.score(chosen)
    before = dict(stack.seconds)
    calls: list[int] = []

    def score() -> None:
        calls.append(1)
        stack.score(chosen)

    seconds = median_s(score, stack.device, budget_s=budget_s, warm=1)
    share = {name: round((stack.seconds[name] - before[name]) / len(calls) * 1000, 2) for name in before}
    facts: dict[str, Any] = {"batch": batch, "per_s": round(batch / seconds, 1), "ms": round(seconds * 1000, 2)}
    facts |= {"detector_ms": share, "peak_mib": peak_mib(stack.device), "sizes": len({f.pixels.shape for f in chosen})}
    if stack.batch_size != batch:
        facts["halved_to"] = stack.batch_size
    return facts


def bare_rate(title: str, network: nn.Module, stack: Stack, batch: int, budget_s: float) -> dict[str, Any]:
    """The arithmetic alone: a batch that lies on the device, as the detector gives it to its network."""
    with torch.inference_mode(), stack._autocast():
        work = bare_call(title, network, stack, batch)
        reset_peak(stack.device)
        seconds = device_median_s(work, stack.device, budget_s=budget_s)
    rate = round(batch / seconds, 1)
    return {"batch": batch, "per_s": rate, "ms": round(seconds * 1000, 3), "peak_mib": peak_mib(stack.device)}


def bare_call(title: str, network: nn.Module, stack: Stack, batch: int) -> Callable[[], object]:
    """A call of the network on random pixels of the range that it is trained for."""
    shape = (batch, 3, *_INPUTS.get(title, (_SIDE, _SIDE)))
    pixels = torch.rand(shape, device=stack.device, dtype=stack.dtype).sub_(0.5).mul_(2)
    if title.partition(".")[0] in ("open_nsfw", "image_safety", "faces"):
        pixels.mul_(128)  # these read levels, not shares
    return partial(network, pixels.contiguous(memory_format=torch.channels_last))


def _forget(place: Place) -> None:
    gc.collect()
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
