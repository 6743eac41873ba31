"""LeGrad for the vision transformers of open_clip: gradients with respect to the attention of every layer.

Bousselham et al. 2024, https://arxiv.org/abs/2404.03214. For each layer the score is taken as if the network ended
there; its gradient with respect to that layer's attention, where positive, is averaged over heads and over the tokens
that look; the layers' maps are averaged. Grad-CAM fails on such networks, and attention rollout is noisy (see the
paper).

Shape suffixes: B frames, N tokens, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from moderation.detectors.clip.gpu_tower import SelfAttention, project_heads
from moderation.detectors.nn.gradients import as_leaf
from moderation.scoring.slots import Slot


def transformer_of(slots: Sequence[Slot]) -> nn.Module | None:
    """The vision transformer of open_clip among the networks of a stack; None where there is none."""
    for slot in slots:
        for network in slot.detector.networks:
            if _is_transformer(network):
                return network
    return None


def _is_transformer(network: nn.Module) -> bool:
    blocks = getattr(getattr(network, "transformer", None), "resblocks", None)
    if not isinstance(blocks, nn.ModuleList) or not hasattr(network, "grid_size"):
        return False
    # Other blocks of open_clip (scaled cosine, ...) keep their attention elsewhere; pooling by attention is no layer.
    plain = all(isinstance(getattr(block, "attn", None), nn.MultiheadAttention | SelfAttention) for block in blocks)
    return plain and len(blocks) > 0 and getattr(network, "attn_pool", None) is None


class LeGrad:
    """Maps of a transformer's places. tower: `open_clip.transformer.VisionTransformer`."""

    def __init__(self, tower: nn.Module) -> None:
        self._tower = tower

    def attribute(self, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
        """[B,h,w], a value per patch, at least 0. model: view [B,3,H,W] -> [B], through the tower."""
        transformer = self._tower.transformer
        assert isinstance(transformer, nn.Module)
        whole = transformer.resblocks
        assert isinstance(whole, nn.ModuleList)
        # Early layers look at everything: as in the paper, the upper half counts.
        layers = range(len(whole) // 2, len(whole))
        total: torch.Tensor | None = None
        try:
            for layer in layers:
                transformer.resblocks = whole[: layer + 1]
                of_layer = self._of_last_layer(model, view)
                total = of_layer if total is None else total + of_layer
        finally:
            transformer.resblocks = whole
        assert total is not None
        high, wide = self._tower.grid_size  # type: ignore[misc]  # open_clip's, a pair
        return (total / len(layers))[:, -high * wide :].reshape(len(view), high, wide)

    def _of_last_layer(self, model: nn.Module, view: torch.Tensor) -> torch.Tensor:
        """[B,N]: for every token, how much more attention to it raises the score."""
        transformer: Any = self._tower.transformer  # open_clip's
        with _opened(transformer.resblocks[-1].attn) as opened:
            score = model(as_leaf(view)).sum()
            assert opened.weights_BHNN is not None
            (gradient_BHNN,) = torch.autograd.grad(score, opened.weights_BHNN)  # noqa: N806 - shape suffix
        return gradient_BHNN.clamp(min=0).mean(dim=(1, 2))


class _OpenAttention(nn.Module):
    """Self-attention of a block, with its weights kept: the fused one never forms them."""

    def __init__(self, attention: nn.MultiheadAttention | SelfAttention) -> None:
        super().__init__()
        self._attention = attention
        self.weights_BHNN: torch.Tensor | None = None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        del key, value, need_weights  # the same as the query
        attention = self._attention
        x_BND = query if attention.batch_first else query.transpose(0, 1)  # noqa: N806 - shape suffix
        q, k, v = project_heads(x_BND, attention)
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if attn_mask is not None:
            logits = logits + attn_mask
        self.weights_BHNN = logits.softmax(dim=-1)
        mixed = (self.weights_BHNN @ v).transpose(1, 2).reshape(x_BND.shape)
        out = attention.out_proj(mixed)
        return (out if attention.batch_first else out.transpose(0, 1)), None


@contextmanager
def _opened(attention: nn.MultiheadAttention | SelfAttention) -> Iterator[_OpenAttention]:
    """The forward pass of an attention replaced by one that keeps its weights."""
    opened = _OpenAttention(attention)
    attention.forward = opened.forward  # type: ignore[method-assign]  # for one pass
    try:
        yield opened
    finally:
        del attention.forward
