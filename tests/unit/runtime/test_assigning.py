"""The deadline of a shard: no item that keeps its own time makes a worker overdue."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from moderation.config.model import MediaConfig, RuntimeConfig
from moderation.runtime.assigning import assign_step
from moderation.runtime.bisection import Bisection
from moderation.runtime.handout import Handout
from moderation.runtime.worker_pool import Assignment
from moderation.types import Item, MediaObject, Shard

# As a list names them: of unknown size.
ITEMS = tuple(Item(item_id=str(n), uri="u", objects=(MediaObject(uri="u", name="a.mp4"),)) for n in range(256))
SHARD = Shard(shard_id="s", items=ITEMS)


class _IdleWorker:
    assignments: Mapping[str, Assignment] = {}
    bisecting = False


def handed_out(threads: int, **options: Any) -> Assignment:
    given: list[Assignment] = []
    worker = _IdleWorker()
    pool = SimpleNamespace(
        workers=[worker], size=SimpleNamespace(threads=threads), submit=lambda _, assignment: given.append(assignment)
    )
    retries = SimpleNamespace(search_is_due=False, take_shard=lambda _: SHARD, count_shard=lambda: None)
    config, decode_timeout_s = RuntimeConfig(shards_in_flight=1, **options), MediaConfig().decode_timeout_s
    handout = Handout(
        pool=cast(Any, pool), retries=cast(Any, retries), config=config, decode_timeout_s=decode_timeout_s
    )
    handout.add(cast(Any, worker))
    handout.hand_out(0.0)
    return given[0]


@pytest.mark.parametrize(("threads", "options"), [(2, {}), (16, {}), (16, {"decode_threads": 3})])
def test_a_shard_of_items_that_each_take_all_their_time_is_not_overdue(threads: int, options: dict[str, Any]) -> None:
    """256 videos of 60 s on two threads were killed after 22 minutes, then bisected, and blamed one by one."""
    decode_threads = options.get("decode_threads", threads)
    assert handed_out(threads, **options).deadline_s > 256 * MediaConfig().decode_timeout_s / decode_threads


def test_a_step_of_a_search_has_the_time_of_one_thread() -> None:
    step = assign_step(Bisection(shard=SHARD), RuntimeConfig(shards_in_flight=1), 0.0, decode_s=60.0)
    assert step.timeout_s > 256 * 60


def test_a_time_that_is_set_holds() -> None:
    assert handed_out(2, shard_timeout_s=7.0).deadline_s == 7.0
