"""The numbers of PP-OCR's ONNX files, put into the networks of `text_network`, and the characters that they know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

from moderation.detectors.text.network import TextDetector, TextRecogniser
from moderation.detectors.weights.locator import OnnxGraph, OnnxNode
from moderation.errors import FatalError

_BN_EPS: Final = 1e-5
# Of a file that comes from a stranger: the packaged one has 18,708 characters in 75 KB.
_MAX_CHARACTERS: Final = 100_000

_Tensors = Iterator[tuple[torch.Tensor, torch.Tensor | None]]


def load_detector(network: TextDetector, graph: OnnxGraph) -> None:
    """Copy the file's convolutions, in its order. Raises FatalError when they do not fit."""
    with _fitting("text detection", graph) as tensors:
        _copy_convolutions([m for m in network.modules() if isinstance(m, nn.Conv2d)][:-4], tensors)
        weight, bias = next(tensors)
        network.fuse.split(weight, _given(bias))
        weight, bias = next(tensors)  # [in,out,2,2], transposed
        into, out = weight.shape[:2]
        network.finer.weight.copy_(weight.permute(2, 3, 1, 0).reshape(4 * out, into, 1, 1))
        _copy(network.finer.bias, _given(bias).flatten().repeat(4))
        weight, bias = next(tensors)
        # The four places of the first step share the weights of the second: [y2,y1,x2,x1] of [y2,x2,out].
        places = torch.einsum("yv,xu,ibc->ybxcvui", torch.eye(2), torch.eye(2), weight[:, 0])
        network.finest.weight.copy_(places.reshape(16, 4 * out, 1, 1))
        _copy(network.finest.bias, _given(bias).flatten().expand(16))
        _read_rgb(network.stem.first)


def load_recogniser(network: TextRecogniser, graph: OnnxGraph) -> None:
    """Copy the file's tensors, in its order, batch norms folded. Raises FatalError when they do not fit."""
    dense = [m for m in network.modules() if isinstance(m, nn.Linear | nn.LayerNorm)]
    with _fitting("text recognition", graph) as tensors:
        _copy_convolutions([m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv1d)], tensors)
        for module, (weight, bias) in zip(dense, _dense_tensors(graph), strict=True):
            _copy(module.weight, weight.T if weight.ndim == 2 else weight)
            _copy(module.bias, bias)
        _read_rgb(network.stem.first)


def read_metadata(path: str, key: str) -> str:
    """A text that an ONNX file carries beside its graph. Raises FatalError when there is none of this name."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # comes with onnx, without stubs

    try:
        entries = onnx.load(path, load_external_data=False).metadata_props
    except (DecodeError, OSError) as error:
        raise FatalError(f"{path}: not readable as ONNX: {error}") from error
    for entry in entries:
        if entry.key == key:
            return str(entry.value)
    raise FatalError(f"{path}: has no {key!r}; not a file of these weights")


def read_characters(metadata: str) -> tuple[str, ...]:
    """The characters by class, of the file's `character` entry: one a line; class 0 is "none", the last a space.

    Raises FatalError when there are none, or more than any alphabet has.
    """
    characters = metadata.removesuffix("\n").split("\n")
    if not 1 < len(characters) < _MAX_CHARACTERS:
        raise FatalError(f"text recognition: the file names {len(characters)} characters")
    return ("", *characters, " ")


@contextmanager
def _fitting(what: str, graph: OnnxGraph) -> Iterator[_Tensors]:
    tensors = iter(_convolution_tensors(graph))
    try:
        with torch.no_grad():
            yield tensors
    except (RuntimeError, ValueError, StopIteration, KeyError) as error:
        raise FatalError(f"{what}: weights of another network: {error}") from error
    if next(tensors, None) is not None:
        raise FatalError(f"{what}: weights of another, larger network")


def _convolution_tensors(graph: OnnxGraph) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight and bias of each convolution, in order; what is added right after it, or a batch norm, folded in."""
    readers = _readers(graph)
    found = []
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
            scale = gamma / torch.sqrt(variance + _BN_EPS)
            weight = (weight.double() * scale.view(-1, 1, 1, 1)).float()
            bias = (beta - mean * scale).float()
        found.append((weight, bias))
    return found


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
    """The first operation that reads what `node` makes."""
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
        if module.groups == 1 and weight.shape[1] == 2 * half:  # of two inputs, which have a module each
            _copy(module.weight, weight[:, :half])
            nn.init.zeros_(_given(module.bias))
            module, weight = next(left), weight[:, half:]
        _copy(module.weight, weight)
        if bias is None:
            nn.init.zeros_(_given(module.bias))
        else:
            _copy(module.bias, bias)


def _read_rgb(first: nn.Conv2d) -> None:
    """The file reads BGR, frames are RGB."""
    first.weight.copy_(first.weight.flip(1))


def _copy(parameter: torch.Tensor | None, values: torch.Tensor) -> None:
    """Raises RuntimeError unless the shapes are equal; torch alone would spread a scalar."""
    if parameter is None or parameter.shape != values.shape:
        raise RuntimeError(f"{list(values.shape)} for {None if parameter is None else list(parameter.shape)}")
    parameter.copy_(values)


def _given(bias: torch.Tensor | None) -> torch.Tensor:
    if bias is None:
        raise RuntimeError("a convolution without a bias")
    return bias
