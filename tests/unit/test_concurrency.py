"""map_ahead: order, bounds by count and by bytes, what happens to the rest when something stops."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.concurrency import ByteBudget, map_ahead, usable_cores


class Watched:
    """Inputs that count how many were taken and not yet come out again."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.ahead: list[int] = []
        self.most_ahead = 0
        self.over_budget: list[tuple[int, ...]] = []

    def inputs(self, budget: int) -> Iterator[int]:
        for size in self.sizes:
            if self.ahead and sum(self.ahead) >= budget:
                self.over_budget.append(tuple(self.ahead))
            self.ahead.append(size)
            self.most_ahead = max(self.most_ahead, len(self.ahead))
            yield size


def run(call: Callable[[int], int], inputs: Iterator[int], *, max_ahead: int = 4, budget: int = 100) -> Iterator[int]:
    with ThreadPoolExecutor(3) as pool:
        yield from map_ahead(
            call,
            inputs,
            pool,
            max_ahead=max_ahead,
            budget_bytes=budget,
            expected_bytes=lambda size: size,
            held_bytes=lambda size: size,
        )


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 8), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_all_come_in_order_within_the_bounds(sizes: list[int], max_ahead: int, budget: int) -> None:
    watched = Watched(sizes)
    out = []
    for size in run(lambda size: size, watched.inputs(budget), max_ahead=max_ahead, budget=budget):
        out.append(size)
        watched.ahead.pop(0)
    assert out == sizes
    assert watched.most_ahead <= max_ahead
    # Whenever an input was taken beside others, those were within the budget.
    assert watched.over_budget == []


def test_order_holds_when_later_ones_end_first() -> None:
    third = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            assert third.wait(10)
        if number == 2:
            third.set()
        return number

    assert list(run(call, iter(range(6)))) == list(range(6))


def test_what_is_done_counts_by_its_true_size() -> None:
    taken: list[int] = []

    def inputs() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(1) as pool:
        made = map_ahead(
            lambda number: number, inputs(), pool, max_ahead=10, budget_bytes=100, expected_bytes=lambda _: 0,
            held_bytes=lambda _: 60,
        )  # fmt: skip
        assert next(made) == 0
        pool.submit(int).result()  # after all that went to the one thread before
        # Two of 60 are over 100, so no third may be taken beside them.
        before = len(taken)
        assert next(made) == 1
        assert len(taken) == before
        assert list(made) == list(range(2, 10))


def test_one_that_is_larger_than_the_budget_goes_through_alone() -> None:
    assert list(run(lambda size: size, iter([500, 500, 1]), budget=10)) == [500, 500, 1]


def test_nothing_is_taken_before_it_is_asked_for() -> None:
    watched = Watched([1, 2, 3])
    run(lambda size: size, watched.inputs(9))
    assert watched.ahead == []


def test_an_exception_comes_where_it_stands_and_ends_it() -> None:
    def call(number: int) -> int:
        if number == 2:
            raise ArithmeticError("two")
        return number

    made = run(call, iter(range(6)))
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ArithmeticError, match="two"):
        next(made)
    assert list(made) == []


def test_an_exception_of_the_inputs_is_raised() -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        list(run(lambda size: size, inputs()))


def test_closed_early_it_begins_nothing_more() -> None:
    began: list[int] = []
    gate = threading.Event()

    def call(number: int) -> int:
        began.append(number)
        if number:
            assert gate.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        made = map_ahead(
            call,
            iter(range(8)),
            pool,
            max_ahead=8,
            budget_bytes=100,
            expected_bytes=lambda _: 1,
            held_bytes=lambda _: 1,
        )
        assert next(made) == 0
        made.close()
        gate.set()
    # The one thread was at most in its second; the six others were cancelled.
    assert began in ([0], [0, 1])


class Waits:
    """What a stage says of its waiting."""

    def __init__(self) -> None:
        self.seconds = {"starved": 0.0, "blocked": 0.0}

    def __call__(self, kind: str, seconds: float) -> None:
        assert seconds >= 0
        self.seconds[kind] += seconds


def run_told(waits: Waits, call: Callable[[int], int], inputs: Iterator[int]) -> Iterator[int]:
    with ThreadPoolExecutor(1) as pool:
        yield from map_ahead(
            call,
            inputs,
            pool,
            max_ahead=2,
            budget_bytes=100,
            expected_bytes=lambda _: 1,
            held_bytes=lambda _: 1,
            waited=waits,
        )


def test_a_slow_source_starves() -> None:
    def slowly() -> Iterator[int]:
        time.sleep(0.1)
        yield 0

    waits = Waits()
    assert list(run_told(waits, lambda n: n, slowly())) == [0]
    assert waits.seconds["starved"] >= 0.1


def test_a_slow_consumer_blocks() -> None:
    ran = [threading.Event() for _ in range(4)]

    def work(n: int) -> int:
        ran[n].set()
        return n

    waits = Waits()
    outputs = run_told(waits, work, iter(range(4)))
    assert next(outputs) == 0
    # One more is allowed ahead; once it has run, nothing moves until the consumer does.
    assert ran[1].wait(10)
    time.sleep(0.1)
    assert not ran[2].is_set()
    assert list(outputs) == [1, 2, 3]
    assert waits.seconds["blocked"] > 0


def test_a_call_at_work_neither_starves_nor_blocks() -> None:
    def work(n: int) -> int:
        running.set()
        release.wait()
        return n

    def inputs() -> Iterator[int]:
        yield 0
        assert running.wait(10)
        time.sleep(0.2)
        release.set()
        yield 1

    running, release, waits = threading.Event(), threading.Event(), Waits()
    began_s = time.perf_counter()
    assert list(run_told(waits, work, inputs())) == [0, 1]
    # All but the time in which the source was slow and the call at work.
    assert sum(waits.seconds.values()) <= time.perf_counter() - began_s - 0.2


def test_threads_share_a_budget_and_never_hold_more_than_it() -> None:
    budget, held, most, lock = ByteBudget(100), 0, 0, threading.Lock()

    def work(size: int) -> None:
        nonlocal held, most
        with budget.take(size):
            with lock:
                held += min(size, 100)
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= min(size, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 70, 5, 100, 40, 60, 1, 250, 0, 99] * 10))
    assert held == 0
    assert 0 < most <= 100
    with budget.take(100):  # all are free again
        pass


def test_one_above_the_budget_runs_and_runs_alone() -> None:
    budget, alone, order = ByteBudget(10), threading.Event(), []

    def large() -> None:
        with budget.take(1000):
            order.append("large")
            alone.set()

    def small() -> None:
        with budget.take(1):
            order.append("small")

    with budget.take(6):
        first = threading.Thread(target=large)
        first.start()
        while not budget._queue:
            time.sleep(0.001)
        # There is room for it, but it came later: a large one is not overtaken for ever.
        second = threading.Thread(target=small)
        second.start()
        assert not alone.wait(0.05)
        assert order == []
    first.join()
    second.join()
    assert order == ["large", "small"]


def test_a_budget_is_given_back_by_who_fails() -> None:
    budget = ByteBudget(10)
    for _ in range(3):
        with pytest.raises(ValueError), budget.take(10):
            raise ValueError
    with budget.take(10):
        pass


class Large:
    """Something that a weak reference tells the end of."""


def test_what_was_handed_out_is_let_go_at_once_and_not_when_the_collector_runs() -> None:
    handed: list[weakref.ref[Large]] = []
    gc.disable()
    try:
        with ThreadPoolExecutor(2) as pool:
            outputs = map_ahead(
                lambda _: Large(),
                range(8),
                pool,
                max_ahead=3,
                budget_bytes=100,
                expected_bytes=lambda _: 1,
                held_bytes=lambda _: 1,
            )
            for output in outputs:
                handed.append(weakref.ref(output))
                del output
        assert [ref() for ref in handed] == [None] * 8
    finally:
        gc.enable()


def test_cores_are_those_of_the_affinity_or_of_the_quota_whichever_is_less(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == allowed
    for text, cores in (
        ("max 100000", allowed),
        ("50000 100000", 1),
        ("150000 100000", 1),
        ("9900000 100000", allowed),
    ):
        (tmp_path / "cpu.max").write_text(text)
        assert usable_cores(tmp_path) == cores, text
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, cores in (("-1\n", allowed), ("100000\n", 1)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        assert usable_cores(tmp_path) == cores, quota


def test_the_size_of_each_result_is_asked_once_however_many_wait() -> None:
    """Asking all that wait for each item held the interpreter's lock longer than decoding the item."""
    asked: list[int] = []

    def size(result: int) -> int:
        asked.append(result)
        return 1

    with ThreadPoolExecutor(3) as pool:
        ahead = map_ahead(
            lambda given: given,
            range(500),
            pool,
            max_ahead=200,
            budget_bytes=10**6,
            expected_bytes=lambda _: 1,
            held_bytes=size,
        )
        assert list(ahead) == list(range(500))
    assert sorted(asked) == list(range(500))


def test_what_was_not_taken_is_forgotten_with_the_first_error() -> None:
    class Result:
        """What a call returns; a plain object can't be referred to weakly."""

    made: list[weakref.ref[Result]] = []

    def call(number: int) -> Result:
        if number == 3:
            raise ValueError("3")
        result = Result()
        made.append(weakref.ref(result))
        return result

    gc.disable()  # a cycle would stay until the collector runs
    try:
        with ThreadPoolExecutor(2) as pool:
            ahead = map_ahead(
                call,
                range(20),
                pool,
                max_ahead=20,
                budget_bytes=100,
                expected_bytes=lambda _: 1,
                held_bytes=lambda _: 1,
            )
            with pytest.raises(ValueError, match="3"):
                list(ahead)
            del ahead
        assert [one for one in made if one() is not None] == []
    finally:
        gc.enable()
