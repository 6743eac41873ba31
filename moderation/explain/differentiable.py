"""A vote as a differentiable function of what its detector looks at: the detectors' own code, with gradients.

Shape suffixes: B frames, C channels, H height, W width, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from moderation.detectors.base import PaddedFrames, View
from moderation.detectors.nn.conv import Activation, Conv
from moderation.explain.vote_stack import VoteStack
from moderation.scoring.handover import HandedOn
from moderation.types import U8

_LEAST: Final = 1e-30  # of a probability in a logarithm
_SUM_TOLERANCE: Final = 1e-3


class NotDifferentiableError(Exception):
    """A vote that no gradient leads to: its detector reads the frames themselves, or several views of them."""


class VoteOfView(nn.Module):
    """float32 [B,3,H,W] RGB 0..255, the view of a detector -> [B], the log-odds of one vote.

    Of a vote that is no probability it is the vote itself.

    The log-odds, because the probability of a network that is sure hardly changes, and so has hardly a gradient.
    Raises NotDifferentiableError where there is not one view.
    """

    def __init__(self, votes: VoteStack, column: int) -> None:
        super().__init__()
        views = {slot.detector.view for slot in votes.stack.slots if slot.detector.view.mode != "canvas"}
        self.networks = nn.ModuleList([n for slot in votes.stack.slots for n in slot.detector.networks])
        if len(views) != 1 or not len(self.networks):
            raise NotDifferentiableError(
                f"{votes.title} reads the frames themselves, or several views of them; occlusion explains it"
            )
        self.view = next(iter(views))
        self._votes = votes
        slot = votes.stack.slots[-1]
        self._label = column - slot.columns.start
        label = slot.detector.labels[self._label]
        self._is_probability = label not in slot.detector.ranges

    def forward(self, view_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffix
        batch = _GivenView(self.view, view_BCHW)
        handed_on = HandedOn(len(view_BCHW))
        rows = list(range(len(view_BCHW)))
        for slot in self._votes.stack.slots:
            scored = slot.detector.score(batch, handed_on.to(slot.detector, None))
            handed_on.add(slot.detector, scored, rows, gated=False)
        scores_BL = scored.scores.float()  # noqa: N806 - shape suffix
        return _log_odds(scores_BL, self._label) if self._is_probability else scores_BL[:, self._label]


class _GivenView:
    """A `FrameBatch` of which only one view is known."""

    def __init__(self, view: View, pixels: torch.Tensor) -> None:
        self._view, self._pixels = view, pixels

    @property
    def frames_HWC(self) -> Sequence[torch.Tensor]:  # noqa: N802 - shape suffix
        raise NotDifferentiableError("a detector reads the frames themselves")

    @property
    def host_HWC(self) -> Sequence[U8]:  # noqa: N802 - shape suffix
        raise NotDifferentiableError("a detector reads the frames themselves")

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        return [(self._pixels.shape[3], self._pixels.shape[2])] * len(self._pixels)

    @property
    def readings(self) -> Sequence[Mapping[str, float]]:
        return [{} for _ in range(len(self._pixels))]

    @property
    def device(self) -> torch.device:
        return self._pixels.device

    @property
    def padded(self) -> Sequence[PaddedFrames]:
        raise NotDifferentiableError("a detector reads the frames themselves")

    def view(self, view: View) -> torch.Tensor:
        if view != self._view:
            raise NotDifferentiableError("detectors read several views")
        return self._pixels

    def __len__(self) -> int:
        return len(self._pixels)


def _log_odds(scores_BL: torch.Tensor, label: int) -> torch.Tensor:  # noqa: N803 - shape suffix
    """[B]: of the label against the other labels where all sum to 1, else against 1 minus it."""
    own = scores_BL[:, label]
    others = scores_BL.sum(dim=1) - own
    exclusive = (scores_BL.detach().sum(dim=1) - 1).abs() < _SUM_TOLERANCE
    if scores_BL.shape[1] > 1 and bool(exclusive.all()):
        others = torch.cat([scores_BL[:, :label], scores_BL[:, label + 1 :]], dim=1).sum(dim=1)
    else:
        others = (1 - own).clamp(min=torch.finfo(torch.float32).eps)
    return own.clamp(min=_LEAST).log() - others.clamp(min=_LEAST).log()


class _Relu6(nn.Module):
    """min(relu(x), 6), with the ReLU as a module that captum sees."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.relu(x).clamp(max=6)
        return out


_MODULES: Final[dict[Activation, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "relu6": _Relu6,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class _OpenConv(nn.Module):
    """A `Conv` whose activation is a module of its own; nothing is overwritten."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._geometry: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.act = nn.Identity() if conv.activation is None else _MODULES[conv.activation]()

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        y = nn.functional.conv2d(x, self.weight, self.bias, *self._geometry)
        out: torch.Tensor = self.act(y if shortcut is None else y + shortcut)
        return out


def open_activations(network: nn.Module) -> None:
    """Make every activation of a network a module, in place, so that gradients through it can be changed."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv):
                setattr(module, name, _OpenConv(child))
        if isinstance(module, nn.ReLU):
            module.inplace = False


def share_of_relus(network: nn.Module) -> float:
    """Of a network's activations (see `open_activations`), the share that are ReLUs; 0 where it has none."""
    kinds = [type(module) for module in network.modules() if isinstance(module, nn.ReLU | nn.GELU | nn.SiLU)]
    return kinds.count(nn.ReLU) / len(kinds) if kinds else 0.0
