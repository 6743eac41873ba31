"""The task of a backfill: a worker loads the stack once, judges shards and commits their votes and verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.policy.bind import bind
from moderation.policy.model import Policy
from moderation.results.record import RunFacts
from moderation.runtime.task import MemoryMode, make_task_pools, small_memory
from moderation.types import Shard

if TYPE_CHECKING:
    from moderation.pipeline.pools import Pools
    from moderation.results.receipts import Receipt

SMALLEST_BATCH_DIVISOR = 4


class JudgingTask:
    """Judges shards. The device is used by one shard at a time; meanwhile the others are fetched and decoded."""

    def __init__(self, *, config: Config, policy: Policy, facts: RunFacts, out: str) -> None:
        # Nothing here can fail; an error in `load` reaches the driver as its own exception.
        self._config = config
        # The policy itself, not its path: the file may be on the driver's machine only, or change meanwhile.
        self._rules = policy
        self._facts = facts
        self._out = out
        self._rows: dict[str, int] = {}  # by running shard

    def load(self, threads: int) -> dict[str, Any]:
        """Load the stack; its device and type. Raises UsageError, FatalError."""
        from moderation.scoring.build import build_stack

        set_torch_threads(threads)
        self._stack = build_stack(self._config)
        self._stack.load()
        self._policy = bind(
            self._rules,
            self._stack.labels,
            gated=self._stack.gated,
            disabled=self._stack.disabled,
            as_of=self._facts.day,
        )
        self._pools = make_task_pools(self._config, threads)
        return {"device": str(self._stack.device), "dtype": str(self._stack.dtype).removeprefix("torch.")}

    def run(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> dict[str, Any]:
        """Judge and commit a shard; its receipt as a dict."""

        def count_row() -> None:
            self._rows[shard.shard_id] = self._rows.get(shard.shard_id, 0) + 1

        try:
            receipt = self._moderate(shard, poison, memory, count_row)
        finally:
            self._rows.pop(shard.shard_id, None)
        return asdict(receipt)

    def _moderate(
        self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode, count_row: Callable[[], None]
    ) -> Receipt:
        from moderation.pipeline.shard import moderate_shard

        with self._working_set(memory) as (config, pools):
            return moderate_shard(
                shard,
                out=self._out,
                config=config,
                stack=self._stack,
                policy=self._policy,
                facts=self._facts,
                pools=pools,
                poison=poison,
                judged=count_row,
            )

    def items_in_flight(self) -> int:
        """Items of running shards that have a row already."""
        return sum(list(self._rows.values()))

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        """Judge the items of a shard, write nothing; returns the rows."""
        from moderation.pipeline.items import moderate_items

        with self._working_set(memory) as (config, pools):
            rows = moderate_items(
                shard.items, config=config, stack=self._stack, policy=self._policy, pools=pools, poison=poison
            )
            return sum(1 for _ in rows)

    @contextmanager
    def _working_set(self, memory: MemoryMode) -> Iterator[tuple[Config, Pools]]:
        """Configuration and threads for a shard. Others than `normal` run alone, so they may change the stack."""
        if memory == "normal":
            yield self._config, self._pools
            return
        batch_size = self._stack.batch_size
        if memory == "smallest":
            self._stack.batch_size = max(1, batch_size // SMALLEST_BATCH_DIVISOR)
        try:
            with small_memory(self._config) as working_set:
                yield working_set
        finally:
            self._stack.batch_size = batch_size

    def to_json(self) -> str:
        """Configuration, policy, run and output."""
        # Only what was set: an explicit `null` of an attribute is an error, even where it is the default.
        return json.dumps(
            {
                "config": self._config.model_dump_json(),
                "policy": self._rules.model_dump_json(by_alias=True, exclude_unset=True),
                "facts": asdict(self._facts),
                "out": self._out,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task from the output of `to_json`, not loaded."""
        fields = json.loads(text)
        return cls(
            config=Config.model_validate_json(fields["config"]),
            policy=Policy.model_validate_json(fields["policy"]),
            facts=RunFacts(**fields["facts"]),
            out=fields["out"],
        )


def set_torch_threads(threads: int) -> None:
    """Limit torch to this worker's share of the cores: two workers with all cores each slow each other down."""
    import torch

    torch.set_num_threads(threads)
    try:
        torch.set_num_interop_threads(1)
    except RuntimeError:
        # Only the first call in a process counts; a notebook may have made it.
        return
