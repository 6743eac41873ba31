"""Networks made ready to infer: on a CPU each convolution, its activation and its sum become one oneDNN call.

Eager torch writes a convolution's output, reads and writes it again for the activation, and again for the sum with a
shortcut; these passes wait for memory. Fused, and with weights in the order that the kernel reads, the networks here
run 1.2 to 1.5 times as fast on two AVX512 cores (`torch.jit`, which fuses too, is deprecated, and slowed two of three;
`torch.compile`, see `compile_networks`, needs a C++ compiler). The calls are those that torch's own compiler makes for
a CPU. Where this build of torch lacks them, and on a GPU, the plain operators run, which score the same.

A batch goes through in parts, side by side, not each operator over all cores: a hundred times a batch a team waits for
its slowest member, which is long where decoding (or another job) shares the cores. Measured for image_safety on two
shared cores, batch 16: in two parts 34 to 36 images/s and 31 ms of CPU time each; as a team 12 to 39 and 50 ms.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Barrier
from typing import Any, Final, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from moderation.errors import UsageError

Activation = Literal["relu", "relu6", "gelu", "silu"]

# What oneDNN calls it, its numbers, its variant ("none": GELU by erf, not by tanh).
_FUSED: Final[dict[Activation | None, tuple[str, list[float], str]]] = {
    None: ("none", [], ""),
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "gelu": ("gelu", [], "none"),
    "silu": ("swish", [], ""),
}
# A part of fewer frames fills no team; and this many frames wait at most for one slow core.
_MAX_PARTS: Final = 4
# Sizes of which a layer keeps its weights packed: at least 4, for frames of one run have few shapes, and of a small
# layer as many as are in this many bytes. Widths that are nearly the same take the same order, or else it is sorted for
# the one call.
_MIN_PACKED: Final = 4
_MAX_PACKED: Final = 64
_PACKED_BYTES: Final = 2**20
_WIDTHS_ALIKE: Final = 8
# Of these torch offers a fused sum, too.
_FUSED_AFTER_SUM: Final[tuple[Activation | None, ...]] = (None, "relu")

# oneDNN makes a kernel for each layer and size of picture, in a millisecond, and keeps 1,024 unless told otherwise: 16
# sizes of a network of 60 layers. Strangers' pictures, scaled by their short side, have more, and each then found its
# kernels gone: `text` took twice as long a picture. Read once, at the first convolution of the process.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

_Network = TypeVar("_Network", bound=nn.Module)
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class Conv(nn.Conv2d):
    """activation(convolution(x) + shortcut), [B,C,H,W] -> [B,D,h,w]; padding keeps the size unless said otherwise."""

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        activation: Activation | None = None,
    ) -> None:
        super().__init__(width_in, width, kernel, stride, kernel // 2 if padding is None else padding, groups=groups)
        self.activation: Activation | None = activation
        # By the input's size, roughly. Opaque to torch: neither parameters nor buffers, lest `.to()` touch them.
        self._packed: dict[tuple[int, int], torch.Tensor] | None = None

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """`shortcut` [B,D,h,w] is consumed: the result may be written over it."""
        # oneDNN refuses a batch of none.
        if self._packed is None or not len(x) or (shortcut is not None and self.activation not in _FUSED_AFTER_SUM):
            return self._plain(x, shortcut)
        # `Any`: torch declares no types for operators.
        ops: Any = torch.ops.mkldnn
        geometry = (self.bias, self.padding, self.stride, self.dilation, self.groups)
        name, numbers, variant = _FUSED[self.activation]
        out: torch.Tensor
        if shortcut is None:
            out = ops._convolution_pointwise(x, self._packed_for(x), *geometry, name, numbers, variant)
        else:
            unary = None if self.activation is None else name
            out = ops._convolution_pointwise_.binary(
                shortcut, x, self._packed_for(x), *geometry, "add", 1.0, unary, numbers, None
            )
        return out

    def _plain(self, x: torch.Tensor, shortcut: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = super().forward(x)
        if shortcut is not None:
            y = y.add_(shortcut)
        if self.activation is None:
            return y
        if self.activation == "gelu":
            return F.gelu(y)
        if self.activation == "silu":
            return F.silu(y, inplace=True)
        return F.relu_(y) if self.activation == "relu" else F.hardtanh_(y, 0.0, 6.0)

    @property
    def packed(self) -> bool:
        """Whether it uses the fused call."""
        return self._packed is not None

    def pack(self) -> None:
        """Use the fused call from now on; its own copies of the weights are in the order that the kernel reads."""
        self._packed = {}

    def _packed_for(self, x: torch.Tensor) -> torch.Tensor:
        """The weights in the order that the kernel of this size reads: in another's, each call would sort them anew.

        Of 320x960 numbers that took ten times as long as their convolution did. Packed for a size, a millisecond.
        """
        assert self._packed is not None
        size = (x.shape[2], x.shape[3] // _WIDTHS_ALIKE)
        packed = self._packed.get(size)
        if packed is None:
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, self.groups, list(x.shape)
            )
            most = min(_MAX_PACKED, max(_MIN_PACKED, _PACKED_BYTES // self.weight.nbytes))
            # Another thread may do the same meanwhile, with the same result.
            self._packed = {**dict(list(self._packed.items())[1 - most :]), size: packed}
        return packed

    def unpack(self) -> None:
        """Use the plain operators again."""
        self._packed = None


def prepare(network: _Network, device: torch.device, dtype: torch.dtype) -> _Network:
    """The same network on its device, frozen, channels_last, and on a CPU with fused convolutions.

    Do not move or cast it afterwards.
    """
    network = network.eval().requires_grad_(False).to(device, dtype).to(memory_format=torch.channels_last)
    if device.type == "cpu" and _can_fuse(dtype):
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, Conv):
                    module.pack()
        threads = torch.get_num_threads()
        _crew(threads, count_parts(threads))
    return network


def infer(network: nn.Module, x: torch.Tensor, *, most: int = 0) -> torch.Tensor:
    """network(x), [B,...] -> [B,...], of a prepared network; on a CPU in parts of the batch, side by side.

    most: frames of a part, at most (0: any number): of a network whose widest features of more than that are larger
    than the 32 MiB that glibc keeps, and so are mapped anew, page by page, at every call.
    """
    threads = torch.get_num_threads()
    side_by_side = count_parts(threads)
    turns = -(-len(x) // (side_by_side * most)) if most else 1
    parts = min(side_by_side * turns, len(x))
    if x.device.type != "cpu" or parts < 2 or not _is_fused(network):
        return _call(network, x)
    crew = _crew(threads, side_by_side)
    return torch.cat(list(crew.map(_as_here(partial(_call, network)), x.chunk(parts))))


def work_each(work: Callable[[_Given], _Made], given: Sequence[_Given], device: torch.device) -> list[_Made]:
    """work(x) of each; on a CPU side by side, for what differs in size and so shares no batch.

    What is fewer than the parts that a batch goes through in has all the threads between them.
    """
    if device.type != "cpu" or not given:
        return [work(x) for x in given]
    threads = torch.get_num_threads()
    return list(_crew(threads, count_parts(threads, len(given))).map(_as_here(work), given))


def _as_here(work: Callable[[_Given], _Made]) -> Callable[[_Given], _Made]:
    """The same work for another thread: inference mode and autocast are a thread's own."""
    inference, autocast = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def run(given: _Given) -> _Made:
        with torch.inference_mode(inference), torch.autocast("cpu", dtype, enabled=autocast):
            return work(given)

    return run


def count_parts(threads: int, most: int = _MAX_PARTS) -> int:
    """In how many parts a batch goes through this many threads: 1 to 4, such that each has as many."""
    return max(parts for parts in range(1, min(most, _MAX_PARTS) + 1) if threads % parts == 0)


def _call(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = network(x)
    return out


def _is_fused(network: nn.Module) -> bool:
    return any(isinstance(module, Conv) and module.packed for module in network.modules())


@lru_cache(maxsize=8)
def _crew(threads: int, parts: int) -> ThreadPoolExecutor:
    """One thread a part, each with its share of `threads`; kept, as are torch's own teams."""
    gathered = Barrier(parts + 1)

    def start() -> None:
        # A GELU of what is far below zero is a number too small for float32's normal form, on which a core multiplies a
        # hundred times as slowly: two layers of the text detector took 70% of its time. Teams inherit the setting.
        torch.set_flush_denormal(True)
        # A thread takes the process's number when it first asks, over one that it was given before.
        torch.get_num_threads()
        torch.set_num_threads(threads // parts)
        gathered.wait()

    pool = ThreadPoolExecutor(parts, thread_name_prefix="infer")
    for _ in range(parts):
        pool.submit(start)
    gathered.wait()
    # The number is a thread's own, but what the last one set is also that of every thread yet to come.
    torch.set_num_threads(threads)
    return pool


def _can_fuse(dtype: torch.dtype) -> bool:
    """Whether this torch has the fused calls for this number format; they are no documented interface."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's, without types
        return False
    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_convolution_pointwise") and hasattr(ops, "_reorder_convolution_weight")):
        return False
    if dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def compile_networks(detector: object, device: torch.device) -> int:
    """`torch.compile` every network that a loaded detector holds, in place; returns how many.

    Meant for GPUs (not measured there). On a CPU it was 1.2 times slower than the fused calls (EfficientNet-Lite0,
    torch 2.15, frozen), and took two minutes for the first batch and as long for the first of another size. Raises
    UsageError when the compiler that torch needs is not there: C++ for a CPU, C for a GPU.
    """
    networks = [value for value in getattr(detector, "__dict__", {}).values() if isinstance(value, nn.Module)]
    if networks:
        _require_compiler(device)
    for network in networks:
        for module in network.modules():
            if isinstance(module, Conv):
                # The compiler fuses on its own, and can't look into packed weights.
                module.unpack()
        # The last batch of a shard is short: sizes are symbols, not a compilation each.
        network.compile(dynamic=True)
    return len(networks)


def _require_compiler(device: torch.device) -> None:
    variable, names = ("CXX", ("g++", "clang++")) if device.type == "cpu" else ("CC", ("cc", "gcc", "clang"))
    given = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((given,) if given else names)):
        wanted = given or " or ".join(names)
        raise UsageError(f"stack.compile: no compiler ({wanted}) here; install g++ or set stack.compile=false")
