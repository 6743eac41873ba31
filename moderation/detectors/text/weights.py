"""Loads the numbers of PP-OCR's ONNX files into the networks of `network`, and reads their characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

from moderation.detectors.nn.loading import copy_exactly, fitting, scale_and_shift
from moderation.detectors.text.network import TextDetector, TextRecogniser
from moderation.detectors.weights.onnx import OnnxGraph, OnnxNode
from moderation.errors import FatalError

_BN_EPS: Final = 1e-5
# The file comes from a stranger; the packaged one has 18,708 characters in 75 KB.
_MAX_CHARACTERS: Final = 100_000

_Tensors = Iterator[tuple[torch.Tensor, torch.Tensor | None]]


def load_detector(network: TextDetector, graph: OnnxGraph) -> None:
    """Copy the file's convolutions, in its order. Raises FatalError when they do not fit."""
    with _all_fitting("text detection", graph) as tensors:
        _copy_convolutions([m for m in network.modules() if isinstance(m, nn.Conv2d)][:-4], tensors)
        weight, bias = next(tensors)
        network.fuse.split(weight, _given(bias))
        weight, bias = next(tensors)  # [in,out,2,2], transposed
        into, out = weight.shape[:2]
        network.finer.weight.copy_(weight.permute(2, 3, 1, 0).reshape(4 * out, into, 1, 1))
        copy_exactly(network.finer.bias, _given(bias).flatten().repeat(4))
        weight, bias = next(tensors)
        # The four places of the first step share the weights of the second: [y2,y1,x2,x1] of [y2,x2,out].
        places = torch.einsum("yv,xu,ibc->ybxcvui", torch.eye(2), torch.eye(2), weight[:, 0])
        network.finest.weight.copy_(places.reshape(16, 4 * out, 1, 1))
        copy_exactly(network.finest.bias, _given(bias).flatten().expand(16))
        _read_rgb(network.stem.first)


def load_recogniser(network: TextRecogniser, graph: OnnxGraph) -> None:
    """Copy the file's tensors, in its order, batch norms folded. Raises FatalError when they do not fit."""
    dense = [m for m in network.modules() if isinstance(m, nn.Linear | nn.LayerNorm)]
    with _all_fitting("text recognition", graph) as tensors:
        _copy_convolutions([m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv1d)], tensors)
        for module, (weight, bias) in zip(dense, _dense_tensors(graph), strict=True):
            copy_exactly(module.weight, weight.T if weight.ndim == 2 else weight)
            copy_exactly(module.bias, bias)
        _read_rgb(network.stem.first)


def read_characters(metadata: str) -> tuple[str, ...]:
    """The characters by class, from the file's `character` entry: one per line; class 0 is "none", the last a space.

    Raises FatalError when there are none, or more than any alphabet has.
    """
    characters = metadata.removesuffix("\n").split("\n")
    if not 1 < len(characters) < _MAX_CHARACTERS:
        raise FatalError(f"text recognition: the file names {len(characters)} characters")
    return ("", *characters, " ")


@contextmanager
def _all_fitting(owner: str, graph: OnnxGraph) -> Iterator[_Tensors]:
    tensors = iter(_convolution_tensors(graph))
    with fitting(owner):
        yield tensors
    if next(tensors, None) is not None:
        raise FatalError(f"{owner}: weights of another, larger network")


def _convolution_tensors(graph: OnnxGraph) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight and bias of each convolution, in order; a sum right after it, or a batch norm, is folded in."""
    readers = _readers(graph)
    tensors = []
    for node in graph.nodes:
        if node.op not in ("Conv", "ConvTranspose"):
            continue
        name = node.inputs[1]
        weight = graph.tensors[name].float()
        follower = _reader(readers, node)
        bias = None
        if len(node.inputs) > 2:
            bias = graph.tensors[node.inputs[2]].float()
        elif follower.op == "Add" and follower.inputs[1] in graph.tensors:
            bias = graph.tensors[follower.inputs[1]].float().flatten()
        elif follower.op == "BatchNormalization":
            gamma, beta, mean, variance = (graph.tensors[i].double() for i in follower.inputs[1:])
            scale, shift = scale_and_shift(gamma, beta, mean, variance, _BN_EPS)
            weight = (weight.double() * scale.view(-1, 1, 1, 1)).float()
            bias = shift.float()
        tensors.append((weight, bias))
    return tensors


def _dense_tensors(graph: OnnxGraph) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each linear layer ([in,out]) and layer norm, which the file spells out, in order."""
    readers = _readers(graph)
    for node in graph.nodes:
        weight = graph.tensors.get(node.inputs[1]) if node.op in ("MatMul", "Mul") else None
        if weight is not None and weight.numel() > 1:
            yield weight, graph.tensors[_reader(readers, node).inputs[1]]


def _readers(graph: OnnxGraph) -> dict[str, list[OnnxNode]]:
    readers: dict[str, list[OnnxNode]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return readers


def _reader(readers: dict[str, list[OnnxNode]], node: OnnxNode) -> OnnxNode:
    """The first operation that reads the output of `node`."""
    reader = readers[node.outputs[0]][0]
    while reader.op == "Identity":
        reader = readers[reader.outputs[0]][0]
    return reader


def _copy_convolutions(modules: Sequence[nn.Conv2d | nn.Conv1d], tensors: _Tensors) -> None:
    left = iter(modules)
    for module in left:
        weight, bias = next(tensors)
        if isinstance(module, nn.Conv1d):
            weight = weight.squeeze(2)
        half = module.in_channels
        if module.groups == 1 and weight.shape[1] == 2 * half:  # of two inputs, which have one module each
            copy_exactly(module.weight, weight[:, :half])
            nn.init.zeros_(_given(module.bias))
            module, weight = next(left), weight[:, half:]
        copy_exactly(module.weight, weight)
        if bias is None:
            nn.init.zeros_(_given(module.bias))
        else:
            copy_exactly(module.bias, bias)


def _read_rgb(first: nn.Conv2d) -> None:
    """Swap channels: the file reads BGR, frames are RGB."""
    first.weight.copy_(first.weight.flip(1))


def _given(bias: torch.Tensor | None) -> torch.Tensor:
    if bias is None:
        raise RuntimeError("a convolution without a bias")
    return bias
