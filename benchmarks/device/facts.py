"""Facts about the machine that the figures were measured on; nothing that names the machine itself."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "triton", "numpy", "pillow", "simplejpeg", "open_clip_torch", "timm", "pydantic")
_QUERY = ("name", "driver_version", "memory.total", "clocks.max.sm", "pcie.link.gen.max", "pcie.link.width.max",
          "power.limit")  # fmt: skip


def device_facts() -> dict[str, Any]:
    """GPU, driver, versions, cores, and what a compiler needs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return {
        "gpu": _ask_driver(),
        "cuda_available": torch.cuda.is_available(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "allow_tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "cpu": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "c_compiler": next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None),
        "python_headers": Path(sysconfig.get_paths()["include"], "Python.h").is_file(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _ask_driver() -> Mapping[str, str] | str:
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}"
    return dict(zip(_QUERY, (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=False))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
