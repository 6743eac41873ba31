"""The driver's loop, with workers in memory and a clock that only moves when it waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.config.model import RuntimeConfig
from moderation.errors import FatalError, ItemError, UsageError
from moderation.runtime import driver, retries
from moderation.runtime.driver import drive
from moderation.runtime.shard_queue import PlanCounts, ShardQueue
from moderation.runtime.state import RunTally, Stop
from moderation.runtime.worker_pool import Assignment
from moderation.storage import StorageError
from moderation.types import Shard
from tests.fake_pool import DIED, DONE, HUNG, FakeClock, FakePool, Fate, guilty_items, in_turn, numbered_shards

CRASH = RuntimeError("device-side assert")


@dataclass(slots=True)
class EventLog:
    """A `Progress` that remembers."""

    shards: Counter[str] = field(default_factory=Counter)
    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    ticks: int = 0

    def shard_done(self, receipt: Mapping[str, Any], planned: PlanCounts) -> None:
        self.shards[receipt["shard_id"]] += 1

    def tick(self, planned: PlanCounts, in_flight: int) -> None:
        self.ticks += 1

    def note(self, event: str, message: str, **facts: object) -> None:
        self.events.append((event, message, facts))

    def messages(self, event: str) -> list[str]:
        return [message for name, message, _ in self.events if name == event]


@dataclass(slots=True, kw_only=True)
class Drive:
    """One run of the loop and all that it left."""

    pool: FakePool
    shards: Sequence[Shard]
    options: dict[str, Any] = field(default_factory=dict)
    stop: Stop = field(init=False)
    log: EventLog = field(default_factory=EventLog)
    tally: RunTally = field(default_factory=RunTally)
    kept: dict[str, ItemError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stop = Stop(clock=self.pool.clock)

    def run(self, enough: Any = lambda _: False) -> Drive:
        config = RuntimeConfig.model_validate({"shard_timeout_s": 100.0, **self.options})
        queue = listed(self.shards)
        self.tally = drive(self.pool, queue, config, self.log, self.stop, enough, clock=self.pool.clock,
                           keep_poison=self.kept.update)  # fmt: skip
        return self

    def everything_once(self) -> bool:
        return self.log.shards == Counter(s.shard_id for s in self.shards) and not self.tally.partial


def listed(shards: Sequence[Shard], committed: set[str] | None = None) -> ShardQueue:
    """A queue whose thread has listed all."""
    queue = ShardQueue(lambda: iter(shards), committed or set(), max_waiting=1000)
    while not queue.planned.ended:
        time.sleep(1e-4)
    return queue


def pool_of(script: Any = None, **options: Any) -> FakePool:
    return FakePool(clock=FakeClock(), **({} if script is None else {"script": script}), **options)


def test_every_shard_is_committed_once_and_counted() -> None:
    ran = Drive(pool=pool_of(), shards=numbered_shards(7, items=3)).run()
    assert ran.everything_once()
    assert (ran.tally.receipts, ran.tally.items, ran.tally.frames) == (7, 21, 21)
    assert ran.tally.max_worker_memory_bytes == 50
    assert not ran.tally.retries and ran.pool.closed


def test_more_shards_than_workers_go_breadth_first_and_never_over_shards_in_flight() -> None:
    in_flight: list[int] = []

    def script(worker: Any, _: Any) -> Fate:
        in_flight.append(len(worker.assignments))
        return DONE

    pool = pool_of(script, wanted=3, load_s=0.0)
    ran = Drive(pool=pool, shards=numbered_shards(20), options={"shards_in_flight": 2}).run()
    assert ran.everything_once()
    assert in_flight[:6] == [0, 0, 0, 1, 1, 1] and max(in_flight) == 1


def test_no_more_workers_than_shards_are_left() -> None:
    ran = Drive(pool=pool_of(wanted=50), shards=numbered_shards(3)).run()
    assert ran.everything_once() and ran.pool.max_at_once == 3


def test_what_earlier_calls_committed_is_not_run_again() -> None:
    pool, shards, log = pool_of(), numbered_shards(4), EventLog()
    drive(pool, listed(shards, {"s1", "s2"}), RuntimeConfig(), log, Stop(clock=pool.clock), clock=pool.clock)
    assert set(log.shards) == {"s0", "s3"}


def test_an_empty_plan_starts_no_shard() -> None:
    ran = Drive(pool=pool_of(), shards=[]).run()
    assert ran.everything_once() and not ran.pool.submitted


def test_what_the_listing_raises_ends_the_run_and_its_workers() -> None:
    def plan() -> Iterator[Shard]:
        yield from numbered_shards(2)
        raise UsageError("max_manifest_rows")

    pool = pool_of()
    queue = ShardQueue(plan, set(), max_waiting=10)
    with pytest.raises(UsageError, match="max_manifest_rows"):
        drive(pool, queue, RuntimeConfig(), EventLog(), Stop(clock=pool.clock), clock=pool.clock)
    assert pool.closed


@pytest.mark.parametrize(
    ("fate", "reason"), [(Fate("raised", error=CRASH), "raised"), (DIED, "died"), (Fate("unseen"), "died")]
)
def test_a_failed_shard_is_tried_again_after_a_wait(fate: Fate, reason: str) -> None:
    pool = pool_of(in_turn([fate]), wanted=1, load_s=0.0)
    ran = Drive(pool=pool, shards=numbered_shards(1)).run()
    assert ran.everything_once()
    assert ran.tally.retries == {reason: 1}
    # One second for each of two tries, beside the wait.
    assert pool.clock.now_s - 1000.0 >= 2.0 + retries.RETRY_WAIT_S


def test_a_worker_that_raised_is_replaced_and_its_other_shard_is_not_blamed() -> None:
    pool = pool_of(in_turn([Fate("raised", error=CRASH), Fate(after_s=50)]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(2)).run()
    assert ran.everything_once() and pool.started == 2
    assert ran.tally.retries == {"raised": 1, "neighbour": 1}


def test_storage_that_failed_keeps_the_worker() -> None:
    pool = pool_of(in_turn([Fate("raised", error=StorageError("throttled"))]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(2)).run()
    assert ran.everything_once() and pool.started == 1


def test_a_fatal_error_of_a_shard_ends_the_run() -> None:
    pool = pool_of(in_turn([Fate("raised", error=FatalError("output not writable"))]))
    with pytest.raises(FatalError, match="output not writable"):
        Drive(pool=pool, shards=numbered_shards(2)).run()
    assert pool.closed


def test_a_receipt_that_comes_with_its_workers_death_is_taken() -> None:
    # The second shard is done at the moment at which the first kills the process.
    pool = pool_of(in_turn([Fate("died", after_s=5), Fate(after_s=5)]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(2)).run()
    assert ran.everything_once()
    assert pool.commits["s1"] == 1


def test_both_shards_of_a_worker_that_died_are_blamed() -> None:
    pool = pool_of(in_turn([Fate("died", after_s=5), Fate(after_s=50)]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(2)).run()
    assert ran.everything_once() and ran.tally.retries == {"died": 2}


def test_a_node_that_went_away_blames_nobody() -> None:
    gone = Fate("unreachable", node_gone_after_s=10)
    ran = Drive(pool=pool_of(in_turn([gone] * 4), wanted=1), shards=numbered_shards(1)).run()
    assert ran.everything_once()
    assert ran.tally.retries == {"node": 4}
    assert ran.log.messages("worker_lost") == ["node lost"] * 4


def test_a_node_that_is_known_to_be_gone_is_not_doubted() -> None:
    ran = Drive(pool=pool_of(in_turn([Fate("died", node_gone_after_s=0)]), wanted=1), shards=numbered_shards(1)).run()
    assert ran.everything_once() and ran.tally.retries == {"node": 1}
    assert not ran.log.messages("worker_doubt")


def test_a_worker_out_of_reach_is_dead_when_its_node_stays() -> None:
    pool = pool_of(in_turn([Fate("unreachable")]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(1)).run()
    assert ran.everything_once() and ran.tally.retries == {"died": 1}
    assert pool.clock.now_s - 1000.0 > driver.DOUBT_S


def test_a_shard_whose_every_node_goes_away_is_blamed_in_the_end() -> None:
    gone = Fate("died", node_gone_after_s=0)
    pool = pool_of(guilty_items({"s0-1": gone}), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(1), options={"shard_attempts": 1})
    ran.pool.script = in_turn([gone] * (retries.MAX_LOSSES + 1))
    ran.run()
    assert ran.everything_once()
    assert ran.tally.retries["node"] == retries.MAX_LOSSES and ran.tally.retries["died"] == 1


def test_attempts_used_up_lead_to_a_bisection() -> None:
    pool = pool_of(in_turn([DIED, DIED, DIED]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(1), options={"shard_attempts": 3}).run()
    assert ran.everything_once() and ran.tally.retries == {"died": 3}
    assert [a.step.action for _, a in pool.submitted if a.step is not None] == ["run"]


@pytest.mark.parametrize("ending", ["died", "raised", "hung"])
def test_bisection_finds_the_one_item_and_the_rest_is_committed(ending: Any) -> None:
    pool = pool_of(guilty_items({"s1-5": Fate(ending, error=CRASH)}))
    ran = Drive(pool=pool, shards=numbered_shards(3, items=8)).run()
    assert ran.everything_once()
    poisoned = [facts["items"] for event, _, facts in ran.log.events if event == "poison"]
    code = {"died": "decoder_crashed", "raised": "score_failed", "hung": "timeout"}[ending]
    assert poisoned == [{"s1-5": code}]
    _, last = pool.submitted[-1]
    assert last.bisection is not None and set(last.bisection.poison) == {"s1-5"}


def test_a_worker_that_bisects_has_nothing_else() -> None:
    # While s0 is bisected for 30 s, s1 comes back from a lost node, and its next worker is slow to load.
    first_tries = {"s0": Fate("raised", error=StorageError("throttled")), "s1": Fate("died", 4, node_gone_after_s=0)}
    beside: list[int] = []

    def script(worker: Any, assignment: Any) -> Fate:
        beside.append(sum(a.bisection is not None for a in worker.assignments.values()))
        return first_tries.pop(assignment.shard.shard_id, Fate(after_s=30))

    pool = pool_of(script, wanted=2, starts=iter([DONE, DONE, Fate(after_s=5)]))
    ran = Drive(pool=pool, shards=numbered_shards(2), options={"shard_attempts": 1}).run()
    assert ran.everything_once() and ran.tally.retries == {"raised": 1, "node": 1}
    assert not any(beside)


def test_a_bisection_waits_for_a_worker_that_has_nothing_in_flight() -> None:
    beside: list[int] = []

    def script(worker: Any, assignment: Any) -> Fate:
        if assignment.bisection is not None:
            beside.append(len(worker.assignments))
        if assignment.shard.shard_id == "s1":
            return Fate(after_s=20)
        return DONE if assignment.bisection is not None else Fate("raised", error=StorageError("throttled"))

    ran = Drive(pool=pool_of(script, wanted=1), shards=numbered_shards(2), options={"shard_attempts": 1}).run()
    assert ran.everything_once() and beside == [0]


def test_a_shard_that_hangs_is_killed_and_its_neighbour_is_not_blamed() -> None:
    # In flight together; the neighbour came a moment later, so that its own deadline is not over yet.
    fates = [Fate(after_s=1), HUNG, Fate(after_s=3), Fate(after_s=1000)]
    pool = pool_of(in_turn(fates), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(4)).run()
    assert ran.everything_once()
    assert ran.tally.retries == {"timeout": 1, "neighbour": 1}
    assert ran.log.messages("worker_lost") == ["worker hung and was killed"]


def test_answers_that_lie_there_when_the_watchdog_looks_are_taken() -> None:
    # Killed at 200 s, because two in flight may wait for each other; the loop takes one answer and then looks.
    pool = pool_of(in_turn([Fate(after_s=200.1), Fate(after_s=200.1)]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(3)).run()
    assert ran.everything_once() and not ran.tally.retries
    assert pool.started == 1


def test_a_stop_hands_out_nothing_more_and_waits_for_what_is_in_flight() -> None:
    pool = pool_of(wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(10))
    ran.run(enough=lambda tally: tally.receipts >= 2)
    assert ran.tally.partial and ran.stop.reason == "enough"
    assert ran.tally.receipts == len(pool.submitted) < 10


def test_a_stop_does_not_wait_longer_than_its_grace() -> None:
    pool = pool_of(in_turn([DONE, Fate(after_s=90)]), wanted=2)
    ran = Drive(pool=pool, shards=numbered_shards(2), options={"grace_s": 30, "shards_in_flight": 1})
    ran.run(enough=lambda tally: tally.receipts >= 1)
    assert ran.tally.partial and ran.tally.receipts == 1
    assert 30 <= pool.clock.now_s - 1000.0 < 60


def test_a_second_request_ends_the_run_at_once() -> None:
    pool = pool_of(wanted=1, load_s=0.0)
    ran = Drive(pool=pool, shards=numbered_shards(1))

    def interrupted_twice(_worker: Any, _assignment: Any) -> Fate:
        ran.stop.request("SIGINT", 30)
        ran.stop.request("SIGINT", 30)
        return HUNG

    pool.script = interrupted_twice
    ran.run()
    assert ran.tally.partial and pool.clock.now_s <= 1000.0 + driver.POLL_S


def test_a_stop_after_the_last_receipt_leaves_nothing_out() -> None:
    ran = Drive(pool=pool_of(), shards=numbered_shards(4))
    ran.run(enough=lambda tally: tally.receipts >= 4)
    assert ran.everything_once()


def test_workers_that_fail_to_start_end_the_run() -> None:
    pool = pool_of(starts=iter([Fate("raised", error=CRASH)] * 100))
    with pytest.raises(FatalError, match=r"5 workers in a row did not start; the last: RuntimeError: device-side"):
        Drive(pool=pool, shards=numbered_shards(3)).run()


def test_a_configuration_that_is_wrong_is_told_as_it_is() -> None:
    pool = pool_of(starts=iter([Fate("raised", error=UsageError("no such detector"))]))
    with pytest.raises(UsageError, match="no such detector"):
        Drive(pool=pool, shards=numbered_shards(3)).run()


def test_starts_that_fail_between_others_that_succeed_are_no_reason_to_end() -> None:
    starts = [Fate("died"), Fate("died"), DONE, Fate("died"), Fate("died"), DONE, Fate("died"), DONE]
    pool = pool_of(in_turn([DIED, DIED, DIED]), starts=iter(starts), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(3)).run()
    assert ran.everything_once() and len(ran.log.messages("worker_failed")) >= 5


@pytest.mark.parametrize("fate", [Fate("unreachable"), Fate("died", node_gone_after_s=0)])
def test_starts_that_a_node_took_along_are_counted_apart(fate: Fate) -> None:
    patient = pool_of(starts=iter([fate] * (driver.MAX_LOST_STARTS - 1)), wanted=1)
    assert Drive(pool=patient, shards=numbered_shards(1)).run().everything_once()
    with pytest.raises(FatalError, match="100 workers in a row did not start"):
        Drive(pool=pool_of(starts=iter([fate] * 200), wanted=1), shards=numbered_shards(1)).run()


def test_a_worker_that_never_loads_is_replaced() -> None:
    pool = pool_of(starts=iter([HUNG]), wanted=1)
    ran = Drive(pool=pool, shards=numbered_shards(1)).run()
    assert ran.everything_once() and pool.started == 2
    assert ran.log.messages("worker_failed") == ["a worker did not start: not loaded after 1800 s"]


def test_no_room_is_said_now_and_then() -> None:
    pool = pool_of(starts=iter([HUNG]), wanted=1, placed=False)
    ran = Drive(pool=pool, shards=numbered_shards(1), options={"no_room_every_s": 60})
    ran.run(enough=lambda _: pool.clock.now_s > 1000.0 + 200)
    said = ran.log.messages("no_room")
    assert said == ["waiting for room in the cluster: a worker needs 1 CPU and 0 GPU"] * 3


def test_many_suspects_among_the_first_shards_are_the_fault_of_the_setup() -> None:
    ran = Drive(pool=pool_of(lambda _worker, _assignment: DIED), shards=numbered_shards(40))
    with pytest.raises(FatalError, match=r"shards failed, \d+ of them 2 times, and none succeeded; .* the set-up"):
        ran.run()
    assert not ran.log.shards
    assert ran.pool.started < 80


@pytest.mark.parametrize("wanted", [1, 2, 16])
@pytest.mark.parametrize("items", [1, 2, 50])
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("fate", [DIED, HUNG, Fate("raised", error=CRASH)])
def test_ten_shards_that_kill_and_are_named_first_cost_nobody_else_a_row(
    wanted: int, items: int, in_flight: int, fate: Fate
) -> None:
    killers = {f"s{n}-0": fate for n in range(10)}
    pool = pool_of(guilty_items(killers), wanted=wanted)
    ran = Drive(pool=pool, shards=numbered_shards(40, items=items), options={"shards_in_flight": in_flight})
    assert ran.run().everything_once()
    assert ran.tally.items == 40 * items
    assert ran.kept.keys() == killers.keys()


def test_suspects_are_searched_while_there_is_other_work() -> None:
    pool = pool_of(guilty_items({"s0-0": DIED}), wanted=2)
    ran = Drive(pool=pool, shards=numbered_shards(200)).run()
    assert ran.everything_once()
    assert list(ran.log.shards).index("s0") < 100


def test_a_run_that_was_cut_when_only_killers_were_left_comes_to_its_end() -> None:
    shards = numbered_shards(40, items=1)
    killers = {f"s{n}-0": DIED for n in range(12)}
    pool, log = pool_of(guilty_items(killers)), EventLog()
    done = {f"s{n}" for n in range(12, 40)}
    tally = drive(pool, listed(shards, done), RuntimeConfig(), log, Stop(clock=pool.clock), clock=pool.clock)
    assert set(log.shards) == {f"s{n}" for n in range(12)}
    assert not tally.partial


def test_what_an_earlier_call_set_aside_is_not_searched_again() -> None:
    killers = {f"s{n}-0": DIED for n in range(10)}
    found: dict[str, ItemError] = {}
    first = Drive(pool=pool_of(guilty_items(killers)), shards=numbered_shards(40)).run()
    pool, log = pool_of(guilty_items(killers)), EventLog()
    drive(
        pool,
        listed(numbered_shards(40)),
        RuntimeConfig(),
        log,
        Stop(clock=pool.clock),
        clock=pool.clock,
        poison=first.kept,
        keep_poison=found.update,
    )
    assert log.shards == Counter(f"s{n}" for n in range(40))
    assert pool.started == pool.wanted
    assert not found


def test_a_setup_that_is_broken_leaves_no_rows_and_no_poison() -> None:
    ran = Drive(pool=pool_of(lambda _worker, a: Fate(value="SIGSEGV") if is_isolated(a) else DIED, wanted=2),
                shards=numbered_shards(100, items=1))  # fmt: skip
    with pytest.raises(FatalError, match="the set-up"):
        ran.run()
    assert not ran.log.shards
    assert not ran.kept


def is_isolated(assignment: Assignment) -> bool:
    return assignment.step is not None and assignment.step.action == "isolated"


def test_suspects_that_are_few_beside_what_is_committed_are_the_fault_of_items() -> None:
    items = {f"s{n}-0": DIED for n in range(0, 80, 8)}
    ran = Drive(pool=pool_of(guilty_items(items), wanted=4), shards=numbered_shards(80), options={"shard_attempts": 1})
    ran.options["shards_in_flight"] = 1
    assert ran.run().everything_once()


FATES = st.one_of(
    st.builds(Fate, st.just("done"), st.floats(0.1, 120)),
    st.builds(
        Fate,
        st.sampled_from(["died", "unseen", "unreachable"]),
        st.floats(0.1, 120),
        node_gone_after_s=st.sampled_from([0.0, 5.0, 60.0, float("inf")]),
    ),
    st.just(HUNG),
    st.builds(Fate, st.just("raised"), st.floats(0.1, 5), st.sampled_from([CRASH, StorageError("throttled")])),
)
STARTS = st.one_of(st.just(DONE), st.sampled_from([DIED, HUNG, Fate("raised", error=CRASH), Fate("unreachable")]))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(FATES, max_size=40),
    st.lists(STARTS, max_size=8),
    st.none() | st.floats(0, 400),
)
def test_nothing_is_lost_and_nothing_is_counted_twice(
    shards: int, workers: int, in_flight: int, fates: list[Fate], starts: list[Fate], stop_after_s: float | None
) -> None:
    pool = pool_of(in_turn(fates), starts=iter(starts), wanted=workers)
    ran = Drive(pool=pool, shards=numbered_shards(shards, items=3), options={"shards_in_flight": in_flight})
    ends_s = float("inf") if stop_after_s is None else 1000.0 + stop_after_s
    try:
        ran.run(enough=lambda _: pool.clock.now_s >= ends_s)
    except FatalError:
        assert not ran.log.shards or max(ran.log.shards.values()) == 1
        return
    assert not ran.log.shards or max(ran.log.shards.values()) == 1
    assert ran.tally.partial == (len(ran.log.shards) < shards)
    assert ran.tally.receipts == len(ran.log.shards)
    # Whatever has a receipt lies in the output.
    assert set(ran.log.shards) <= set(pool.commits)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 95), max_size=4), st.integers(1, 3), st.sampled_from(["died", "raised", "hung"]))
def test_every_guilty_item_is_set_aside_and_no_other(guilty: set[int], workers: int, ending: Any) -> None:
    names = {f"s{n // 8}-{n % 8}" for n in guilty}
    script = guilty_items({name: Fate(ending, error=CRASH) for name in names})
    ran = Drive(pool=pool_of(script, wanted=workers), shards=numbered_shards(12, items=8)).run()
    assert ran.everything_once()
    poisoned = [item for event, _, facts in ran.log.events if event == "poison" for item in facts["items"]]
    assert sorted(poisoned) == sorted(names)
