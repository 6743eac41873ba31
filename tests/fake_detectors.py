"""Tiny detectors and what is needed around them: a stack of real slots without weights, pictures, pools, a policy."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image

from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.pipeline.pools import Pools
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy
from moderation.scoring.conditions import parse_condition
from moderation.scoring.slots import Slot
from moderation.scoring.stack import Stack
from moderation.types import Frame, Region

Spoil = Callable[[torch.Tensor], torch.Tensor]


class Fake(DetectorDefaults):
    """Scores a frame's mean red and green, 0..1; remembers the sizes of its batches. `spoil` changes its answer."""

    version = "1"
    view = View(mode="canvas")
    cost_ms = 0.1

    def __init__(
        self,
        name: str = "fake",
        labels: Sequence[str] = ("red", "green"),
        *,
        requires: Sequence[str] = (),
        spoil: Spoil | None = None,
        embedding_dim: int = 0,
        blob: bool = False,
        regions: bool = False,
    ) -> None:
        self.name = name
        self.labels = labels
        self.requires = requires
        self.embedding_dim = embedding_dim
        self.blob_sizes: Mapping[str, int] = {"hash": 4} if blob else {}
        self.batches: list[int] = []
        self.seen: list[Mapping[str, Scored]] = []
        self._spoil = spoil or (lambda scores: scores)
        self._regions = regions

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        assert not paths

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        self.batches.append(len(batch))
        self.seen.append(earlier)
        means = [f.float().mean(dim=(0, 1)) / 255 for f in batch.frames_HWC]
        rgb = torch.stack(means) if means else torch.zeros((0, 3))
        return Scored(
            scores=self._spoil(rgb[:, : len(self.labels)]),
            embedding=rgb[:, :1].expand(-1, self.embedding_dim) + 1 if self.embedding_dim else None,
            regions=[[region(float(row[0]))] for row in rgb] if self._regions else None,
            blobs={"hash": [bytes([int(row[0] * 255 + 0.5)]) * 4 for row in rgb]} if self.blob_sizes else {},
        )


def region(score: float) -> Region:
    """A region with this score."""
    return Region(detector="fake", label="red", score=score, x0=0.0, y0=0.25, x1=0.5, y1=1.0)


def raise_on_red(level: float) -> Spoil:
    """A detector that fails on every batch with a frame as red as this."""

    def spoil(scores: torch.Tensor) -> torch.Tensor:
        if bool((scores[:, 0] >= level).any()):
            raise RuntimeError("too red")
        return scores

    return spoil


def stack_of(
    *detectors: Any,
    when: Mapping[str, str] | None = None,
    batch_size: int = 4,
    keep_embeddings: bool = False,
) -> Stack:
    """A stack on the CPU in fp32. when: detector -> condition."""
    config = Config(
        stack=StackConfig(
            detectors=tuple(DetectorConfig(name=d.name) for d in detectors),
            batch_size=batch_size,
            keep_embeddings=keep_embeddings,
            device="cpu",
            dtype="fp32",
        ),
    )
    slots, labels = [], []
    for detector in detectors:
        text = (when or {}).get(detector.name)
        columns = slice(len(labels), len(labels) + len(detector.labels))
        condition = parse_condition(text, labels) if text else None
        slots.append(Slot(detector=detector, condition=condition, columns=columns, weights=()))
        labels += [f"{detector.name}.{label}" for label in detector.labels]
    stack = Stack(slots, config)
    stack.load()
    return stack


def frame(red: int, green: int = 0, index: int = 0) -> Frame:
    """An 8 x 8 frame of one colour."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :] = (red, green, 0)
    return Frame(index=index, pixels=pixels, width=8, height=8)


def png(red: int, green: int = 0) -> bytes:
    """An 8 x 8 picture of one colour, encoded without loss."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (red, green, 0)).save(sink, "PNG")
    return sink.getvalue()


def animation(*reds: int) -> bytes:
    """A lossless WebP animation, a frame for each red."""
    first, *rest = (Image.new("RGB", (8, 8), (red, 0, 0)) for red in reds)
    sink = io.BytesIO()
    first.save(sink, "WEBP", save_all=True, append_images=rest, lossless=True, duration=100)
    return sink.getvalue()


def policy_for(stack: Stack) -> BoundPolicy:
    """Block over 0.9 of red, review over 0.5, else pass over 0.5 of green."""
    tree = {
        "checks": {
            "hot": {"side": "negative", "votes": ["fake.red"], "block": 0.9, "review": 0.5},
            "calm": {"side": "positive", "votes": ["fake.green"], "pass": 0.5},
        }
    }
    return bind(Policy.model_validate(tree), stack.labels, gated=stack.gated)


def pools_of(threads: int = 2) -> Pools:
    """Pools of a few threads."""
    return Pools(
        fetch=ThreadPoolExecutor(threads),
        decode=ThreadPoolExecutor(threads),
        fetch_threads=threads,
        decode_threads=threads,
        device=nullcontext(),
    )
