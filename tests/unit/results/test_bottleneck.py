from __future__ import annotations

import pytest

from moderation.results.bottleneck import find_bottleneck, nest_waits, tell_bottleneck

BUSY = {"fetch": 4.0, "decode": 9.0, "score": 10.0, "judge": 0.5, "write": 0.5}


@pytest.mark.parametrize(
    ("waits", "step"),
    [
        ({"device:starved": 1.0, "device:lock": 8.0, "decode:blocked": 6.0}, "score"),
        ({"device:starved": 30.0, "decode:starved": 2.0, "fetch:blocked": 20.0}, "decode"),
        ({"device:starved": 30.0, "decode:starved": 25.0}, "fetch"),
        ({"device:starved": 30.0, "decode:starved": 25.0, "decode:memory": 99.0}, "fetch"),
        ({"device:starved": 30.0, "decode:memory": 10.0}, "memory"),
        ({"device:starved": 30.0, "decode:memory": 8.0}, "decode"),
    ],
)
def test_where_shards_spent_their_time_is_the_bottleneck(waits: dict[str, float], step: str) -> None:
    found = find_bottleneck(BUSY, waits)
    assert found is not None and found[0] == step


def test_the_share_is_of_the_time_that_shards_took_not_of_busy_threads() -> None:
    assert find_bottleneck({"decode": 100.0, "score": 30.0}, {"device:starved": 10.0}) == ("score", 0.75)


@pytest.mark.parametrize("step", ["judge", "write"])
def test_a_slow_last_step_is_named_too(step: str) -> None:
    assert find_bottleneck({**BUSY, step: 50.0}, {"device:starved": 1.0}) == (step, pytest.approx(50 / 61.5))


def test_the_sentence_says_what_and_how_much_and_what_would_help() -> None:
    said = tell_bottleneck({"score": 10.0}, {"device:starved": 30.0, "decode:starved": 25.0})
    assert said is not None
    assert said.startswith("reading: the device waited for frames 75%") and "runtime.fetch_threads" in said


@pytest.mark.parametrize("waits", [{}, {"device:starved": 0.0}])
def test_nothing_measured_is_nothing_said(waits: dict[str, float]) -> None:
    assert tell_bottleneck({}, waits) is None


def test_waits_are_told_by_who_waits() -> None:
    waits = {"device:starved": 1.00049, "device:lock": 2.0, "fetch:blocked": 0.0}
    assert nest_waits(waits) == {"device": {"starved": 1.0, "lock": 2.0}, "fetch": {"blocked": 0.0}}


def test_a_short_run_says_nothing() -> None:
    assert tell_bottleneck({"score": 1.0, "write": 8.0}, {"device:starved": 0.5}) is None
