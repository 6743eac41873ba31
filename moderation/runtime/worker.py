"""The worker: a Ray actor that owns one device (or some CPU threads), loads the stack once and moderates shards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch

from moderation.config.model import MIB, Config
from moderation.errors import ItemError
from moderation.pipeline.counters import peak_memory_bytes
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import Pools, make_pools
from moderation.pipeline.shard import moderate_shard
from moderation.planning.plan import encode_shards
from moderation.policy.bind import bind
from moderation.policy.model import Policy
from moderation.results.record import RunFacts
from moderation.runtime.bisection import Care
from moderation.scoring.build import build_stack
from moderation.types import Shard

# Freed activations stay in the process: giving them back and faulting them in again for every batch cost a third of
# the networks' time (37 against 58 images/s of open_nsfw in eager fp32 on two cores).
MALLOC_ENV = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "536870912"}
# The least that the configuration allows; one item is always taken, whatever its size.
CAREFUL_FETCH_BYTES, CAREFUL_FRAME_BYTES = MIB, 16 * MIB
SMALLER_BATCHES = 4
AUTOPSY_LOAD_S = 300.0  # for imports and the stack, before the clock of the items starts


class ShardWorker:
    """Moderates shards; `shards_in_flight` of its methods run at once, in threads.

    The device is used by one of them at a time; meanwhile the others fetch and decode.
    """

    autopsy_module = "moderation.runtime.isolated_run"

    def __init__(self, config: Config, policy: Policy, facts: RunFacts, out: str, threads: int) -> None:
        # Nothing here can fail: what goes wrong in `load` reaches the driver as the exception that it is.
        self._config = config
        # The policy itself, not its path: the file may lie on the driver's machine only, or change meanwhile.
        self._rules = policy
        self._facts = facts
        self._out = out
        self._threads = threads

    def place(self) -> dict[str, Any]:
        """Where this process is; answered before `load` is, which may take minutes."""
        return {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}

    def load(self) -> dict[str, Any]:
        """Load the stack; facts about this worker. Raises UsageError, FatalError."""
        set_threads(self._threads)
        self._stack = build_stack(self._config)
        self._stack.load()
        self._policy = bind(self._rules, self._stack.labels, gated=self._stack.gated, disabled=self._stack.disabled)
        decode_threads = self._config.runtime.decode_threads
        self._pools = make_pools(self._config, self._threads if decode_threads == "auto" else decode_threads)
        context = ray.get_runtime_context()
        return {
            "device": str(self._stack.device),
            "dtype": str(self._stack.dtype).removeprefix("torch."),
            "threads": self._threads,
            "gpu_ids": context.get_accelerator_ids().get("GPU", []),
            **self.place(),
            "loaded_memory_bytes": peak_memory_bytes(),
        }

    def moderate(self, shard: Shard, poison: Mapping[str, ItemError], care: Care = "usual") -> dict[str, Any]:
        """Judge and commit a shard; its receipt as a dict, with this worker's facts."""
        with self._taking(care) as (config, pools):
            receipt = moderate_shard(
                shard,
                out=self._out,
                config=config,
                stack=self._stack,
                policy=self._policy,
                facts=self._facts,
                pools=pools,
                poison=poison,
            )
        return asdict(receipt) | {"worker": f"{self.place()['node'][:12]}/{os.getpid()}"}

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], care: Care = "usual") -> int:
        """Go through a shard without committing, to see whether it kills the process; returns the rows."""
        with self._taking(care) as (config, pools):
            rows = moderate_items(
                shard.items, config=config, stack=self._stack, policy=self._policy, pools=pools, poison=poison
            )
            return sum(1 for _ in rows)

    @contextmanager
    def _taking(self, care: Care) -> Iterator[tuple[Config, Pools]]:
        """What to work with; of a careful worker nothing else is asked meanwhile, so the stack may be changed."""
        if care == "usual":
            yield self._config, self._pools
            return
        config = tread_carefully(self._config)
        pools = make_pools(config, 1)
        batch_size = self._stack.batch_size
        if care == "smallest":
            self._stack.batch_size = max(1, batch_size // SMALLER_BATCHES)
        try:
            yield config, pools
        finally:
            self._stack.batch_size = batch_size
            pools.fetch.shutdown(wait=False, cancel_futures=True)
            pools.decode.shutdown(wait=False, cancel_futures=True)

    def autopsy(self, shard: Shard, timeout_s: float) -> str:
        """How a process of its own ends on these items: a signal's name, an exit code, `timeout`, or `survived`."""
        with tempfile.TemporaryDirectory() as folder:
            plan, config, policy = (Path(folder) / name for name in ("plan.parquet", "config.json", "policy.json"))
            plan.write_bytes(encode_shards([shard]))
            config.write_text(self._config.model_dump_json())
            policy.write_text(self._rules.model_dump_json(by_alias=True))
            files = [str(plan), str(config), str(policy)]
            command = [sys.executable, "-m", self.autopsy_module, *files, str(self._threads), str(timeout_s)]
            try:
                done = subprocess.run(command, timeout=timeout_s + AUTOPSY_LOAD_S, capture_output=True, check=False)
            except subprocess.TimeoutExpired:
                return "timeout"
        if done.returncode == -signal.SIGALRM:
            return "timeout"
        if done.returncode < 0:
            return signal.Signals(-done.returncode).name
        return "survived" if done.returncode == 0 else f"exit code {done.returncode}"


def tread_carefully(config: Config) -> Config:
    """A configuration that holds as little in memory as it can: one item is decoded and hardly one waits.

    Scores are the same: frames come to the device in the same batches.
    """
    least = {
        "shards_in_flight": 1,
        "fetch_threads": 1,
        "fetch_budget_bytes": CAREFUL_FETCH_BYTES,
        "frame_budget_bytes": CAREFUL_FRAME_BYTES,
    }
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=least)})


def set_threads(threads: int) -> None:
    """Bound torch to this worker's share of the cores: two workers with all cores each fight."""
    torch.set_num_threads(threads)
    try:
        torch.set_num_interop_threads(1)
    except RuntimeError:
        # Only the first call in a process counts; a notebook may have made it.
        return
