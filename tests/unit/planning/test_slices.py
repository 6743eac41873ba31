"""Slices: together they are one run, planned separately and merged to what an unsliced run leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation import storage
from moderation.config.model import Config, ShardConfig
from moderation.errors import UsageError
from moderation.pipeline.pools import Pools
from moderation.pipeline.shard import moderate_shard
from moderation.planning.names import chunk_uri, plan_uri
from moderation.planning.plan import decode_shards, list_shards, plan_shards
from moderation.planning.shards import make_shard
from moderation.planning.slices import Slice, find_slices, parse_slice, read_listing, slice_home
from moderation.results.finish import finish_run
from moderation.results.merge import merge_slices
from moderation.results.output import check_output
from moderation.results.receipts import commit_shard, committed_ids
from moderation.results.record import Output, RunFacts, run_id_of, write_record
from moderation.types import Item
from tests.fake_detectors import Fake, policy_for, pools_of, stack_of
from tests.job_runs import make_pictures, part_bytes, summary

CONFIG = Config(shards=ShardConfig(max_items=2))
THIRDS = [Slice(index=i, count=3) for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    made = pools_of(2)
    yield made
    made.fetch.shutdown()  # type: ignore[attr-defined]  # of a ThreadPoolExecutor
    made.decode.shutdown()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pictures(tmp_path_factory.mktemp("source"), 30, {3: (255, 0, 0), 8: (150, 255, 0)})
    (folder / "broken.jpg").write_text("a text that is called a picture")
    return folder


def judge_slice(source: Path, out: Path, pools: Pools, slice_: Slice | None = None, config: Config = CONFIG) -> Output:
    """What a backfill leaves, without Ray: plan, state, tables, receipts, summary."""
    stack = stack_of(Fake())
    identity = {"source": str(source), "stack": "s", "policy": "p", "shards": config.shards.model_dump(mode="json")}
    run = Output(
        source=str(source),
        out=str(out),
        home=str(out) if slice_ is None else slice_home(str(out), slice_),
        config=config,
        facts=RunFacts(run_id=run_id_of(identity), stack_fingerprint="s", policy_hash="p"),
        identity=identity,
    )
    committed = check_output(run)
    write_record(run, "running")
    ids = []
    for shard in plan_shards(run.source, run.home, config, slice_=slice_):
        ids.append(shard.shard_id)
        if shard.shard_id not in committed:
            policy = policy_for(stack)
            moderate_shard(shard, out=run.out, config=config, stack=stack, policy=policy, facts=run.facts, pools=pools)
    finish_run(run, ids, wall_s=1.0, partial=False, facts={"retries": {"died": 1}})
    return run


@pytest.fixture(scope="module")
def whole(source: Path, pools: Pools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    judge_slice(source, out, pools)
    return out


@pytest.fixture
def sliced(source: Path, pools: Pools, tmp_path: Path) -> Path:
    for slice_ in THIRDS:
        judge_slice(source, tmp_path / "out", pools, slice_)
    return tmp_path / "out"


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "3/0", "a/b", "3/8/2", "-1/4", "1/100000"])
def test_what_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="slice"):
        parse_slice(text)


def test_a_slice_is_read_as_written() -> None:
    assert parse_slice("3/8") == Slice(index=3, count=8)
    assert str(parse_slice("3/8")) == "3/8"
    assert slice_home("s3://b/out", parse_slice("3/8")) == "s3://b/out/slices/3-of-8"


@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_every_shard_is_in_exactly_one_slice(number: int, count: int) -> None:
    shard_id = f"{number:08x}" + "0" * 24
    assert sum(Slice(index=i, count=count).holds(shard_id) for i in range(1, count + 1)) == 1


def test_slices_plan_the_shards_of_the_whole_each_once(source: Path, tmp_path: Path) -> None:
    undivided = list(list_shards(str(source), CONFIG))
    planned = {p: list(plan_shards(str(source), slice_home(str(tmp_path), p), CONFIG, slice_=p)) for p in THIRDS}
    assert all(planned.values())
    assert sorted(s.shard_id for shards in planned.values() for s in shards) == sorted(s.shard_id for s in undivided)
    for slice_, shards in planned.items():
        assert list(list_shards(str(source), CONFIG, slice_=slice_)) == shards
        listing = read_listing(slice_home(str(tmp_path), slice_))
        assert listing is not None
        assert (listing.shards, listing.items) == (len(undivided), 31)
        assert [undivided[n] for n in listing.positions] == shards
    assert find_slices(str(tmp_path)) == THIRDS


def test_an_interrupted_listing_of_a_slice_begins_anew(source: Path, tmp_path: Path) -> None:
    home = slice_home(str(tmp_path), THIRDS[0])
    undisturbed = list(list_shards(str(source), CONFIG, slice_=THIRDS[0]))
    shards = plan_shards(str(source), home, CONFIG, slice_=THIRDS[0])
    next(shards)
    del shards  # the process dies: nothing more is written
    assert storage.read_optional(chunk_uri(home, 0)) is not None
    assert read_listing(home) is None
    assert list(plan_shards(str(source), home, CONFIG, slice_=THIRDS[0])) == undisturbed
    assert list(decode_shards(storage.read_bytes(plan_uri(home)))) == undisturbed


def test_merged_slices_are_the_unsliced_run(whole: Path, sliced: Path) -> None:
    assert part_bytes(sliced) == part_bytes(whole)
    assert not (sliced / "_SUCCESS").exists() and not (sliced / "plan.parquet").exists()
    merged = merge_slices(str(sliced))
    expected = summary(whole)
    counts = ("run_id", "state", "shards", "items", "frames", "verdicts", "status", "kinds", "errors", "checks")
    assert {k: merged[k] for k in counts} == {k: expected[k] for k in counts}
    assert merged == summary(sliced)
    assert merged["retries"] == {"died": 3} and set(merged["slices"]) == {"1/3", "2/3", "3/3"}
    assert merged["items_per_s"] is None
    plans = [list(decode_shards((out / "plan.parquet").read_bytes())) for out in (sliced, whole)]
    assert plans[0] == plans[1]
    state = json.loads((sliced / "run.json").read_text())
    assert (state["state"], state["identity"]) == ("done", json.loads((whole / "run.json").read_text())["identity"])
    assert {p.name for p in whole.iterdir()} | {"slices"} == {p.name for p in sliced.iterdir()}
    assert part_bytes(sliced) == part_bytes(whole)


def test_merging_again_changes_nothing(sliced: Path) -> None:
    first = merge_slices(str(sliced))
    assert merge_slices(str(sliced)) == first


def test_a_missing_slice_is_named(source: Path, pools: Pools, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no slices there"):
        merge_slices(str(tmp_path))
    judge_slice(source, tmp_path, pools, THIRDS[1])
    with pytest.raises(UsageError, match="slices 1/3, 3/3 not begun"):
        merge_slices(str(tmp_path))


def test_a_slice_that_is_not_done_is_named(sliced: Path) -> None:
    state = sliced / "slices" / "2-of-3" / "run.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "state": "partial"}))
    with pytest.raises(UsageError, match="slice 2/3 is partial"):
        merge_slices(str(sliced))
    assert not (sliced / "_SUCCESS").exists()


def test_a_receipt_that_is_gone_names_its_slice(sliced: Path) -> None:
    lost = next((sliced / "receipts").iterdir())
    lost.unlink()
    where = next(p for p in THIRDS if p.holds(lost.stem))
    with pytest.raises(UsageError, match=f"1 receipts are gone, of slice {where}"):
        merge_slices(str(sliced))


def test_slices_of_different_states_of_the_source_are_refused(source: Path, pools: Pools, tmp_path: Path) -> None:
    moving = make_pictures(tmp_path / "in", 12)
    for slice_ in THIRDS:
        judge_slice(moving, tmp_path / "out", pools, slice_)
        make_pictures(moving, 14)
    with pytest.raises(UsageError, match=r"the source changed.*1/3 \(12 items\) and 2/3 \(14\)"):
        merge_slices(str(tmp_path / "out"))


def test_a_slice_of_another_run_is_refused_from_the_start(source: Path, sliced: Path, pools: Pools) -> None:
    other = Config(shards=ShardConfig(max_items=5))
    with pytest.raises(UsageError, match=r"1-of-3: belongs to another run: shards.max_items was 2, is 5 now"):
        judge_slice(source, sliced, pools, Slice(index=1, count=4), other)
    with pytest.raises(UsageError, match="belongs to another run"):
        judge_slice(source, sliced, pools, None, other)


def test_shards_that_no_slice_plans_are_refused_or_pruned(whole: Path, sliced: Path) -> None:
    stray = make_shard([Item(item_id="x", uri="x", objects=())])
    parts = {"verdicts": b"v", "votes": b"w"}
    commit_shard(str(sliced), stray, parts=parts, rows={"verdicts": 1, "votes": 0}, format_="parquet", facts={})
    with pytest.raises(UsageError, match="1 committed shards are in no slice's plan"):
        merge_slices(str(sliced))
    merge_slices(str(sliced), prune=True)
    assert part_bytes(sliced) == part_bytes(whole)
    assert stray.shard_id not in committed_ids(str(sliced))
