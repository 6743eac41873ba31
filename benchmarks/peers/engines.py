"""The networks of a loaded stack by another engine: eager torch, compiled torch, ONNX Runtime, OpenVINO.

What a detector calls stays the same module; its `forward` becomes the engine's. `ours` leaves the fused calls that the
library makes on a CPU. OpenVINO is not in the lock: see `benchmarks.end_to_end`.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.peers.scorer import BATCH

if TYPE_CHECKING:
    from moderation.scoring.stack import Stack

ENGINES = ("ours", "eager", "compiled", "onnxruntime", "openvino")
# Module -> what its package is called.
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
_SIDE = 224

_Forward = Callable[[torch.Tensor], torch.Tensor]


def missing_package(engine: str) -> str:
    """The package that an engine lacks here, or nothing."""
    package = PACKAGES.get(engine)
    return package if package and find_spec(package) is None else ""


def use_engine(stack: Stack, engine: str) -> None:
    """Give every network of a stack, loaded on the CPU, to an engine."""
    if engine == "ours":
        return
    from moderation.detectors.nn.gradients import unpack_network

    for slot in stack.slots:
        for network in slot.detector.networks:
            unpack_network(network)
            # Of the default stack and of a CLIP every network reads the view of its detector.
            _give(network, engine, stack.dtype, slot.detector.view.crop or _SIDE)


def _give(network: nn.Module, engine: str, dtype: torch.dtype, side: int) -> None:
    if engine == "eager":
        return
    if engine == "compiled":
        # The last batch is filled up (see `full_batches`), so that one shape is compiled.
        network.compile(dynamic=False)
        return
    run = _by_onnxruntime(network, side) if engine == "onnxruntime" else _by_openvino(network, side)

    def forward(x: torch.Tensor) -> torch.Tensor:
        filled = full_batch(x.float())
        return run(filled)[: len(x)].to(dtype)

    network.forward = forward


def full_batch(x: torch.Tensor) -> torch.Tensor:
    """The batch filled up with its last picture, so that an engine sees one shape."""
    missing = BATCH - len(x)
    return x if missing <= 0 else torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])


def _as_onnx(network: nn.Module, side: int) -> bytes:
    """The network in fp32 as ONNX, of one batch size: engines plan best for shapes that they know."""
    network = network.float()
    pixels = torch.zeros(BATCH, 3, side, side)
    with torch.no_grad(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")  # the exporter for TorchScript is deprecated; the other one is not in the lock
        file = Path(scratch) / "network.onnx"
        torch.onnx.export(network, (pixels,), file, dynamo=False, opset_version=17, input_names=["pixels"])
        return file.read_bytes()


def _by_onnxruntime(network: nn.Module, side: int) -> _Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between calls would take the cores from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(_as_onnx(network, side), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"pixels": x.contiguous().numpy()})[0])


def _by_openvino(network: nn.Module, side: int) -> _Forward:
    import openvino

    core: Any = openvino.Core()
    model = core.read_model(_as_onnx(network, side), b"")
    # By its own choice of precision: bf16 where the processor has it.
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda x: torch.from_numpy(compiled([x.contiguous().numpy()])[0].copy())
