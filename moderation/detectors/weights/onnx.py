"""ONNX files, read for their numbers and the order of their operations; parsed, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moderation.errors import FatalError


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNode:
    """One operation of a graph: its type, and the names of its inputs and outputs."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """The numbers of an ONNX file (copies, writable) and its operations in topological order."""

    tensors: Mapping[str, torch.Tensor]
    nodes: tuple[OnnxNode, ...]


def read_onnx(path: Path | str) -> OnnxGraph:
    """Initialisers and operations of an ONNX file; parsed, never executed.

    Raises FatalError when it does not parse. External data is refused: it would read files beside this one.
    """
    import onnx
    from onnx import numpy_helper

    graph = _parse(path).graph
    if any(i.data_location == onnx.TensorProto.EXTERNAL for i in graph.initializer):
        raise FatalError(f"{path}: has its weights in other files; only self-contained ONNX files are read")
    return OnnxGraph(
        tensors={i.name: torch.from_numpy(np.array(numpy_helper.to_array(i))) for i in graph.initializer},
        nodes=tuple(OnnxNode(op=n.op_type, inputs=tuple(n.input), outputs=tuple(n.output)) for n in graph.node),
    )


def read_onnx_metadata(path: Path | str, key: str) -> str:
    """A text in an ONNX file's metadata. Raises FatalError when there is none with this name."""
    for entry in _parse(path).metadata_props:
        if entry.key == key:
            return str(entry.value)
    raise FatalError(f"{path}: has no {key!r}; not a file of these weights")


def _parse(path: Path | str) -> Any:  # noqa: ANN401 - onnx is untyped
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # comes with onnx, without stubs

    try:
        return onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise FatalError(f"{path}: not readable as ONNX: {error}") from error
