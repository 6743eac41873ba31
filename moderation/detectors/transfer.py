"""Small numbers to a device without waiting for it: a hundred such copies of a batch would each stop the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch


def to_device(values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`torch.tensor(values)` on the device. From pinned memory a GPU copies by itself, in the order of its other work.

    From ordinary memory torch waits until the device has done all that it was given.
    """
    made = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return made.to(device, non_blocking=True)
