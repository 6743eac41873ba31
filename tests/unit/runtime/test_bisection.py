from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import FatalError
from moderation.runtime.bisection import Ending, Suspicion, most_deaths
from moderation.types import ErrorCode, Item, MediaObject, Shard


def make_shard(count: int) -> Shard:
    items = tuple(
        Item(item_id=f"i{n}", uri=f"u{n}", objects=(MediaObject(uri=f"u{n}", name="a.jpg"),)) for n in range(count)
    )
    return Shard(shard_id="s", items=items)


def search(shard: Shard, guilty: dict[str, str], *, alone: bool = True) -> tuple[Suspicion, int]:
    """Carry a search out; guilty: item id -> how its autopsy ends. Returns it, and how often a process died."""
    suspicion = Suspicion(shard=shard)
    deaths = 0
    for _ in range(10_000):
        if suspicion.done:
            return suspicion, deaths
        step = suspicion.step()
        here = [i.item_id for i in step.items if i.item_id in guilty and i.item_id not in suspicion.poison]
        if step.action == "autopsy":
            suspicion.tell(Ending.DONE, guilty[here[0]] if here and alone else "survived")
        elif here:
            deaths += 1
            suspicion.tell(Ending.DIED)
        else:
            suspicion.tell(Ending.DONE)
    raise AssertionError("the search does not end")


@given(st.integers(1, 300), st.data())
def test_one_guilty_item_is_found_in_logarithmically_many_deaths(count: int, data: st.DataObject) -> None:
    name = f"i{data.draw(st.integers(0, count - 1))}"
    suspicion, deaths = search(make_shard(count), {name: "SIGABRT"})
    assert list(suspicion.poison) == [name]
    assert suspicion.poison[name].code is ErrorCode.DECODER_CRASHED
    assert "SIGABRT" in suspicion.poison[name].detail
    assert deaths <= most_deaths(count)


@given(st.integers(2, 64), st.data())
def test_every_guilty_item_is_found_and_no_other(count: int, data: st.DataObject) -> None:
    names = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=5))
    suspicion, deaths = search(make_shard(count), {f"i{n}": "SIGSEGV" for n in names})
    assert set(suspicion.poison) == {f"i{n}" for n in names}
    assert deaths <= len(names) * most_deaths(count)


def test_a_death_that_does_not_come_again_spares_the_items() -> None:
    suspicion = Suspicion(shard=make_shard(4))
    assert suspicion.step().action == "moderate"
    suspicion.tell(Ending.DIED)
    while suspicion.step().action == "probe":
        suspicion.tell(Ending.DONE)
    suspicion.tell(Ending.DONE, "survived")
    assert suspicion.step().action == "moderate"
    suspicion.tell(Ending.DONE)
    assert suspicion.done and not suspicion.poison


def test_an_item_that_kills_only_in_company_is_given_up_after_three_rounds() -> None:
    suspicion, _ = search(make_shard(5), {"i3": "SIGABRT"}, alone=False)
    assert list(suspicion.poison) == ["i3"]
    assert "not again when it was alone" in suspicion.poison["i3"].detail


@pytest.mark.parametrize(
    ("autopsy", "code"),
    [("SIGKILL", ErrorCode.OUT_OF_MEMORY), ("timeout", ErrorCode.TIMEOUT), ("SIGSEGV", ErrorCode.DECODER_CRASHED)],
)
def test_the_autopsy_decides_the_code(autopsy: str, code: ErrorCode) -> None:
    suspicion, _ = search(make_shard(3), {"i1": autopsy})
    assert suspicion.poison["i1"].code is code


def test_an_exception_that_no_item_was_blamed_for_keeps_its_words() -> None:
    suspicion = Suspicion(shard=make_shard(2))
    suspicion.tell(Ending.RAISED, "TypeError: one")
    suspicion.tell(Ending.RAISED, "TypeError: two")
    assert suspicion.step().action == "probe"
    suspicion.tell(Ending.RAISED, "TypeError: three")
    assert suspicion.poison["i0"].code is ErrorCode.SCORE_FAILED
    assert suspicion.poison["i0"].detail == "TypeError: three"


def test_an_item_that_hangs_is_asked_again_alone_and_gets_timeout() -> None:
    suspicion = Suspicion(shard=make_shard(2))
    suspicion.tell(Ending.TIMEOUT)
    suspicion.tell(Ending.DONE)
    assert suspicion.step().action == "probe" and [i.item_id for i in suspicion.step().items] == ["i1"]
    suspicion.tell(Ending.TIMEOUT)
    assert suspicion.poison["i1"].code is ErrorCode.TIMEOUT
    assert suspicion.step().action == "moderate"


def test_a_shard_that_fails_with_every_item_set_aside_stops_the_run() -> None:
    suspicion, _ = search(make_shard(1), {"i0": "SIGABRT"})
    suspicion.done = False
    with pytest.raises(FatalError, match="no item in work"):
        suspicion.tell(Ending.DIED)


def test_a_suspect_is_handled_with_care_and_in_smaller_batches_once_that_was_not_enough() -> None:
    suspicion = Suspicion(shard=make_shard(4))
    assert (suspicion.step().action, suspicion.step().care) == ("moderate", "careful")
    suspicion.tell(Ending.DIED)
    while suspicion.step().action != "moderate":
        assert suspicion.step().care == "smallest"
        suspicion.tell(Ending.DONE, "survived")
    assert suspicion.step().care == "smallest" and not suspicion.poison
