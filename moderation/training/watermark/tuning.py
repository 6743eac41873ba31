"""Trains layers of the watermark network together with its head, on composites that are each seen once.

The layers up to stride 4 stay as they are: they find edges, and cost most of the time. The loss is over all cells of
the grid, not over drawn ones, and over the picture's own answer: a false alarm is a picture, not a cell. Backgrounds
are mirrored, cut and coloured (`augment_frame`); a tenth of them are held back to fit the scores and the threshold.
Shape suffixes: B composites, G cells a side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from moderation import storage
from moderation.detectors.general.watermark import Watermark
from moderation.detectors.general.watermark_network import (
    DEPTHS,
    MarkHead,
    MarkNetwork,
    cell_middles,
    decode_sides,
    picture_logits,
)
from moderation.detectors.nn.prepare import infer, prepare
from moderation.detectors.views import TensorFrames
from moderation.training.heads.augment import augment_frame
from moderation.training.heads.progress import copy_moments, copy_state, move_average, restore_moments, set_rates
from moderation.training.watermark.composites import Composite, make_composite
from moderation.training.watermark.descent import MarkRound, even_scores, pick_threshold
from moderation.training.watermark.marks import known_families
from moderation.training.watermark.targets import box_overlap, cell_targets
from moderation.types import U8

FROZEN: Final = DEPTHS[0]  # layers that stay as they are
_WARM_SHARE: Final = 0.05  # of the steps, in which rates rise
_CLIPPED: Final = 5.0  # largest norm of a gradient
_HARD: Final = 40  # cells without a mark that the network is surest of, of each composite
_BOX_WEIGHT: Final = 0.3
_DRAW: Final = 21  # of the seeds of these composites, so that none is one of the frozen features'
_RARER: Final = 7.0  # clean pictures to a marked one in the evaluation, over those of held-back composites
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkTuning:
    """How to train. pictures: composites, each seen once. rate: of the head; layer_rate: of the layers.

    average: share of the averaged weights that stays at each step. picture_weight: of the loss of pictures, beside
    that of cells. held: composites on held-back backgrounds that fit the scores.
    """

    pictures: int = 20_000
    batch_size: int = 16
    rate: float = 1e-3
    layer_rate: float = 1e-3
    decay: float = 1e-2
    average: float = 0.995
    picture_weight: float = 1.0
    held: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkProgress:
    """Where tuning stands after `step` batches: enough to go on from. Tensors by name."""

    step: int
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """frames float32 [B,3,320,320]; kinds int8 [B,G,G]; owners float32 [B,4,G,G]; marked float32 [B]."""

    frames: torch.Tensor
    kinds: torch.Tensor
    owners: torch.Tensor
    marked: torch.Tensor


def tune_marks(
    network: MarkNetwork,
    grounds: Sequence[U8],
    tuning: MarkTuning,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resume: MarkProgress | None = None,
    save: Callable[[MarkProgress], None] = lambda _progress: None,
    save_every: int = 100,
) -> Iterator[tuple[int, float]]:
    """Train `network` in place; yields (composites seen, mean loss of the last 50 batches).

    grounds: backgrounds that are not held back. save: called after every `save_every` batches; from what it was given
    the same call goes on to the same numbers.
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    frozen = prepare(copy.deepcopy(network.trunk.layers[:FROZEN]), device, dtype)
    network.trunk.layers[:FROZEN].requires_grad_(False)
    rest = network.trunk.layers[FROZEN:].requires_grad_(True)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = _make_optimizer(rest, network.head, tuning)
    begin = 0
    if resume is not None:
        begin = resume.step
        network.load_state_dict(resume.network)
        average.load_state_dict(resume.average)
        restore_moments(optimizer, resume.optimizer)
    steps = math.ceil(tuning.pictures / tuning.batch_size)
    losses: list[float] = []
    for step, batch in enumerate(_batches(grounds, tuning, begin, steps), start=begin):
        set_rates(optimizer, step / steps, warm=_WARM_SHARE)
        with torch.inference_mode():
            strokes = infer(frozen, batch.frames.to(device, dtype)).float()
        loss = _loss(_answer(network, strokes.clone()), batch, device, tuning.picture_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        nn.utils.clip_grad_norm_([*rest.parameters(), *network.head.parameters()], _CLIPPED)
        optimizer.step()
        move_average(average, network, min(tuning.average, (step + 1) / (step + 10)))
        losses.append(loss.item())
        if (step + 1) % save_every == 0 and step + 1 < steps:
            save(_progress(step + 1, network, average, optimizer))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            yield min(tuning.pictures, (step + 1) * tuning.batch_size), float(np.mean(losses[-50:]))
    network.load_state_dict(average.state_dict())


def answer_composites(
    network: MarkNetwork, grounds: Sequence[U8], count: int, seed: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(picture logits float32 [count], marked float32 [count]) of fresh composites, half of them marked."""
    network.to(device)
    logits, marked = [], []
    for start in range(0, count, 16):
        numbers = range(start, min(count, start + 16))
        batch = _stack([_compose(grounds, seed, number) for number in numbers])
        with torch.no_grad():
            logits.append(picture_logits(network(batch.frames.to(device))[:, 0]).cpu())
        marked.append(batch.marked)
    return torch.cat(logits), torch.cat(marked)


def hold_back(grounds: Sequence[U8], share: float = 0.1) -> tuple[list[U8], list[U8]]:
    """(backgrounds to learn on, backgrounds held back): every n-th is held back, at least one."""
    every = max(2, round(1 / share))
    return [g for i, g in enumerate(grounds) if i % every], [g for i, g in enumerate(grounds) if i % every == 0]


def even_tuned(
    network: MarkNetwork, held: Sequence[U8], tuning: MarkTuning, loss: float, device: torch.device
) -> MarkRound:
    """Fit the scores, so that 0.5 is an even chance for a picture of which half are marked, and the threshold.

    The threshold has its precision where one picture in eight is marked, as in the evaluation.
    """
    logits, marked = answer_composites(network, held, tuning.held, (tuning.seed, _DRAW + 1), device)
    even = even_scores(network.head, logits, marked)
    threshold, recall = pick_threshold(even.sigmoid(), marked, rarer=_RARER)
    return MarkRound(
        number=3,
        cells=0,
        loss=loss,
        held_right=((even > 0) == (marked > 0)).float().mean().item(),
        threshold=threshold,
        recall=recall,
    )


def save_tuning(uri: str, key: str, progress: MarkProgress) -> None:
    """Write where tuning stands. key: hash of all that it depends on."""
    from safetensors.torch import save

    parts = (("network", progress.network), ("average", progress.average), ("optimizer", progress.optimizer))
    tensors = {f"{part}/{name}": tensor.clone().contiguous() for part, own in parts for name, tensor in own.items()}
    storage.publish(uri, save(tensors, metadata={"key": key, "step": str(progress.step)}))


def load_tuning(uri: str, key: str) -> MarkProgress | None:
    """Where a tuning with the same key stood; None where there is none, or it is damaged."""
    from safetensors import SafetensorError, safe_open

    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    try:
        with safe_open(uri, framework="pt") as file:
            record = file.metadata() or {}
            if record.get("key") != key:
                return None
            for name in file.keys():  # noqa: SIM118 - an open file is not a mapping
                part, _, inner = name.partition("/")
                parts[part][inner] = file.get_tensor(name)
            return MarkProgress(step=int(record["step"]), **parts)
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def _compose(grounds: Sequence[U8], seed: Sequence[int], number: int) -> Composite:
    """Composite `number`: every second is marked, and half of both have look-alikes."""
    rng = np.random.default_rng([*seed, number])
    place = int(rng.integers(len(grounds)))
    ground = augment_frame(grounds[place], str(place), number + 1, seed[0])
    return make_composite(
        ground, known_families(), (*seed, number, 1), marked=number % 2 == 0, confusing=number % 4 >= 2
    )


def _batches(grounds: Sequence[U8], tuning: MarkTuning, begin: int, steps: int) -> Iterator[_Batch]:
    """Batches from number `begin` on; the next is drawn by a thread while one is learned from."""
    seed = (tuning.seed, _DRAW)

    def make(step: int) -> _Batch:
        numbers = range(step * tuning.batch_size, (step + 1) * tuning.batch_size)
        return _stack([_compose(grounds, seed, number) for number in numbers])

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, begin) if begin < steps else None
        for step in range(begin, steps):
            assert waiting is not None  # submitted before
            batch = waiting.result()
            if step + 1 < steps:
                waiting = pool.submit(make, step + 1)
            yield batch


def _stack(composites: Sequence[Composite]) -> _Batch:
    frames = [c.pixels for c in composites]
    view = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], _CPU).view(Watermark.view)
    targets = [cell_targets(c.boxes) for c in composites]
    return _Batch(
        frames=((view - 127) / 128).contiguous(memory_format=torch.channels_last),
        kinds=torch.from_numpy(np.stack([kinds for kinds, _ in targets])),
        owners=torch.from_numpy(np.stack([owners for _, owners in targets])).float(),
        marked=torch.tensor([float(len(c.boxes) > 0) for c in composites]),
    )


def _answer(network: MarkNetwork, strokes: torch.Tensor) -> torch.Tensor:
    """[B,5,G,G] from what the frozen layers give, [B,24,2G,2G]."""
    first, second, _ = DEPTHS
    layers = network.trunk.layers
    pooled = (F.avg_pool2d(strokes, 2), F.max_pool2d(strokes, 2))
    x = layers[first:second](strokes)
    logits, sides = network.head(torch.cat([x, *pooled], dim=1), layers[second:](x))
    return torch.cat([logits[:, None], sides], dim=1)


def _loss(answer: torch.Tensor, batch: _Batch, device: torch.device, picture_weight: float) -> torch.Tensor:
    """Cells with a mark, cells without and the surest of these count alike, however many they are."""
    kinds, logits = batch.kinds.to(device), answer[:, 0]
    yes, no = kinds == 1, kinds == 0
    each = F.binary_cross_entropy_with_logits(logits, yes.float(), reduction="none")
    hard = each.masked_fill(~no, 0).flatten(1).topk(_HARD, dim=1).values.mean()
    loss = (each[no].mean() + hard) / 2
    if yes.any():
        middles = cell_middles(device)[:, None].expand(2, len(kinds), *kinds.shape[1:])[:, yes]
        boxes = decode_sides(answer[:, 1:].transpose(0, 1)[:, yes], middles).T
        owners = batch.owners.to(device).transpose(0, 1)[:, yes].T
        loss = loss + each[yes].mean() + _BOX_WEIGHT * (1 - box_overlap(boxes, owners)).mean()
    picture = F.binary_cross_entropy_with_logits(picture_logits(logits), batch.marked.to(device))
    return loss / 2 + picture_weight * picture


def _make_optimizer(rest: nn.Module, head: MarkHead, tuning: MarkTuning) -> torch.optim.AdamW:
    groups = [
        {"params": list(head.parameters()), "lr": tuning.rate, "initial_lr": tuning.rate},
        {"params": list(rest.parameters()), "lr": tuning.layer_rate, "initial_lr": tuning.layer_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=tuning.decay)


def _progress(step: int, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> MarkProgress:
    return MarkProgress(
        step=step, network=copy_state(network), average=copy_state(average), optimizer=copy_moments(optimizer)
    )
