"""The network of image_safety: a SwiftFormer, and how its file is read into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.loading import fitting, scale_and_shift
from moderation.detectors.weights.onnx import OnnxGraph

_WIDTHS: Final = (48, 64, 168, 224)
_DEPTHS: Final = (3, 3, 9, 6)
_BN_EPS: Final = 1e-5


class SwiftFormer(nn.Module):
    """RGB 0..255 minus `mean`, [B,3,H,W] -> features [B,224] before the last batch norm, which `head` holds."""

    mean: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.stem = Conv(3, _WIDTHS[0] // 2, 3, stride=2, activation="relu")
        self.stem_2 = Conv(_WIDTHS[0] // 2, _WIDTHS[0], 3, stride=2, activation="relu")
        stages: list[nn.Module] = []
        for i, (width, depth) in enumerate(zip(_WIDTHS, _DEPTHS, strict=True)):
            if i:
                stages.append(Conv(_WIDTHS[i - 1], width, 3, stride=2))
            stages += [_ConvBlock(width, 4 * width) for _ in range(depth - 1)]
            stages.append(_AttentionBlock(width))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(_WIDTHS[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.stages(self.stem_2(self.stem(x))).mean(dim=(2, 3))
        return features

    def layers(self) -> nn.Sequential:
        """All before the average, in order; the modules are its own."""
        return nn.Sequential(self.stem, self.stem_2, *self.stages)


class _ConvBlock(nn.Module):
    """x + point(gelu(point(depthwise(x))))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.depthwise = Conv(width, width, 3, groups=width)
        self.widen = Conv(width, hidden, 1, activation="gelu")
        self.narrow = Conv(hidden, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.narrow(self.widen(self.depthwise(x)), x)
        return out


class _AttentionBlock(nn.Module):
    """A local block, additive attention over all positions, and a pointwise network, each added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.local = _ConvBlock(width, width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.weigh = nn.Parameter(torch.zeros(width, 1))
        self.project = nn.Linear(width, width)
        self.final = nn.Linear(width, width)
        self.widen = Conv(width, 4 * width, 1, activation="gelu")
        self.narrow = Conv(4 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.local(x)
        x = x + self._attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: torch.Tensor = self.narrow(self.widen(x), x)
        return out

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        """[B,H,W,C] -> the same shape. One global query: the mean of all queries, weighted by a learned direction."""
        shape = x.shape
        x = x.reshape(shape[0], shape[1] * shape[2], shape[3])
        query = F.normalize(self.query(x), dim=-1)
        key = F.normalize(self.key(x), dim=-1)
        weight = F.normalize(query @ self.weigh, dim=1)
        overall = weight.transpose(1, 2) @ query
        out: torch.Tensor = self.final(self.project(overall * key).add_(query))
        return out.reshape(shape)


def load_network(network: SwiftFormer, graph: OnnxGraph) -> None:
    """Fold the file's tensors into the network. Raises FatalError when they do not fit."""
    with fitting("image_safety"):
        _load(network, _named(graph))


def _named(graph: OnnxGraph) -> dict[str, torch.Tensor]:
    """All tensors by name, in float64, in which folding multiplies them; linear layers, exported without a name, get
    that of their bias.
    """
    named = {name: t.double() if t.is_floating_point() else t for name, t in graph.tensors.items()}
    made_by = {node.outputs[0]: node for node in graph.nodes}
    for node in graph.nodes:
        if node.op != "Add":
            continue
        product = made_by.get(node.inputs[0])
        bias = node.inputs[1]
        if product is not None and product.op == "MatMul" and bias.endswith(".bias"):
            named[bias.removesuffix("bias") + "weight"] = named[product.inputs[1]].T
    return named


def _load(network: SwiftFormer, named: Mapping[str, torch.Tensor]) -> None:
    # The stem reads (x/255 - mean)/std: its weights are divided by 255 std, and 255 mean is subtracted from x.
    std = named["std"].reshape(1, 3, 1, 1)
    network.mean.copy_(255 * named["mean"].reshape(1, 3, 1, 1))
    network.stem.weight.copy_(named["model.stem.0.weight"] / (255 * std))
    assert network.stem.bias is not None  # built with a bias
    network.stem.bias.copy_(named["model.stem.0.bias"])
    _copy(network.stem_2, named, "model.stem.3")
    modules = iter(network.stages)
    for stage, depth in enumerate(_DEPTHS):
        if stage:
            _copy(next(modules), named, f"model.stages.{stage}.downsample.proj")
        for i in range(depth):
            block, prefix = next(modules), f"model.stages.{stage}.blocks.{i}"
            if isinstance(block, _AttentionBlock):
                _load_attention(block, named, prefix)
            else:
                _load_conv_block(block, named, prefix)
    # Both heads follow one batch norm and are averaged: one linear layer.
    weight = (named["model.head.weight"] + named["model.head_dist.weight"]) / 2
    bias = (named["model.head.bias"] + named.get("model.head_dist.bias", named["model.head.bias"])) / 2
    scale, shift = _batch_norm(named, "model.norm")
    network.head.weight.copy_(weight * scale)
    network.head.bias.copy_(bias + weight @ shift)


def _load_conv_block(block: nn.Module, named: Mapping[str, torch.Tensor], prefix: str) -> None:
    _copy(block.depthwise, named, f"{prefix}.dwconv")
    _copy(block.widen, named, f"{prefix}.pwconv1")
    _copy(block.narrow, named, f"{prefix}.pwconv2", scale=named[f"{prefix}.layer_scale.gamma"].flatten())


def _load_attention(block: _AttentionBlock, named: Mapping[str, torch.Tensor], prefix: str) -> None:
    _load_conv_block(block.local, named, f"{prefix}.local_representation")
    _copy(block.query, named, f"{prefix}.attn.to_query")
    _copy(block.key, named, f"{prefix}.attn.to_key")
    _copy(block.project, named, f"{prefix}.attn.proj")
    _copy(block.final, named, f"{prefix}.attn.final", scale=named[f"{prefix}.layer_scale_1.gamma"].flatten())
    # Its constant factor, width ** -0.5, cancels in the normalisation that follows.
    block.weigh.copy_(named[f"{prefix}.attn.w_g"])
    scale, shift = _batch_norm(named, f"{prefix}.linear.norm1")
    weight = named[f"{prefix}.linear.fc1.weight"]
    block.widen.weight.copy_(weight * scale.view(1, -1, 1, 1))
    assert block.widen.bias is not None  # built with a bias
    block.widen.bias.copy_(named[f"{prefix}.linear.fc1.bias"] + weight.flatten(1) @ shift)
    _copy(block.narrow, named, f"{prefix}.linear.fc2", scale=named[f"{prefix}.layer_scale_2.gamma"].flatten())


def _copy(module: Any, named: Mapping[str, torch.Tensor], prefix: str, scale: torch.Tensor | None = None) -> None:  # noqa: ANN401 - a linear layer or a convolution
    weight, bias = named[f"{prefix}.weight"], named[f"{prefix}.bias"]
    if scale is not None:
        weight, bias = weight * scale.view(-1, *[1] * (weight.ndim - 1)), bias * scale
    module.weight.copy_(weight)
    module.bias.copy_(bias)


def _batch_norm(named: Mapping[str, torch.Tensor], prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    """scale, shift such that norm(x) = scale * x + shift."""
    gamma, beta, mean, variance = (named[f"{prefix}.{n}"] for n in ("weight", "bias", "running_mean", "running_var"))
    return scale_and_shift(gamma, beta, mean, variance, _BN_EPS)
