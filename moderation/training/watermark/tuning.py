"""Trains the watermark network on composites that are each seen once.

On a CPU the layers up to stride 4 stay as they are: they find edges, and cost half of the time. The loss is over all
cells of the grid, and over the picture's own answer: a false alarm is a picture, not a cell.
Shape suffixes: B composites, G cells a side.
"""

from __future__ import annotations

import copy
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation import storage
from moderation.detectors.general.watermark_network import (
    DEPTHS,
    MarkNetwork,
    decode_boxes,
    picture_logits,
)
from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.prepare import infer, prepare, work_each
from moderation.training.heads.progress import copy_moments, copy_state, move_average, restore_moments, set_rates
from moderation.training.watermark.batches import MarkBatch, halve_batch, learning_batches, scale_frames
from moderation.training.watermark.targets import box_overlap
from moderation.types import U8

FROZEN: Final = DEPTHS[0]  # layers that stay as they are
_WARM_SHARE: Final = 0.05  # of the steps, in which rates rise
_TOLD: Final = 50  # batches whose mean loss is told
_CLIPPED: Final = 5.0  # largest norm of a gradient
_HARD: Final = 40  # cells without a mark that the network is surest of, of each composite
_BOX_WEIGHT: Final = 0.3
DRAW: Final = 21  # of the seeds of these composites


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkTuning:
    """How to train. pictures: composites, each seen once. rate: of the head; layer_rate: of the layers.

    average: share of the averaged weights that stays at each step. picture_weight: of the loss of pictures, beside
    that of cells. frozen: first layers of the trunk that stay as they are, at most those up to stride 4. held:
    composites on held-back backgrounds that fit the scores, half of them marked; held_clean: more clean ones, for the
    threshold.
    """

    pictures: int = 20_000
    batch_size: int = 8
    rate: float = 1e-3
    layer_rate: float = 1e-3
    decay: float = 1e-2
    average: float = 0.998
    picture_weight: float = 1.0
    frozen: int = FROZEN
    held: int = 1024
    held_clean: int = 2560
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkProgress:
    """Where tuning stands after `step` batches: enough to go on from. Tensors by name. losses: of the last batches."""

    step: int
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    losses: tuple[float, ...] = ()


def tune_marks(
    network: MarkNetwork,
    grounds: Sequence[U8],
    tuning: MarkTuning,
    device: torch.device,
    dtype: torch.dtype,
    *,
    processes: int = 0,
    resume: MarkProgress | None = None,
    save: Callable[[MarkProgress], None] = lambda _progress: None,
    save_every: int = 100,
) -> Iterator[tuple[int, float]]:
    """Train `network` in place; yields (composites seen, mean loss of the last 50 batches).

    On a GPU in mixed precision (bfloat16). processes: that draw composites, beside this one; 0: a thread.
    grounds: backgrounds that are not held back. save: called after every `save_every` batches; from what it was given
    the same call goes on to the same numbers.
    """
    learner = MarkLearner(network, tuning, device, dtype)
    begin = 0 if resume is None else learner.resume(resume)
    steps = math.ceil(tuning.pictures / tuning.batch_size)
    losses = deque(torch.tensor(() if resume is None else resume.losses, device=device), maxlen=_TOLD)
    seed = (tuning.seed, DRAW)
    # Closed at once where a step fails: processes that draw would go on to the end of what they have been given.
    with closing(learning_batches(grounds, seed, tuning.batch_size, begin, steps, processes=processes)) as batches:
        for step, batch in enumerate(batches, start=begin):
            losses.append(learner.learn(batch, step, step / steps))
            if (step + 1) % save_every == 0 and step + 1 < steps:
                save(replace(learner.progress(step + 1), losses=tuple(torch.stack(list(losses)).tolist())))
            if (step + 1) % _TOLD == 0 or step + 1 == steps:
                yield min(tuning.pictures, (step + 1) * tuning.batch_size), float(torch.stack(list(losses)).mean())
    learner.finish()


class MarkLearner:
    """Trains a network in place, batch by batch; its weights are those of the running average after `finish`."""

    def __init__(self, network: MarkNetwork, tuning: MarkTuning, device: torch.device, dtype: torch.dtype) -> None:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
        self._network, self._tuning, self._device, self._dtype = network, tuning, device, dtype
        self._frozen = prepare(copy.deepcopy(network.trunk.layers[: tuning.frozen]), device, dtype)
        network.requires_grad_(True).trunk.layers[: tuning.frozen].requires_grad_(False)
        self._learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.average = copy.deepcopy(network).requires_grad_(False)
        self._odd = [layer for layer in network.modules() if isinstance(layer, Conv) and layer.is_odd()]
        self._choose_forms(True)
        self._optimizer = _make_optimizer(network, tuning)

    def learn(self, batch: MarkBatch, step: int, share: float) -> torch.Tensor:
        """One step; returns the loss, float32 []. share: of all steps that are done, by which rates rise and fall."""
        set_rates(self._optimizer, share, warm=_WARM_SHARE)
        parts = halve_batch(batch) if self._device.type == "cpu" else [batch]
        with torch.inference_mode():
            strokes = [
                infer(self._frozen, scale_frames(part.frames.to(self._device), self._dtype)).float() for part in parts
            ]
        # On a CPU a second thread for each operator waits for the first; for half a batch it does not.
        learned = work_each(self._gradients, list(zip([s.clone() for s in strokes], parts, strict=True)), self._device)
        for parameter, *gradients in zip(self._learning, *(own for _, own in learned), strict=True):
            parameter.grad = gradients[0] if len(gradients) == 1 else torch.stack(gradients).mean(dim=0)
        self._keep_empty_rows()
        nn.utils.clip_grad_norm_(self._learning, _CLIPPED)
        self._optimizer.step()
        move_average(self.average, self._network, min(self._tuning.average, (step + 1) / (step + 10)))
        return torch.stack([loss for loss, _ in learned]).mean()

    def _keep_empty_rows(self) -> None:
        """Kernels of an even side keep their first row and column of zeros: a GPU is fast with those alone."""
        for layer in self._odd:
            if layer.weight.grad is not None:
                layer.weight.grad[:, :, 0] = 0
                layer.weight.grad[:, :, :, 0] = 0

    def finish(self) -> None:
        """Give the network the averaged weights."""
        self._choose_forms(False)
        self._network.load_state_dict(self.average.state_dict())

    def resume(self, kept: MarkProgress) -> int:
        """Go on from what `progress` gave; returns its step."""
        self._network.load_state_dict(kept.network)
        self.average.load_state_dict(kept.average)
        restore_moments(self._optimizer, kept.optimizer)
        return kept.step

    def progress(self, step: int) -> MarkProgress:
        """Where training stands after `step` batches."""
        return MarkProgress(
            step=step,
            network=copy_state(self._network),
            average=copy_state(self.average),
            optimizer=copy_moments(self._optimizer),
        )

    def _gradients(self, given: tuple[torch.Tensor, MarkBatch]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        x, batch = given
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            first = DEPTHS[0]
            x = self._network.trunk.layers[min(self._tuning.frozen, first) : first](x)
            answer = self._network.finish(x)
        loss = _loss(answer.float(), batch, self._device, self._tuning.picture_weight)
        return loss.detach(), torch.autograd.grad(loss, self._learning)

    def _choose_forms(self, on: bool) -> None:
        """How convolutions are computed while they learn; off: plainly."""
        on_cpu = self._device.type == "cpu"
        for layer in [module for module in self._network.modules() if isinstance(module, Conv)]:
            layer.learn_as_product(on and on_cpu and self._dtype == torch.bfloat16)
            layer.learn_as_odd(on and not on_cpu)


def save_tuning(uri: str, key: str, progress: MarkProgress) -> None:
    """Write where tuning stands. key: hash of all that it depends on."""
    from safetensors.torch import save

    parts = (("network", progress.network), ("average", progress.average), ("optimizer", progress.optimizer))
    tensors = {f"{part}/{name}": tensor.clone().contiguous() for part, own in parts for name, tensor in own.items()}
    record = {"key": key, "step": str(progress.step), "losses": json.dumps(progress.losses)}
    storage.publish(uri, save(tensors, metadata=record))


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
            losses = tuple(map(float, json.loads(record["losses"])))
            return MarkProgress(step=int(record["step"]), losses=losses, **parts)
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def _loss(answer: torch.Tensor, batch: MarkBatch, device: torch.device, picture_weight: float) -> torch.Tensor:
    """Cells with a mark, cells without and the surest of these count alike, however many they are."""
    kinds, logits = batch.kinds.to(device), answer[:, 0]
    yes, no = (kinds == 1).float(), (kinds == 0).float()
    each = F.binary_cross_entropy_with_logits(logits, yes, reduction="none")
    hard = (each * no).flatten(1).topk(_HARD, dim=1).values.mean()
    overlaps = box_overlap(decode_boxes(answer[:, 1:]), batch.owners.to(device).float())
    # Sums with factors, not chosen cells: a GPU need not tell how many there are.
    marked = (yes * (each + _BOX_WEIGHT * (1 - overlaps))).sum() / yes.sum().clamp_min(1)
    loss = ((each * no).sum() / no.sum().clamp_min(1) + hard) / 2 + marked
    picture = F.binary_cross_entropy_with_logits(
        picture_logits(logits), batch.marked.to(device), weight=batch.plain.to(device)
    )
    return loss / 2 + picture_weight * picture


def _make_optimizer(network: MarkNetwork, tuning: MarkTuning) -> torch.optim.AdamW:
    groups = [
        {"params": list(network.head.parameters()), "lr": tuning.rate, "initial_lr": tuning.rate},
        {
            "params": list(network.trunk.layers[tuning.frozen :].parameters()),
            "lr": tuning.layer_rate,
            "initial_lr": tuning.layer_rate,
        },
    ]
    return torch.optim.AdamW(groups, weight_decay=tuning.decay)
