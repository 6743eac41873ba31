"""What this machine gives to the workers of a run: cores, memory, GPUs; as Ray counts them, without Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from moderation.concurrency import CGROUPS, usable_cores
from moderation.config.model import RuntimeConfig
from moderation.config.pool_choice import visible_gpus
from moderation.errors import UsageError
from moderation.runtime.sizing import Resources, WorkerSize, count_workers, size_workers

_DEVICES: Final = Path("/dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """How many workers of what size this machine holds. Raises UsageError where it holds none."""

    size: WorkerSize
    workers: int

    @classmethod
    def of(cls, config: RuntimeConfig, resources: Resources) -> WorkerShare:
        """By the configuration. A cluster might grow until there is room; a machine does not."""
        size = size_workers(config, [resources])
        for key, wanted, has in (
            ("num_cpus", size.num_cpus, resources.get("CPU", 0.0)),
            ("num_gpus", size.num_gpus, resources.get("GPU", 0.0)),
        ):
            if wanted > has:
                raise UsageError(
                    f"runtime.{key} is {wanted:g}, and this machine has {has:g}: a worker process would never start;"
                    f" lower runtime.{key}, or set runtime.ray_address to a cluster that has more"
                )
        room = max(1, min(size.count_on(resources), _room_on_gpus(size, int(resources.get("GPU", 0.0)))))
        return cls(size=size, workers=min(room, count_workers(config, size, [resources])))


def _room_on_gpus(size: WorkerSize, gpus: int) -> int:
    """As `GpuShares` gives them out: a worker's share is of one GPU, or is whole ones."""
    if not size.num_gpus:
        return sys.maxsize
    return gpus * int(1 / size.num_gpus + 1e-6) if size.num_gpus < 1 else gpus // int(size.num_gpus)


def machine_resources(gpus: Sequence[str]) -> Resources:
    """`CPU`, `memory` in bytes, and `GPU` where there are any. gpus: the ids of those that are visible."""
    resources = {"CPU": float(usable_cores()), "memory": float(_memory_bytes())}
    return {**resources, "GPU": float(len(gpus))} if gpus else resources


def _memory_bytes(cgroups: Path = CGROUPS) -> int:
    """The memory of this machine, or of its container where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [physical]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (cgroups / name).read_text().strip()
        except OSError:
            continue
        limits += [int(limit)] if limit.isdecimal() else []
    return min(limits)


def find_gpus(devices: Path = _DEVICES) -> list[str]:
    """The ids of NVIDIA's GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    present = sorted(int(path.name.removeprefix("nvidia")) for path in devices.glob("nvidia[0-9]*"))
    named = visible_gpus()
    if not present or named is None:
        return [str(number) for number in range(len(present))]
    return named


@dataclass(slots=True, kw_only=True)
class GpuShares:
    """Which GPUs have room for another worker."""

    ids: Sequence[str]
    _used: dict[str, float] = field(default_factory=dict)

    def take(self, num_gpus: float) -> tuple[str, ...]:
        """The ids of that many, or of one that several workers share; fewer where there is no more room."""
        wanted, share = (1, num_gpus) if num_gpus < 1 else (int(num_gpus), 1.0)
        if not num_gpus:
            return ()
        free = [one for one in self.ids if self._used.get(one, 0.0) + share <= 1.0 + 1e-6]
        free.sort(key=lambda one: self._used.get(one, 0.0))  # so that none is idle while others are shared
        taken = tuple(free[:wanted])
        for one in taken:
            self._used[one] = self._used.get(one, 0.0) + share
        return taken

    def give_back(self, taken: Sequence[str], num_gpus: float) -> None:
        """Those of a worker that is gone."""
        for one in taken:
            self._used[one] -= min(num_gpus, 1.0)
