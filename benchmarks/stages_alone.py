"""The stages of a worker one after another, each timed by itself, on pictures of a folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from moderation.config.load import load_config
from moderation.config.model import Config
from moderation.detectors.views import TensorFrames
from moderation.lists.policy_file import load_whole_policy
from moderation.media import decode_item
from moderation.pipeline.items import decode_fetched
from moderation.pipeline.judging import judge_decoded
from moderation.planning.shards import make_shard
from moderation.policy.bind import bind
from moderation.policy.model import Policy
from moderation.results.layout import VERDICTS, VOTES
from moderation.results.receipts import commit_shard
from moderation.results.record import RunFacts
from moderation.results.tables import encode_table, verdicts_table, votes_table
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.scoring.votes import slice_votes
from moderation.sources.fetch import Fetcher
from moderation.sources.items import make_id
from moderation.types import Frame, Item, MediaObject

_Out = TypeVar("_Out")
THREADS = 1  # of the networks: those of OpenMP spin while they wait, on a busy machine for longer than they work
_DECODERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """What a worker needs to judge."""

    config: Config
    policy: Policy
    facts: RunFacts


def run_config(only: str = "") -> StageRun:
    """The default configuration, or one detector of it."""
    config = load_config(None, [f"stack.only=[{only}]"] if only else [])
    facts = RunFacts(run_id="0" * 16, stack_fingerprint="stack", policy_hash="policy")
    return StageRun(config=config, policy=load_whole_policy(Path(config.policy)), facts=facts)


def items_of(folder: Path) -> list[Item]:
    """An item a file, as a listing of the folder has them."""
    return [
        Item(
            item_id=make_id(str(path)),
            uri=str(path),
            objects=(MediaObject(uri=str(path), name=path.name, size_bytes=path.stat().st_size),),
        )
        for path in sorted(folder.iterdir())
    ]


class Alone:
    """A loaded stack and pictures: `measure` runs each stage over all of them."""

    def __init__(self, folder: Path, only: str = "") -> None:
        torch.set_num_threads(THREADS)
        self._run = run_config(only)
        self._items = items_of(folder)
        self.count = len(self._items)
        self._stack = build_stack(self._run.config)
        self._stack.load()
        self._policy = bind(
            self._run.policy, self._stack.labels, gated=self._stack.gated, disabled=self._stack.disabled
        )
        self._spent: dict[str, float] = {}

    def measure(self) -> dict[str, float]:
        """Processor seconds by stage, over all items."""
        config, stack, self._spent = self._run.config, self._stack, {}
        read = Fetcher(self._items, config.media)
        decode = partial(decode_item, config=config.media)
        payloads = [self._timed("fetch", partial(read, item)) for item in self._items]
        decoded = [
            self._timed("decode", partial(decode_fetched, item, each, decode))
            for item, each in zip(self._items, payloads, strict=True)
        ]
        rows = []
        for start in range(0, len(decoded), stack.batch_size):
            chunk = decoded[start : start + stack.batch_size]
            frames = [frame for each in chunk for frame in each.media.frames]
            votes = self._score(frames)
            ends = _ends([len(each.media.frames) for each in chunk])
            for each, (first, last) in zip(chunk, ends, strict=True):
                own = slice_votes(votes, first, last)
                rows.append(self._timed("judge", partial(judge_decoded, each, own, self._policy, stack.illegal)))
        with tempfile.TemporaryDirectory() as out:
            self._timed("write", partial(self._write, out, rows))
        return dict(self._spent)

    def _score(self, frames: Sequence[Frame]) -> Any:  # noqa: ANN401 - BatchVotes
        sizes, readings = [(f.width, f.height) for f in frames], [f.readings for f in frames]
        pixels = [frame.pixels for frame in frames]
        batch = self._timed("upload", partial(TensorFrames, pixels, sizes, self._stack.device, readings))
        with _cpu_seconds(self._stack) as own:
            votes = self._stack.score_batch(batch)
        for name, seconds in own.items():
            self._spent[f"score {name}"] = self._spent.get(f"score {name}", 0.0) + seconds
        return votes

    def _write(self, out: str, rows: list[Any]) -> None:
        stack, config, metadata = self._stack, self._run.config, self._run.facts.metadata()
        votes = votes_table(rows, stack.labels, stack.blob_sizes, stack.embedding_dims, metadata)
        verdicts = verdicts_table(rows, tuple(self._policy.policy.checks), metadata)
        parts = {VOTES: encode_table(votes, config.output), VERDICTS: encode_table(verdicts, config.output)}
        counts = {VOTES: votes.num_rows, VERDICTS: verdicts.num_rows}
        shard = make_shard(self._items)
        commit_shard(out, shard, parts=parts, rows=counts, format_=config.output.format, facts={})

    def run_bare(self) -> None:
        """Read, decode by threads, score, judge; a batch after another, nothing written."""
        config, stack = self._run.config, self._stack

        def read(item: Item) -> Any:  # noqa: ANN401 - Decoded
            payload = Path(item.uri).read_bytes()
            return decode_fetched(item, [payload], partial(decode_item, config=config.media))

        with ThreadPoolExecutor(_DECODERS) as pool:
            for start in range(0, self.count, stack.batch_size):
                chunk = list(pool.map(read, self._items[start : start + stack.batch_size]))
                votes = stack.score([each.media.frames[0] for each in chunk])
                for row, each in enumerate(chunk):
                    judge_decoded(each, slice_votes(votes, row, row + 1), self._policy, stack.illegal)

    def _timed(self, stage: str, call: Callable[[], _Out]) -> _Out:
        began_s = time.process_time()
        result = call()
        self._spent[stage] = self._spent.get(stage, 0.0) + time.process_time() - began_s
        return result


class _cpu_seconds:  # noqa: N801 - reads as a verb where it is used
    """Has a stack count processor seconds, of all threads, instead of the clock's, for the length of a block."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __enter__(self) -> dict[str, float]:
        self._run = self._stack._run
        self._own: dict[str, float] = {}

        def timed(slot: Any, *given: Any) -> Any:  # noqa: ANN401 - as `Stack._run`
            began_s = time.process_time()
            scored = self._run(slot, *given)
            self._own[slot.detector.name] = time.process_time() - began_s
            return scored

        self._stack._run = timed  # type: ignore[method-assign] # for the length of the block
        return self._own

    def __exit__(self, *_: object) -> None:
        self._stack._run = self._run  # type: ignore[method-assign] # as it was


def _ends(counts: Sequence[int]) -> list[tuple[int, int]]:
    ends, first = [], 0
    for count in counts:
        ends.append((first, first + count))
        first += count
    return ends
