"""The tower in the form for a GPU gives the embeddings of open_clip's."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from open_clip.model import convert_weights_to_lp
from torch import nn

from moderation.detectors.clip.gpu_tower import SelfAttention, suit_gpu

VISION = {"layers": 3, "width": 128, "patch_size": 16, "image_size": 64}
WORDS = {"context_length": 77, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1}
BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    torch.manual_seed(0)
    visual: nn.Module = open_clip.CLIP(embed_dim=64, vision_cfg=VISION, text_cfg=WORDS, cast_dtype=BF16).visual
    for parameter in visual.parameters():
        parameter.requires_grad_(False).add_(torch.randn_like(parameter) * 0.02)
    return visual.eval()


def test_every_block_is_replaced_and_embeds_the_same(tower: nn.Module) -> None:
    suited, pixels = copy.deepcopy(tower), torch.randn(4, 3, 64, 64)
    suit_gpu(suited)
    kinds = [type(module) for module in suited.modules()]
    assert kinds.count(SelfAttention) == 3 and nn.MultiheadAttention not in kinds
    torch.testing.assert_close(suited(pixels), tower(pixels), atol=1e-5, rtol=1e-5)


def test_in_bf16_it_is_as_near_to_float32_as_open_clips(tower: nn.Module) -> None:
    pixels = torch.randn(8, 3, 64, 64)
    plain = copy.deepcopy(tower)
    convert_weights_to_lp(plain, dtype=BF16)
    suited = copy.deepcopy(plain)
    suit_gpu(suited)
    with torch.autocast("cpu", BF16):
        errors = [float((net(pixels.to(BF16)).float() - tower(pixels)).abs().mean()) for net in (plain, suited)]
    assert errors[1] < 1.5 * errors[0]


def test_it_refuses_what_it_cannot_do(tower: nn.Module) -> None:
    suited = copy.deepcopy(tower)
    suit_gpu(suited)
    attention = next(module for module in suited.modules() if isinstance(module, SelfAttention))
    x = torch.randn(1, 2, 128)
    with pytest.raises(ValueError, match="of one input with itself"):
        attention(x, x.clone(), x)
