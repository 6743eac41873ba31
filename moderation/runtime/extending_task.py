"""The task of an extension: a worker loads the detectors that a run lacks, scores shards and commits their votes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.pipeline.extending import extend_items, extend_shard, read_judged_frames
from moderation.policy.model import Policy
from moderation.results.joined import extension_metadata
from moderation.results.reader import StoredRun
from moderation.results.receipts import Receipt
from moderation.results.record import RunFacts
from moderation.runtime.judging_task import JudgingTask, set_torch_threads
from moderation.runtime.task import MemoryMode, make_task_pools
from moderation.scoring.build import build_stack
from moderation.scoring.extending import DetectorChanges, ExtendingStack
from moderation.scoring.stack import Stack
from moderation.types import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedRun:
    """The run that is extended. out: its OUT. extensions: those whose votes it has already. home: of the new one."""

    out: str
    format: str
    extensions: tuple[str, ...]
    home: str

    def stored(self) -> StoredRun:
        """The run, to read its parts."""
        record = {"votes_of": self.out, "extensions": list(self.extensions)}
        return StoredRun(out=self.out, record=record, format=self.format, shard_ids=())


class ExtendingTask(JudgingTask):
    """Scores the shards of a run by the detectors that it lacks. Nothing is judged here."""

    def __init__(
        self, *, config: Config, policy: Policy, facts: RunFacts, run: ExtendedRun, changes: DetectorChanges
    ) -> None:
        super().__init__(config=config, policy=policy, facts=facts, out=run.home)
        self._run = run
        self._changes = changes

    def load(self, threads: int) -> dict[str, Any]:
        """Load the detectors; their device and type. Raises UsageError, FatalError."""
        set_torch_threads(threads)
        whole = build_stack(self._config)
        self._extending = ExtendingStack(whole, self._changes, self._config)
        self._stack = self._extending
        self._stack.load()
        self._metadata = {**self._facts.metadata(), **_joining(whole, self._changes)}
        self._pools = make_task_pools(self._config, threads)
        return {"device": str(self._stack.device), "dtype": str(self._stack.dtype).removeprefix("torch.")}

    def _moderate(
        self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode, count_row: Callable[[], None]
    ) -> Receipt:
        with self._working_set(memory) as (config, pools):
            return extend_shard(
                shard,
                run=self._run.stored(),
                home=self._run.home,
                config=config,
                stack=self._extending,
                metadata=self._metadata,
                pools=pools,
                poison=poison,
                extended=count_row,
            )

    def probe(self, shard: Shard, poison: Mapping[str, ItemError], memory: MemoryMode) -> int:
        """Score the items of a shard, write nothing; returns the rows."""
        judged = read_judged_frames(self._run.stored(), shard.shard_id, self._extending.known_labels)
        with self._working_set(memory) as (config, pools):
            rows = extend_items(shard.items, judged, config=config, stack=self._extending, pools=pools, poison=poison)
            return sum(1 for _ in rows)

    def to_json(self) -> str:
        """Configuration, policy, run and what is to be scored."""
        told = {"run": asdict(self._run), "changes": asdict(self._changes)}
        return json.dumps({**json.loads(super().to_json()), **told})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task from the output of `to_json`, not loaded."""
        fields = json.loads(text)
        run, changes = fields["run"], fields["changes"]
        return cls(
            config=Config.model_validate_json(fields["config"]),
            policy=Policy.model_validate_json(fields["policy"]),
            facts=RunFacts(**fields["facts"]),
            run=ExtendedRun(**{**run, "extensions": tuple(run["extensions"])}),
            changes=DetectorChanges(
                added=tuple(changes["added"]),
                again={name: (before, now) for name, (before, now) in changes["again"].items()},
                kept=tuple(changes["kept"]),
                helpers=tuple(changes["helpers"]),
                scored=tuple(changes["scored"]),
            ),
        )


def _joining(whole: Stack, changes: DetectorChanges) -> dict[str, str]:
    """What readers of the parts need to join them: the columns that a run of the whole stack would write."""
    columns = ("item_id", "frame", "time_s", "role", "parent", "box", *whole.labels, *whole.blob_sizes)
    embeddings = tuple(f"{name}.embedding" for name in whole.embedding_dims)
    return extension_metadata(
        scored=changes.scored,
        detectors=[slot.detector.name for slot in whole.slots],
        columns=(*columns, *embeddings, "regions"),
        replaces=bool(changes.again),
    )
