"""The plan streams, and a run that died while listing resumes with the shards that it may have committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation import storage
from moderation.config.model import Config, ShardConfig
from moderation.errors import FatalError, UsageError
from moderation.planning.names import chunk_uri, plan_uri
from moderation.planning.plan import decode_shards, encode_shards, list_shards, plan_shards
from moderation.planning.shards import make_shards
from moderation.types import Item, MediaObject, Shard

CONFIG = Config(shards=ShardConfig(max_items=2))


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://plan-{tmp_path.name}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    add(folder, range(20))
    return folder


def add(folder: Path, numbers: range) -> None:
    for number in numbers:
        (folder / f"{number:03d}.jpg").write_bytes(b"x" * number)


def names(shards: list[Shard]) -> list[str]:
    return [item.objects[0].name for shard in shards for item in shard.items]


def test_the_first_shard_comes_before_the_listing_has_ended(source: Path, out: str) -> None:
    (source / "z").mkdir()
    shards = plan_shards(str(source), out, CONFIG)
    first = next(shards)
    (source / "z" / "late.jpg").write_bytes(b"x")
    assert names([first]) == ["000.jpg", "001.jpg"]
    assert names(list(shards))[-1] == "late.jpg"


def test_a_shard_is_handed_out_only_when_the_plan_holds_it(source: Path, out: str) -> None:
    shards = plan_shards(str(source), out, CONFIG)
    for _ in range(6):
        shard = next(shards)
        published = [
            s for i in range(9) if (data := storage.read_optional(chunk_uri(out, i))) for s in decode_shards(data)
        ]
        assert shard in published


def test_a_finished_plan_holds_every_shard_and_is_read_again(source: Path, out: str) -> None:
    shards = list(plan_shards(str(source), out, CONFIG))
    assert names(shards) == [f"{n:03d}.jpg" for n in range(20)]
    assert list(decode_shards(storage.read_bytes(plan_uri(out)))) == shards
    assert not storage.is_folder(storage.join(out, "plan"))
    add(source, range(20, 30))
    assert list(plan_shards(str(source), out, CONFIG)) == shards


@pytest.mark.parametrize("taken", [1, 2, 3, 4, 8, 9, 10])
def test_killed_while_listing_it_resumes_with_the_same_shards(source: Path, out: str, taken: int) -> None:
    undisturbed = list(list_shards(str(source), CONFIG))
    shards = plan_shards(str(source), out, CONFIG)
    committed = [next(shards) for _ in range(taken)]
    del shards  # the process dies: nothing more is written
    assert storage.read_optional(plan_uri(out)) is None or taken > 7
    again = list(plan_shards(str(source), out, CONFIG))
    assert again[:taken] == committed
    assert sorted(names(again)) == sorted(names(undisturbed))
    assert list(plan_shards(str(source), out, CONFIG)) == again


def test_resumed_with_a_changed_source_committed_shards_stay_and_new_items_follow(source: Path, out: str) -> None:
    shards = plan_shards(str(source), out, CONFIG)
    committed = [next(shards), next(shards)]
    del shards
    (source / "000a.jpg").write_bytes(b"new, between two that are planned")
    (source / "001.jpg").unlink()
    again = list(plan_shards(str(source), out, CONFIG))
    assert again[:2] == committed
    assert sorted(names(again)) == sorted([*(f"{n:03d}.jpg" for n in range(20)), "000a.jpg"])


def test_killed_twice_it_still_holds_every_item_once(source: Path, out: str) -> None:
    for taken in (1, 3):
        shards = plan_shards(str(source), out, CONFIG)
        for _ in range(taken):
            next(shards)
        del shards
    assert sorted(names(list(plan_shards(str(source), out, CONFIG)))) == [f"{n:03d}.jpg" for n in range(20)]


def test_a_limit_takes_the_first_items(source: Path, out: str) -> None:
    assert names(list(plan_shards(str(source), out, CONFIG, limit=5))) == [f"{n:03d}.jpg" for n in range(5)]
    assert names(list(list_shards(str(source), CONFIG, limit=5))) == [f"{n:03d}.jpg" for n in range(5)]


def test_a_limit_holds_over_a_resumed_listing(source: Path, out: str) -> None:
    shards = plan_shards(str(source), out, CONFIG, limit=7)
    next(shards)
    del shards
    assert sorted(names(list(plan_shards(str(source), out, CONFIG, limit=7)))) == [f"{n:03d}.jpg" for n in range(7)]


def test_listing_alone_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert len(list(list_shards(str(source), CONFIG))) == 10
    assert sorted(tmp_path.rglob("*")) == before


def test_a_source_that_is_not_there_is_told_at_once(tmp_path: Path, source: Path, out: str) -> None:
    with pytest.raises(UsageError, match="there is nothing there"):
        plan_shards(str(tmp_path / "none"), out, CONFIG)
    shards = plan_shards(str(source), out, CONFIG)
    next(shards)
    del shards
    with pytest.raises(UsageError, match="there is nothing there"):
        plan_shards(str(tmp_path / "none"), out, CONFIG)  # also when it resumes


def test_an_output_that_cannot_be_written_stops_the_run(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FatalError, match="cannot write"):
        next(plan_shards(str(source), str(tmp_path / "file"), CONFIG))


@given(st.lists(st.integers(1, 5), max_size=12))
@settings(max_examples=30, deadline=None)
def test_shards_round_trip(sizes: list[int]) -> None:
    def items() -> Iterator[Item]:
        for i, size in enumerate(sizes):
            objects = tuple(MediaObject(uri=f"u{i}", name=f"{j}.jpg", frame=j) for j in range(size))
            yield Item(item_id=str(i), uri=f"u{i}", objects=objects, attributes={"a": "b"})

    shards = list(make_shards(items(), ShardConfig(max_items=3)))
    assert list(decode_shards(encode_shards(shards))) == shards


def test_a_shard_that_spans_row_groups_stays_one() -> None:
    items = (Item(item_id=str(i), uri=str(i), objects=()) for i in range(9000))
    shards = list(make_shards(items, ShardConfig(max_items=6000)))
    assert list(decode_shards(encode_shards(shards))) == shards
