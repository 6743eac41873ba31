"""ONNX files: read as numbers and operations, never run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moderation.detectors.weights.onnx import read_onnx
from moderation.errors import FatalError


def test_onnx_is_read_as_numbers_and_operations(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    read = read_onnx(path)
    assert [(n.op, n.inputs, n.outputs) for n in read.nodes] == [("MatMul", ("x", "w"), ("y",))]
    assert read.tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_that_is_no_onnx_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\xff\xff not a message")
    with pytest.raises(FatalError, match="not readable as ONNX"):
        read_onnx(tmp_path / "net.onnx")
