"""torch.compile for networks on GPUs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import torch
from torch import nn

from moderation.detectors.nn.gradients import unpack_network
from moderation.errors import UsageError


def compile_networks(networks: Sequence[nn.Module], device: torch.device) -> None:
    """`torch.compile` every network of a loaded detector, in place.

    Meant for GPUs (not measured there). On a CPU it was 1.2 times slower than the fused calls (EfficientNet-Lite0,
    torch 2.15, frozen), and took two minutes for the first batch and again for the first of another size. Raises
    UsageError when torch's compiler is missing: C++ for a CPU, C for a GPU.
    """
    if networks:
        _require_compiler(device)
    for network in networks:
        # The compiler fuses by itself and cannot read packed weights.
        unpack_network(network)
        # A shard's last batch is short: sizes are symbols, so it needs no compilation of its own.
        network.compile(dynamic=True)


def _require_compiler(device: torch.device) -> None:
    variable, names = ("CXX", ("g++", "clang++")) if device.type == "cpu" else ("CC", ("cc", "gcc", "clang"))
    given = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((given,) if given else names)):
        wanted = given or " or ".join(names)
        raise UsageError(f"stack.compile: no compiler ({wanted}) here; install g++ or set stack.compile=false")
