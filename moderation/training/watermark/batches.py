"""Batches of composites for the network: frames as it reads them, and what each cell should answer.

Backgrounds are mirrored, cut, coloured (`augment_frame`) and turned by quarters. Marks that are hardly seen teach
nothing: their cells and pictures may answer either. Shape suffixes: B composites, G cells a side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch

from moderation.detectors.general.watermark import Watermark
from moderation.detectors.views import TensorFrames
from moderation.training.watermark.augment import augment_frame
from moderation.training.watermark.composites import FAINT, Composite, make_composite
from moderation.training.watermark.drawing import draw_ahead
from moderation.training.watermark.marks import known_families
from moderation.training.watermark.targets import cell_targets
from moderation.types import U8

_TURNED: Final = 0.3  # share of backgrounds turned by quarters: marks are not, so that cloth is told from words
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkBatch:
    """frames uint8 [B,3,320,320], as `scale_frames` takes them; kinds int8 [B,G,G]; owners float16 [B,4,G,G].

    marked: float32 [B]. plain: float32 [B], 0 where all marks of a picture are hardly seen, so that it may answer
    either; else 1.
    """

    frames: torch.Tensor
    kinds: torch.Tensor
    owners: torch.Tensor
    marked: torch.Tensor
    plain: torch.Tensor


def learning_batches(
    grounds: Sequence[U8], seed: Sequence[int], batch_size: int, begin: int, steps: int, *, processes: int = 0
) -> Generator[MarkBatch, None, None]:
    """Batches from number `begin` to `steps`, drawn ahead: the next by a thread, or several by so many processes.

    A core draws some 70 composites a second; a GPU learns from a thousand and more. The batches are the same.
    """
    tasks = ((tuple(seed), batch_size, step) for step in range(begin, steps))
    if processes and begin < steps:
        yield from draw_ahead(grounds, min(processes, steps - begin), _draw, tasks)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[MarkBatch]] = deque()
        for task in tasks:
            waiting.append(pool.submit(_draw, grounds, *task))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _draw(grounds: Sequence[U8], seed: Sequence[int], batch_size: int, step: int) -> MarkBatch:
    numbers = range(step * batch_size, (step + 1) * batch_size)
    return stack_composites([_compose(grounds, seed, number) for number in numbers])


def _compose(grounds: Sequence[U8], seed: Sequence[int], number: int) -> Composite:
    """Composite `number`: every second is marked, and half of both have look-alikes."""
    rng = np.random.default_rng([*seed, number])
    place = int(rng.integers(len(grounds)))
    ground = augment_frame(grounds[place], str(place), number + 1, seed[0])
    if rng.random() < _TURNED:
        ground = np.ascontiguousarray(np.rot90(ground, int(rng.integers(1, 4))))
    return make_composite(
        ground, known_families(), (*seed, number, 1), marked=number % 2 == 0, confusing=number % 4 >= 2
    )


def scale_frames(frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 [B,3,320,320] -> as the network reads them."""
    return ((frames.float() - 127) / 128).to(dtype)


def halve_batch(batch: MarkBatch) -> list[MarkBatch]:
    """Two batches; one of a batch of one."""
    parts = [getattr(batch, field.name).chunk(2) for field in fields(batch)]
    return [
        MarkBatch(**dict(zip((f.name for f in fields(batch)), own, strict=True))) for own in zip(*parts, strict=True)
    ]


def stack_composites(composites: Sequence[Composite]) -> MarkBatch:
    """Composites as one batch, on the CPU."""
    frames = [c.pixels for c in composites]
    view = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], _CPU).view(Watermark.view)
    seen = [c.contrasts >= FAINT for c in composites]
    targets = [cell_targets(c.boxes[own], c.boxes[~own]) for c, own in zip(composites, seen, strict=True)]
    return MarkBatch(
        frames=view.to(torch.uint8).contiguous(memory_format=torch.channels_last),
        kinds=torch.from_numpy(np.stack([kinds for kinds, _ in targets])),
        owners=torch.from_numpy(np.stack([owners for _, owners in targets])),
        marked=torch.tensor([float(len(c.boxes) > 0) for c in composites]),
        plain=torch.tensor([float(own.any() or not len(own)) for own in seen]),
    )
