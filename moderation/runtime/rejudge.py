"""A rejudge on a cluster: each part is a Ray task, which commits the part itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from typing import Any, Final

import ray

from moderation.analysis.part_processes import use_one_core
from moderation.analysis.rejudge import Rejudged, cut_chunks, rejudge
from moderation.analysis.rejudge_parts import RejudgeSettings, rejudge_shards
from moderation.config.model import RuntimeConfig
from moderation.errors import FatalError, ModerationError, one_line
from moderation.lean_imports import leave_pandas_out
from moderation.runtime.cluster import connect, leave

_TASKS_PER_CORE: Final = 4  # submitted ahead; more would only lengthen Ray's own queues
_RETRIES: Final = 3  # of a task whose process or node died; it commits the same bytes again


def rejudge_on_cluster(
    out: str, policy_path: str | None, to: str, address: str, *, as_of: date | None = None, workers: int | None = None
) -> Rejudged:
    """As `analysis.rejudge.rejudge`, by the cluster at `address`. OUT and TO must be reachable from every node.

    workers: tasks that run at once; None: one per core of the cluster. Raises FatalError when there is no cluster.
    """
    return rejudge(out, policy_path, to, as_of=as_of, judge_parts=partial(_judge_on_cluster, address, workers))


def _judge_on_cluster(address: str, workers: int | None, settings: RejudgeSettings, shard_ids: Sequence[str]) -> None:
    ours = connect(RuntimeConfig(ray_address=address))
    try:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_judge_chunk)
        cores = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        chunks = iter(cut_chunks(shard_ids))
        told = settings.to_json()
        ahead = cores if workers else _TASKS_PER_CORE * cores
        running = [task.remote(told, list(chunk)) for chunk in _take(chunks, ahead)]
        while running:
            (done,), running = ray.wait(running, num_returns=1)
            _raise_as_ours(done)
            running += [task.remote(told, list(chunk)) for chunk in _take(chunks, 1)]
    finally:
        if ours:
            leave()


def _judge_chunk(told: str, shard_ids: Sequence[str]) -> int:
    use_one_core()
    leave_pandas_out()
    return rejudge_shards(told, shard_ids)


def _take(chunks: Iterator[Sequence[str]], count: int) -> Iterator[Sequence[str]]:
    for _, chunk in zip(range(count), chunks, strict=False):
        yield chunk


def _raise_as_ours(done: Any) -> None:  # noqa: ANN401 - Ray is untyped
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ModerationError):
            raise cause from None
        raise FatalError(f"a task of the rejudge failed: {one_line(error, 300)}") from None
    except ray.exceptions.RayError as error:
        raise FatalError(f"a task of the rejudge was lost {_RETRIES} times: {one_line(error, 300)}") from None
