"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from moderation.config.model import RuntimeConfig
from moderation.config.ray_places import find_bad_places
from moderation.errors import FatalError, UsageError, one_line
from moderation.lean_imports import without_module
from moderation.runtime.worker import MALLOC_ENV

# Workers read the encoded pictures, and pixels never leave them: only plans and receipts pass through the object store.
# Ray's default would take a third of the memory.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
START_ATTEMPTS = 4
# A head that has just been started listens within seconds; Ray itself would go on asking for two minutes.
_CONNECT_ATTEMPTS = 4
_CONNECT_TIMEOUT_S = 3.0


def connect(config: RuntimeConfig) -> bool:
    """Join the cluster that is configured or in RAY_ADDRESS, else start one here; true when it is ours.

    Raises FatalError when there is no cluster at that address, UsageError when this environment does not allow to
    start one.
    """
    if ray.is_initialized():
        return False
    # Ray would send usage statistics, and warn of what it will change one day.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        problems = list(find_bad_places())
        if problems:
            raise UsageError("\n".join(problems))
        _start_here(options)
        return True
    _check_listening(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise FatalError(f"no Ray cluster at {address}: {one_line(error, 300)}") from error
    return False


def _check_listening(address: str) -> None:
    """Raises FatalError when nobody listens at `host:port`; other spellings are Ray's to resolve."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    for attempt in range(1, _CONNECT_ATTEMPTS + 1):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
            return
        except (OSError, OverflowError) as error:
            if attempt == _CONNECT_ATTEMPTS:
                raise FatalError(f"no Ray cluster at {address}: {error}") from error
            time.sleep(_CONNECT_TIMEOUT_S / 2)


def _start_here(options: dict[str, Any]) -> None:
    # On a busy machine Ray's own processes may not answer each other in time. Its timeouts are short and not all of
    # them can be set, so the start is tried again.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    # Ray would start one process per core in advance; our actors have their own environment and can't use those.
    os.environ.setdefault("RAY_enable_worker_prestart", "0")
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # As after `pip install ray`, not `ray[default]`: nobody asks this machine's own Ray for its dashboard or
            # its metrics, and serving them takes seconds of its processes at the start.
            with _in_environment(MALLOC_ENV), without_module("ray.dashboard.optional_deps"):
                ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **options)
            return
        except Exception as error:  # Ray raises a bare Exception when a process of its own is late
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise FatalError(f"Ray does not start on this machine: {one_line(error)}") from error


@contextmanager
def _in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These variables, for processes that are started meanwhile: the raylet hands its own on to its workers.

    A runtime environment would do so too, but a worker that has one waits for Ray's agent of such environments, which
    takes as long to start as a worker.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def leave() -> None:
    """Disconnect; ends a cluster that `connect` started."""
    ray.shutdown()
