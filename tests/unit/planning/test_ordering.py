"""`shards.order_by`: the largest values are judged first, and memory does not grow with the source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.config.model import Config, ShardConfig
from moderation.errors import UsageError
from moderation.planning import ordering as priority
from moderation.planning.ordering import cut_shards
from moderation.planning.plan import plan_shards
from moderation.planning.shards import make_shards
from moderation.types import Item, MediaObject
from tests.job_runs import REPOSITORY

ORDERED = ShardConfig(max_items=3, order_by="priority")


def items(priorities: Iterable[str | None]) -> list[Item]:
    return [
        Item(
            item_id=str(n),
            uri=f"u{n}",
            objects=(MediaObject(uri=f"u{n}", name="a.jpg", size_bytes=10),),
            attributes={} if value is None else {"priority": value},
        )
        for n, value in enumerate(priorities)
    ]


def order(priorities: Iterable[str | None], config: ShardConfig = ORDERED) -> list[list[str]]:
    return [[i.item_id for i in shard.items] for shard in cut_shards(items(priorities), config)]


def test_larger_values_come_first_and_an_item_without_one_counts_as_0() -> None:
    assert order(["1", None, "2.5", "-1", "", "2.5"]) == [["2", "5"], ["0"], ["1", "4"], ["3"]]


def test_items_of_one_priority_share_shards_in_the_order_of_the_source() -> None:
    assert order(["0", "9", "0", "9", "0", "9", "0", "9"]) == [["1", "3", "5"], ["7"], ["0", "2", "4"], ["6"]]


def test_without_an_order_shards_are_those_of_the_source() -> None:
    plain = ShardConfig(max_items=3)
    given = items(["1", "5", None, "7"])
    assert list(cut_shards(given, plain)) == list(make_shards(given, plain))


@given(st.lists(st.sampled_from([None, "0", "1", "2", "1e3", "-7"]), max_size=60), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_every_item_is_in_one_shard_of_its_priority(values: list[str | None], most: int) -> None:
    config = ShardConfig(max_items=most, order_by="priority")
    shards = list(cut_shards(items(values), config))
    ranks = [[priority.priority_of(i, "priority") for i in s.items] for s in shards]
    assert all(len(set(r)) == 1 for r in ranks)
    assert [r[0] for r in ranks] == sorted((r[0] for r in ranks), reverse=True)
    assert sorted(i.item_id for s in shards for i in s.items) == sorted(i.item_id for i in items(values))
    assert max((len(s.items) for s in shards), default=1) <= most


@pytest.mark.parametrize("value", ["urgent", "nan", "1,5"])
def test_a_value_that_is_no_number_names_its_item(value: str) -> None:
    with pytest.raises(UsageError, match=r"shards.order_by=priority: u1 has .* not a number"):
        order(["1", value])


def test_more_than_a_thousand_values_are_refused_in_words() -> None:
    assert len(order([str(n) for n in range(1000)])) == 1000
    with pytest.raises(UsageError, match="more than 1000 different values; round them"):
        order([str(n) for n in range(1001)])


def test_many_unfinished_shards_are_closed_early_but_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "MAX_HELD", 8)
    values = [str(n % 5) for n in range(40)]
    config = ShardConfig(max_items=7, order_by="priority")
    shards = order(values, config)
    assert shards == order(values, config)
    assert sorted(name for shard in shards for name in shard) == sorted(str(n) for n in range(40))
    monkeypatch.undo()
    assert len(order(values, config)) < len(shards)


def test_the_plan_hands_shards_out_in_order_and_resumes_so(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri,priority\n" + "".join(f"{n}.jpg,{n % 3}\n" for n in range(30)))
    config = Config(shards=ShardConfig(max_items=4, order_by="priority"))
    out = str(tmp_path / "out")
    undisturbed = list(cut_shards_of(manifest, config, str(tmp_path / "other")))
    taken = plan_shards(str(manifest), out, config)
    first = [next(taken), next(taken)]
    del taken  # the process dies: nothing more is written
    again = list(plan_shards(str(manifest), out, config))
    assert again[:2] == first
    assert again == undisturbed
    values = [s.items[0].attributes["priority"] for s in again]
    assert values == sorted(values, reverse=True)


def cut_shards_of(manifest: Path, config: Config, out: str) -> Iterable[object]:
    return plan_shards(str(manifest), out, config)


_MEASURE = """
import resource, sys, tracemalloc
from moderation.config.model import Config, ShardConfig
from moderation.planning.plan import plan_shards
from moderation.types import Item, MediaObject

count = int(sys.argv[2])
def made_up():
    for n in range(count):
        uri = f"s3://bucket/some/folder/of/items/{n:012d}.jpg"
        media = MediaObject(uri=uri, name=f"{n:012d}.jpg", size_bytes=100_000, etag=f"{n:032x}")
        yield Item(item_id=f"{n:032x}", uri=uri, objects=(media,), attributes={"priority": str(n % 100)})

config = Config(shards=ShardConfig(order_by="priority"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
planned, last = 0, None
for shard in plan_shards("made-up", sys.argv[1], config, open_items=made_up):
    rank = int(shard.items[0].attributes["priority"])
    assert last is None or rank <= last
    last, planned = rank, planned + len(shard.items)
assert planned == count
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_ordering_100_000_items_holds_a_bounded_part_of_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "out"), "100000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    # 25,000 items in unfinished shards take 75 MiB; all 100,000 as objects take 150 MiB or more.
    assert int(done.stdout) < 120, "MiB"
