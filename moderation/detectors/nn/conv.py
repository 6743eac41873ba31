"""The convolution of all networks here: on a CPU one oneDNN call with its activation and the sum with a shortcut.

Eager torch writes a convolution's output, then reads and writes it again for the activation and for the sum with a
shortcut; these passes are bound by memory. Fused, and with weights in the kernel's order, the networks here run 1.2 to
1.5 times as fast on two AVX512 cores (`torch.jit`, which fuses too, is deprecated, and slowed two of three;
`torch.compile`, see `compile_networks`, needs a C++ compiler). torch's own compiler makes the same calls for a CPU.
Where this build of torch lacks them, and on a GPU, the plain operators run, with the same scores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import nn

Activation = Literal["relu", "relu6", "gelu", "silu"]
# oneDNN's name, its numbers, its variant ("none": GELU by erf, not by tanh).
_FUSED: Final[dict[Activation | None, tuple[str, list[float], str]]] = {
    None: ("none", [], ""),
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "gelu": ("gelu", [], "none"),
    "silu": ("swish", [], ""),
}
# The same in plain torch, in place where it can be.
_PLAIN: Final[dict[Activation, Callable[[torch.Tensor], torch.Tensor]]] = {
    "relu": F.relu_,
    "relu6": lambda y: F.hardtanh_(y, 0.0, 6.0),
    "gelu": F.gelu,
    "silu": lambda y: F.silu(y, inplace=True),
}
# Sizes for which a layer keeps packed weights: at least 4, because frames of one run have few shapes; for a small layer
# as many as fit into this many bytes. Similar widths share one order of the weights; otherwise they would be reordered
# at every call.
_MIN_PACKED: Final = 4
_MAX_PACKED: Final = 64
_PACKED_BYTES: Final = 2**20
_WIDTHS_ALIKE: Final = 8
# Activations for which torch also offers a fused sum.
_FUSED_AFTER_SUM: Final[tuple[Activation | None, ...]] = (None, "relu")

# oneDNN makes a kernel for each layer and picture size, in a millisecond, and keeps 1,024 by default: 16 sizes for a
# network of 60 layers. Strangers' pictures, scaled by their short side, have more sizes, so kernels were always evicted
# and `text` took twice as long per picture. Read once, at the first convolution of the process.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


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
        # By approximate input size. Neither parameters nor buffers: `.to()` must not touch them.
        self._packed: dict[tuple[int, int], torch.Tensor] | None = None
        self._as_product = False
        # How a GPU computes it; see `suit_gpu`.
        self._is_linear = False
        self._odd_weight: torch.Tensor | None = None
        self._learns_odd = False

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """`shortcut` [B,D,h,w] is consumed: the result may overwrite it."""
        # oneDNN refuses an empty batch.
        if self._packed is None or not len(x) or (shortcut is not None and self.activation not in _FUSED_AFTER_SUM):
            return self._plain(x, shortcut)
        if needs_gradient(x):
            raise RuntimeError("packed weights carry no gradient: unpack() first")
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
        y: torch.Tensor = self._multiply(x) if self._as_product else self._convolve(x)
        if shortcut is not None:
            y = y.add_(shortcut)
        return y if self.activation is None else _PLAIN[self.activation](y)

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        if self._is_linear:
            chosen = x[:, :, :: self.stride[0], :: self.stride[1]].permute(0, 2, 3, 1)
            rows = F.linear(chosen.reshape(-1, self.in_channels), self.weight.flatten(1), self.bias)
            return rows.view(*chosen.shape[:3], self.out_channels).permute(0, 3, 1, 2)
        odd = self.weight[:, :, 1:, 1:] if self._learns_odd else self._odd_weight
        if odd is not None:
            after = self.kernel_size[0] // 2 - 1  # before it one less: a kernel without its first row begins later
            x = F.pad(x, (after - 1, after, after - 1, after))
            return F.conv2d(x, odd, self.bias, self.stride, 0, self.dilation, self.groups)
        return super().forward(x)

    def suit_gpu(self) -> None:
        """Use the form that a GPU has a fast kernel for; the result is the same. Call it when weights are in place.

        A 1x1 convolution is a product, whose bias is added on the way: otherwise that takes another pass over the
        output. A kernel of an even side whose first row and column are zeros (see `imagenet_network`) is one of an odd
        side: cuDNN took 3.5 ms for such a layer of 256 frames, as much as for 60 others (H100, bf16).
        """
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            self._is_linear = self.groups == 1
        elif self.is_odd():
            weight = self.weight.detach()
            self._odd_weight = weight[:, :, 1:, 1:].contiguous(memory_format=torch.channels_last)

    def learn_as_odd(self, on: bool) -> None:
        """Whether a kernel whose first row and column are zeros is trained as one of an odd side: they stay zeros."""
        self._learns_odd = on and self.is_odd()

    def is_odd(self) -> bool:
        """Whether its side is even, and its first row and column are zeros."""
        high, wide = self.kernel_size
        if high != wide or high % 2 or self.padding != (high // 2 - 1, high // 2 - 1):
            return False
        weight = self.weight.detach()
        return not weight[:, :, 0].any() and not weight[:, :, :, 0].any()

    @property
    def packed(self) -> bool:
        """Whether it uses the fused call."""
        return self._packed is not None

    def pack(self) -> None:
        """Switch to the fused call; its own copies of the weights are in the kernel's order."""
        self._packed = {}

    def _packed_for(self, x: torch.Tensor) -> torch.Tensor:
        """The weights in the order of this size's kernel; in another order each call would reorder them.

        For 320x960 numbers reordering took ten times as long as the convolution. Packing for a size takes a
        millisecond.
        """
        assert self._packed is not None
        size = (x.shape[2], x.shape[3] // _WIDTHS_ALIKE)
        packed = self._packed.get(size)
        if packed is None:
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, self.groups, list(x.shape)
            )
            max_sizes = min(_MAX_PACKED, max(_MIN_PACKED, _PACKED_BYTES // self.weight.nbytes))
            # Another thread may do the same at the same time, with the same result.
            self._packed = {**dict(list(self._packed.items())[1 - max_sizes :]), size: packed}
        return packed

    def learn_as_product(self, on: bool) -> None:
        """Whether the plain operators of a 1x1 layer are one product of matrices in bfloat16: for training on a CPU.

        With one thread and 16 frames or fewer torch gives 1x1 convolutions to a slow loop: for the watermark network
        forward and backward took 80 ms of a frame, as products 52. Other layers stay as they are.
        """
        self._as_product = on and self.kernel_size == (1, 1) and self.groups == 1

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.flatten(1).bfloat16()
        product = F.linear(x.permute(0, 2, 3, 1).bfloat16(), weight).to(x.dtype).permute(0, 3, 1, 2)
        return product if self.bias is None else product + self.bias.view(1, -1, 1, 1)

    def unpack(self) -> None:
        """Switch to the plain operators: they score the same, and carry gradients."""
        self._packed = None


def needs_gradient(x: torch.Tensor) -> bool:
    """Whether autograd records operations on this tensor: it must not be overwritten then."""
    return torch.is_grad_enabled() and x.requires_grad


def add_into(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x + y; overwrites x where no gradient needs it."""
    return x + y if needs_gradient(x) else x.add_(y)


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether this torch has the fused calls for this number format; they are undocumented."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's, without types
        return False
    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_convolution_pointwise") and hasattr(ops, "_reorder_convolution_weight")):
        return False
    if dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return dtype == torch.float32
