"""Which pool of workers a run has: Ray's, or plain processes of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from moderation.config.model import RuntimeConfig
from moderation.errors import UsageError

PoolKind = Literal["ray", "processes"]

# What `runtime.pool: auto` does on a machine alone without a GPU. False: auto is Ray everywhere.
AUTO_CHOOSES_PROCESSES: Final = True
# NVIDIA's, NVIDIA's below Windows, AMD's.
_GPU_DEVICES: Final = ("nvidia[0-9]*", "dxg", "kfd")


def choose_pool(config: RuntimeConfig, environment: Mapping[str, str] | None = None) -> PoolKind:
    """The pool of a run with this configuration, called on this machine now.

    auto: processes where no cluster is named or joined and no GPU is seen, else Ray. Imports neither Ray nor torch.
    Raises UsageError where `processes` is asked for together with a cluster.
    """
    if config.pool == "processes" and config.ray_address:
        raise UsageError(
            f"runtime.pool is processes, which joins no cluster, and runtime.ray_address is {config.ray_address}: leave"
            " one of them out"
        )
    if config.pool != "auto":
        return config.pool
    variables = os.environ if environment is None else environment
    cluster = config.ray_address or variables.get("RAY_ADDRESS") or _has_joined_ray()
    alone = not cluster and not has_gpu(variables)
    return "processes" if AUTO_CHOOSES_PROCESSES and alone else "ray"


def describe_pool(config: RuntimeConfig) -> str:
    """What a run with this configuration starts or joins, in a few words. Raises UsageError as `choose_pool`."""
    if choose_pool(config) == "processes":
        return "starting worker processes on this machine"
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    return f"joining Ray at {address}" if address else "starting Ray on this machine"


def has_gpu(environment: Mapping[str, str] | None = None, devices: Path = Path("/dev")) -> bool:
    """Whether this machine shows a GPU that is not hidden from this process. By device files: asks no driver."""
    if visible_gpus(environment) == []:
        return False
    return any(True for pattern in _GPU_DEVICES for _ in devices.glob(pattern))


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names; None: it is not set, so that all are visible."""
    variables = os.environ if environment is None else environment
    named = variables.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    ids = [one.strip() for one in named.split(",")]
    return [] if ids[0] in ("", "-1", "NoDevFiles") else ids


def _has_joined_ray() -> bool:
    """Whether this process is connected to Ray already, as a notebook may be."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
