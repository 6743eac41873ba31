"""The device and the number type that the stack runs with."""

from __future__ import annotations

import torch

from moderation.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto`: the first GPU visible to this process, else the CPU. Raises UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"stack.device: {name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("stack.device: cuda is not available here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"stack.device: no {name!r} here; there are {torch.cuda.device_count()} GPUs")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of this name; `auto`: bf16 only where native; emulated on a CPU it halves the speed of fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
