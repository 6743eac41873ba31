"""Trains layers of the watermark network together with its head, on composites that are each seen once.

The layers up to stride 4 stay as they are: they find edges, and cost most of the time. The loss is over all cells of
the grid, not over drawn ones, and over the picture's own answer: a false alarm is a picture, not a cell.
Shape suffixes: B composites, G cells a side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from moderation import storage
from moderation.detectors.general.watermark_network import (
    DEPTHS,
    MarkHead,
    MarkNetwork,
    cell_middles,
    decode_sides,
    picture_logits,
)
from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.prepare import infer, prepare, work_each
from moderation.training.heads.progress import copy_moments, copy_state, move_average, restore_moments, set_rates
from moderation.training.watermark.batches import MarkBatch, halve_batch, learning_batches
from moderation.training.watermark.targets import box_overlap
from moderation.types import U8

FROZEN: Final = DEPTHS[0]  # layers that stay as they are
_WARM_SHARE: Final = 0.05  # of the steps, in which rates rise
_CLIPPED: Final = 5.0  # largest norm of a gradient
_HARD: Final = 40  # cells without a mark that the network is surest of, of each composite
_BOX_WEIGHT: Final = 0.3
DRAW: Final = 21  # of the seeds of these composites, so that none is one of the frozen features'


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkTuning:
    """How to train. pictures: composites, each seen once. rate: of the head; layer_rate: of the layers.

    average: share of the averaged weights that stays at each step. picture_weight: of the loss of pictures, beside
    that of cells. held: composites on held-back backgrounds that fit the scores, half of them marked; held_clean: more
    clean ones, for the threshold.
    """

    pictures: int = 20_000
    batch_size: int = 8
    rate: float = 1e-3
    layer_rate: float = 1e-3
    decay: float = 1e-2
    average: float = 0.998
    picture_weight: float = 1.0
    held: int = 1024
    held_clean: int = 2560
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkProgress:
    """Where tuning stands after `step` batches: enough to go on from. Tensors by name."""

    step: int
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]


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
    learning = [*rest.parameters(), *network.head.parameters()]
    average = copy.deepcopy(network).requires_grad_(False)
    for layer in [module for module in network.modules() if isinstance(module, Conv)]:
        layer.learn_as_product(device.type == "cpu" and dtype == torch.bfloat16)
    optimizer = _make_optimizer(rest, network.head, tuning)
    begin = 0
    if resume is not None:
        begin = resume.step
        network.load_state_dict(resume.network)
        average.load_state_dict(resume.average)
        restore_moments(optimizer, resume.optimizer)
    steps = math.ceil(tuning.pictures / tuning.batch_size)
    losses: list[float] = []
    for step, batch in enumerate(
        learning_batches(grounds, (tuning.seed, DRAW), tuning.batch_size, begin, steps), start=begin
    ):
        set_rates(optimizer, step / steps, warm=_WARM_SHARE)
        with torch.inference_mode():
            strokes = infer(frozen, batch.frames.to(device, dtype)).float()
        loss = _learn(network, learning, strokes.clone(), batch, tuning.picture_weight)
        nn.utils.clip_grad_norm_(learning, _CLIPPED)
        optimizer.step()
        move_average(average, network, min(tuning.average, (step + 1) / (step + 10)))
        losses.append(loss)
        if (step + 1) % save_every == 0 and step + 1 < steps:
            save(_progress(step + 1, network, average, optimizer))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            yield min(tuning.pictures, (step + 1) * tuning.batch_size), float(np.mean(losses[-50:]))
    for layer in [module for module in network.modules() if isinstance(module, Conv)]:
        layer.learn_as_product(False)
    network.load_state_dict(average.state_dict())


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


def _learn(
    network: MarkNetwork, learning: Sequence[nn.Parameter], strokes: torch.Tensor, batch: MarkBatch, weight: float
) -> float:
    """Set the gradients of a batch, from its two halves side by side; returns the loss.

    A second thread for each operator waits for the first where others use the cores; for half a batch it does not.
    """
    halves = halve_batch(batch)

    def learn(part: tuple[torch.Tensor, MarkBatch]) -> tuple[float, tuple[torch.Tensor, ...]]:
        loss = _loss(_answer(network, part[0]), part[1], strokes.device, weight)
        return loss.item(), torch.autograd.grad(loss, learning)

    learned = work_each(learn, list(zip(strokes.chunk(2), halves, strict=True)), strokes.device)
    for place, parameter in enumerate(learning):
        parameter.grad = torch.stack([gradients[place] for _, gradients in learned]).mean(dim=0)
    return sum(loss for loss, _ in learned) / len(learned)


def _answer(network: MarkNetwork, strokes: torch.Tensor) -> torch.Tensor:
    """[B,5,G,G] from what the frozen layers give, [B,24,2G,2G]."""
    first, second, _ = DEPTHS
    layers = network.trunk.layers
    pooled = (F.avg_pool2d(strokes, 2), F.max_pool2d(strokes, 2))
    x = layers[first:second](strokes)
    logits, sides = network.head(torch.cat([x, *pooled], dim=1), layers[second:](x))
    return torch.cat([logits[:, None], sides], dim=1)


def _loss(answer: torch.Tensor, batch: MarkBatch, device: torch.device, picture_weight: float) -> torch.Tensor:
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
    picture = F.binary_cross_entropy_with_logits(
        picture_logits(logits), batch.marked.to(device), weight=batch.plain.to(device)
    )
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
