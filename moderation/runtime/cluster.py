"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os

import ray

from moderation.config import RuntimeConfig
from moderation.errors import FatalError

# Encoded pictures are read by the workers and pixels never leave them; what passes through the store are plans and
# receipts. Ray's default would take a third of the memory.
OBJECT_STORE_BYTES = 256 * 1024 * 1024


def connect(config: RuntimeConfig) -> bool:
    """Join the cluster that is configured or in RAY_ADDRESS, else start one here; true when it is ours.

    Raises FatalError when there is no cluster at that address.
    """
    if ray.is_initialized():
        return False
    # Ray would send usage statistics, and warn of what it will change one day.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **options)
        return True
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise FatalError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}") from error
    return False


def leave() -> None:
    """Disconnect; a cluster of our own ends."""
    ray.shutdown()
