from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import FatalError
from moderation.runtime.bisection import Bisection, StepEnding, max_deaths
from moderation.types import ErrorCode, Item, MediaObject, Shard


def make_shard(count: int) -> Shard:
    items = tuple(
        Item(item_id=f"i{n}", uri=f"u{n}", objects=(MediaObject(uri=f"u{n}", name="a.jpg"),)) for n in range(count)
    )
    return Shard(shard_id="s", items=items)


def search(shard: Shard, guilty: dict[str, str], *, alone: bool = True) -> tuple[Bisection, int]:
    """Carry a search out; guilty: item id -> how its isolated run ends. Returns it, and how often a process died."""
    bisection = Bisection(shard=shard)
    deaths = 0
    for _ in range(10_000):
        if bisection.done:
            return bisection, deaths
        step = bisection.step()
        here = [i.item_id for i in step.items if i.item_id in guilty and i.item_id not in bisection.poison]
        if step.action == "isolated":
            bisection.record(StepEnding.DONE, guilty[here[0]] if here and alone else "survived")
        elif here:
            deaths += 1
            bisection.record(StepEnding.DIED)
        else:
            bisection.record(StepEnding.DONE)
    raise AssertionError("the search does not end")


@given(st.integers(1, 300), st.data())
def test_one_guilty_item_is_found_in_logarithmically_many_deaths(count: int, data: st.DataObject) -> None:
    name = f"i{data.draw(st.integers(0, count - 1))}"
    bisection, deaths = search(make_shard(count), {name: "SIGABRT"})
    assert list(bisection.poison) == [name]
    assert bisection.poison[name].code is ErrorCode.DECODER_CRASHED
    assert "SIGABRT" in bisection.poison[name].detail
    assert deaths <= max_deaths(count)


@given(st.integers(2, 64), st.data())
def test_every_guilty_item_is_found_and_no_other(count: int, data: st.DataObject) -> None:
    names = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=5))
    bisection, deaths = search(make_shard(count), {f"i{n}": "SIGSEGV" for n in names})
    assert set(bisection.poison) == {f"i{n}" for n in names}
    assert deaths <= len(names) * max_deaths(count)


def test_a_death_that_does_not_come_again_spares_the_items() -> None:
    bisection = Bisection(shard=make_shard(4))
    assert bisection.step().action == "run"
    bisection.record(StepEnding.DIED)
    while bisection.step().action == "probe":
        bisection.record(StepEnding.DONE)
    bisection.record(StepEnding.DONE, "survived")
    assert bisection.step().action == "run"
    bisection.record(StepEnding.DONE)
    assert bisection.done and not bisection.poison


def test_an_item_that_kills_only_in_company_is_given_up_after_three_rounds() -> None:
    bisection, _ = search(make_shard(5), {"i3": "SIGABRT"}, alone=False)
    assert list(bisection.poison) == ["i3"]
    assert "not again when it was alone" in bisection.poison["i3"].detail


@pytest.mark.parametrize(
    ("isolated_ending", "code"),
    [("SIGKILL", ErrorCode.OUT_OF_MEMORY), ("timeout", ErrorCode.TIMEOUT), ("SIGSEGV", ErrorCode.DECODER_CRASHED)],
)
def test_the_isolated_run_decides_the_code(isolated_ending: str, code: ErrorCode) -> None:
    bisection, _ = search(make_shard(3), {"i1": isolated_ending})
    assert bisection.poison["i1"].code is code


def test_an_exception_that_no_item_was_blamed_for_keeps_its_words() -> None:
    bisection = Bisection(shard=make_shard(2))
    bisection.record(StepEnding.RAISED, "TypeError: one")
    bisection.record(StepEnding.RAISED, "TypeError: two")
    assert bisection.step().action == "probe"
    bisection.record(StepEnding.RAISED, "TypeError: three")
    assert bisection.poison["i0"].code is ErrorCode.SCORE_FAILED
    assert bisection.poison["i0"].detail == "TypeError: three"


def test_an_item_that_hangs_is_asked_again_alone_and_gets_timeout() -> None:
    bisection = Bisection(shard=make_shard(2))
    bisection.record(StepEnding.TIMEOUT)
    bisection.record(StepEnding.DONE)
    assert bisection.step().action == "probe" and [i.item_id for i in bisection.step().items] == ["i1"]
    bisection.record(StepEnding.TIMEOUT)
    assert bisection.poison["i1"].code is ErrorCode.TIMEOUT
    assert bisection.step().action == "run"


def test_a_shard_that_fails_with_every_item_set_aside_stops_the_run() -> None:
    bisection, _ = search(make_shard(1), {"i0": "SIGABRT"})
    bisection.done = False
    with pytest.raises(FatalError, match="no item in work"):
        bisection.record(StepEnding.DIED)


def test_a_suspect_shard_keeps_less_in_memory_and_has_smaller_batches_once_that_was_not_enough() -> None:
    bisection = Bisection(shard=make_shard(4))
    assert (bisection.step().action, bisection.step().memory) == ("run", "small")
    bisection.record(StepEnding.DIED)
    while bisection.step().action != "run":
        assert bisection.step().memory == "smallest"
        bisection.record(StepEnding.DONE, "survived")
    assert bisection.step().memory == "smallest" and not bisection.poison
