"""Shards: cover exactly once, in order, within bounds, named by content; the plan round-trips."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.config.model import ShardConfig
from moderation.planning.schema import PLAN_SCHEMA
from moderation.planning.shards import make_shard, make_shards, shards_from_table, shards_to_table, split
from moderation.types import ErrorCode, Item, Kind, MediaObject

texts = st.text(st.characters(codec="utf-8"), max_size=8)
maybe_int = st.none() | st.integers(0, 2**40)
objects = st.builds(
    MediaObject,
    uri=texts,
    name=texts,
    size_bytes=st.none() | st.integers(0, 500),
    etag=st.none() | texts,
    offset=maybe_int,
    row_group=st.none() | st.integers(0, 1000),
    row=maybe_int,
    column=st.none() | texts,
    frame=st.none() | st.integers(0, 2**31 - 1),
    time_s=st.none() | st.floats(0, 1e6),
)
items_with_ids = st.builds(
    Item,
    item_id=texts,
    uri=texts,
    objects=st.lists(objects, max_size=3).map(tuple),
    kind=st.none() | st.sampled_from(Kind),
    attributes=st.dictionaries(texts, texts, max_size=3),
    error=st.none() | st.sampled_from(ErrorCode),
    error_detail=texts,
)
item_lists = st.lists(items_with_ids, max_size=12, unique_by=lambda item: item.item_id)
configs = st.builds(ShardConfig, max_items=st.integers(1, 5), max_bytes=st.integers(1, 1500))


def item(name: str, size: int | None = 1, **changes: object) -> Item:
    media = MediaObject(uri=name, name=name, size_bytes=size)
    return Item(item_id=name, uri=name, objects=(media,), **changes)  # type: ignore[arg-type]  # test shorthand


@given(item_lists, configs)
def test_shards_cover_the_items_once_in_order_within_bounds(items: list[Item], config: ShardConfig) -> None:
    shards = list(make_shards(items, config))
    assert [i for shard in shards for i in shard.items] == items
    for shard in shards:
        assert 1 <= len(shard.items) <= config.max_items
        assert shard.size_bytes <= config.max_bytes or len(shard.items) == 1
    for this, following in pairwise(shards):
        grown = (len(this.items) + 1, this.size_bytes + following.items[0].size_bytes)
        assert grown[0] > config.max_items or grown[1] > config.max_bytes


@given(item_lists, configs)
def test_the_same_items_give_the_same_shards(items: list[Item], config: ShardConfig) -> None:
    assert list(make_shards(items, config)) == list(make_shards(iter(items), config))


@given(item_lists, configs)
@settings(max_examples=60)
def test_the_plan_round_trips(items: list[Item], config: ShardConfig) -> None:
    shards = list(make_shards(items, config))
    table = shards_to_table(iter(shards))
    assert table.schema.equals(PLAN_SCHEMA, check_metadata=True)
    assert list(shards_from_table(table)) == shards


@given(st.lists(items_with_ids, min_size=2, max_size=9))
def test_halves_hold_the_whole_and_are_named_by_content(items: list[Item]) -> None:
    first, second = split(make_shard(items))
    assert first.items + second.items == tuple(items)
    assert abs(len(first.items) - len(second.items)) <= 1
    assert (first, second) == (make_shard(first.items), make_shard(second.items))


def test_a_single_item_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="can't be split"):
        split(make_shard([item("a")]))


@pytest.mark.parametrize(
    "changed",
    [
        item("b"),
        item("a", 2),
        item("a", None),
        item("a", attributes={"k": "v"}),
        item("a", kind=Kind.VIDEO),
        item("a", error=ErrorCode.FORBIDDEN),
        Item(item_id="a", uri="a", objects=(MediaObject(uri="a", name="a", size_bytes=1, etag="2"),)),
        Item(item_id="a", uri="a", objects=(MediaObject(uri="a", name="a", size_bytes=1, offset=0),)),
        Item(item_id="a", uri="a", objects=()),
    ],
)
def test_whatever_changes_in_an_item_changes_the_shard(changed: Item) -> None:
    assert make_shard([changed]).shard_id != make_shard([item("a")]).shard_id


def test_ids_do_not_change_from_release_to_release() -> None:
    # A new id invalidates every receipt of a finished run: change this only with the schema version.
    assert make_shard([item("a"), item("b", None)]).shard_id == "4022fb94e1797a0e60d6af863768198d"


def test_a_shard_comes_before_its_source_has_ended() -> None:
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        while True:
            taken += 1
            yield item(str(taken))

    next(make_shards(endless(), ShardConfig(max_items=3)))
    assert taken == 4
