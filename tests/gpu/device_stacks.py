"""What the GPU tests share: frames of several sizes, and stacks of one detector or a whole configuration."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image

from benchmarks.device.models import needed_by
from benchmarks.device.pictures import base_pictures
from moderation.config.load import load_config
from moderation.config.model import Config, MediaConfig
from moderation.media.image import decode_image
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.scoring.votes import BatchVotes
from moderation.types import Frame

CONFIGS = ("default", "full")


def detectors() -> list[tuple[str, str]]:
    """Configuration and title of every detector, each once where two configurations have it with the same options."""
    entries = {}
    for name in CONFIGS:
        for entry in load_config(f"{name}.yaml").stack.detectors:
            entries.setdefault((entry.title, repr(entry.options)), (name, entry.title))
    return list(entries.values())


@cache
def frames() -> Sequence[Frame]:
    """What the pack carries (photographs, text, a code), as JPEG decodes it; two sizes each, so that none is alone."""
    found = []
    for picture in base_pictures():
        for scale in (1.0, 0.6):
            size = (round(picture.width * scale), round(picture.height * scale))
            sink = io.BytesIO()
            picture.resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=92)
            found.append(decode_image(sink.getvalue(), MediaConfig()).frames[0])
    return tuple(found)


def make_config(name: str, only: str | None, device: torch.device, dtype: str, **stack: Any) -> Config:
    """A configuration on a device; `only` one detector and those whose votes it reads, without conditions."""
    config = load_config(f"{name}.yaml", [f"stack.device={device}", f"stack.dtype={dtype}"])
    if only is not None:
        titles = needed_by(config, only)
        entries = [d.model_copy(update={"when": None}) for d in config.stack.detectors if d.title in titles]
        stack = {**stack, "detectors": tuple(entries)}
    return config.model_copy(update={"stack": config.stack.model_copy(update=stack)})


def load_stack(name: str, only: str | None, device: torch.device, dtype: str, **stack: Any) -> Stack:
    """Built and loaded."""
    made = build_stack(make_config(name, only, device, dtype, **stack))
    made.load()
    return made


@cache
def reference(name: str, only: str | None) -> BatchVotes:
    """The votes of the CPU in fp32."""
    return load_stack(name, only, torch.device("cpu"), "fp32").score(frames())
