"""Which pixels would make a score higher: gradients, by captum (an extra).

guided         guided backpropagation, https://arxiv.org/abs/1412.6806
deconvolution  https://arxiv.org/abs/1311.2901
gradcam        Grad-CAM on the last layer with places, https://arxiv.org/abs/1610.02391
legrad         for vision transformers, see `attention`

Guided backpropagation and deconvolution draw edges, and hardly change when the upper weights of a network are made
random (https://arxiv.org/abs/1810.03292): they show what a network could see, less what it decided by. `gradient`
stands for gradcam, or for legrad where that fits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from moderation.config.installing import install_command
from moderation.detectors.nn.gradients import as_leaf, with_gradients
from moderation.errors import UsageError
from moderation.explain.attention import LeGrad, transformer_of
from moderation.explain.covering import put_frames
from moderation.explain.differentiable import (
    NotDifferentiableError,
    VoteOfView,
    open_activations,
    share_of_relus,
)
from moderation.explain.maps import Map, from_view
from moderation.explain.vote_stack import VoteStack
from moderation.explain.windows import view_geometry
from moderation.types import Frame

METHODS: Final = ("guided", "deconvolution", "gradcam", "legrad")
_MIN_RELUS: Final = 0.5


def require_captum() -> Any:  # noqa: ANN401 - an optional package
    """captum's methods. Raises UsageError with the command that installs them."""
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        raise UsageError(f"gradients need the package captum; {install_command('explain')}") from error
    return captum.attr


def gradient_method(votes: VoteStack) -> str:
    """What `gradient` means for a detector: `legrad` for vision transformers, else `gradcam`."""
    return "gradcam" if transformer_of(votes.stack.slots) is None else "legrad"


def attribute(votes: VoteStack, column: int, frames: Sequence[Frame], method: str, *, sign: float = 1.0) -> list[Map]:
    """A map of each frame, float32 [h,w], at least 0, NaN where the detector does not look.

    votes: loaded with `exact`. sign: -1 where a low score is what decided.
    Raises NotDifferentiableError where the method does not fit the detector, UsageError without captum.
    """
    model = VoteOfView(votes, column)
    batch = put_frames(frames, votes.stack.device)
    with with_gradients():
        view = as_leaf(batch.view(model.view))
        values = _METHODS[method](votes, _Signed(model, sign), view)
    maps = []
    for frame, of_view in zip(frames, values.detach().float().cpu().numpy(), strict=True):
        geometry = view_geometry(model.view, frame.pixels.shape, (frame.width, frame.height))
        maps.append(from_view(of_view, geometry, frame.pixels.shape))
    return maps


class _Signed(nn.Module):
    def __init__(self, model: VoteOfView, sign: float) -> None:
        super().__init__()
        self.model, self._sign = model, sign

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._sign * self.model(x)
        return out


def _guided(votes: VoteStack, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
    return _modified_relus("GuidedBackprop", votes, model, view)


def _deconvolution(votes: VoteStack, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
    return _modified_relus("Deconvolution", votes, model, view)


def _modified_relus(name: str, votes: VoteStack, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
    """[B,H,W]: the absolute gradient, summed over the colours."""
    method = getattr(require_captum(), name)
    for module in model.modules():
        open_activations(module)
    for slot in votes.stack.slots:
        for network in slot.detector.networks:
            open_activations(network)
    if share_of_relus(model) < _MIN_RELUS:
        raise NotDifferentiableError(
            f"{votes.title}: most of its activations are no ReLUs, by which this method is defined; use gradcam"
        )
    with warnings.catch_warnings():
        # captum says each time that it sets hooks.
        warnings.simplefilter("ignore", UserWarning)
        gradient: torch.Tensor = method(model).attribute(view)
    return gradient.abs().sum(dim=1)


def _gradcam(votes: VoteStack, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
    """[B,h,w] of the layer's size."""
    method = require_captum().LayerGradCam
    layer = _last_layer_with_places(model, view)
    if layer is None:
        raise NotDifferentiableError(f"{votes.title}: no layer of it has places of the picture; use occlusion")
    values: torch.Tensor = method(model, layer).attribute(view, relu_attributions=True)
    return values[:, 0]


def _last_layer_with_places(model: nn.Module, view: torch.Tensor) -> nn.Module | None:
    """The convolution that runs last and whose result still has more than one place."""
    last: list[nn.Module] = []

    def note(module: nn.Module, _given: object, out: object) -> None:
        if isinstance(out, torch.Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1:
            last[:] = [module]

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    try:
        with torch.no_grad():
            model(view[:1].detach())
    finally:
        for hook in hooks:
            hook.remove()
    return last[0] if last else None


def _legrad(votes: VoteStack, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
    tower = transformer_of(votes.stack.slots)
    if tower is None:
        raise NotDifferentiableError(f"{votes.title} is no vision transformer of open_clip; use gradcam")
    return LeGrad(tower).attribute(model, view)


_METHODS: Final = {
    "guided": _guided,
    "deconvolution": _deconvolution,
    "gradcam": _gradcam,
    "legrad": _legrad,
}


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's, over the places that both maps know: how alike two maps are; 0 where one is flat."""
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 2 or any(np.ptp(values[known]) == 0 for values in (one, other)):
        return 0.0
    orders = [np.argsort(values[known], kind="stable") for values in (one, other)]
    ranks = np.array([np.argsort(order, kind="stable") for order in orders], np.float64)
    correlation: Any = np.corrcoef(ranks)
    return float(correlation[0, 1])
