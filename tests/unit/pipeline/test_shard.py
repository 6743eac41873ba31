"""moderate_items and moderate_shard: one row per item whatever happens to it, in order; counters that add up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation import storage
from moderation.config.model import Config, MediaConfig, OutputConfig, RuntimeConfig, SourceConfig
from moderation.errors import FatalError, ItemError, ShardError
from moderation.pipeline.clock import Clock
from moderation.pipeline.counters import count_rows
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import Pools, make_pools
from moderation.pipeline.shard import moderate_shard
from moderation.planning.shards import make_shard
from moderation.results.receipts import committed_ids, read_receipts
from moderation.results.record import RunFacts
from moderation.results.tables import ItemRow, decode_table
from moderation.sources import open_source
from moderation.types import ErrorCode, Item, Kind, MediaObject, Shard, Status, Verdict
from tests.fake_detectors import Fake, animation, png, policy_for, pools_of, raise_on_red, stack_of

CONFIG = Config(runtime=RuntimeConfig(shards_in_flight=1), media=MediaConfig(decode_timeout_s=30))
FACTS = RunFacts(run_id="r1", stack_fingerprint="s1", policy_hash="p1")
TRUNCATED = png(255)[:-20]
Payload = bytes | ItemError


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    made = pools_of(3)
    yield made
    made.fetch.shutdown()  # type: ignore[attr-defined]  # of a ThreadPoolExecutor
    made.decode.shutdown()  # type: ignore[attr-defined]


def item(name: str, objects: int = 1, **changes: Any) -> Item:
    media = tuple(MediaObject(uri=f"{name}-{i}", name=f"{name}.png") for i in range(objects))
    return Item(**{"item_id": name, "uri": name, "objects": media, **changes})


def moderate(
    given_items: Sequence[Item], payloads: Mapping[str, Sequence[Payload]], pools: Pools, **options: Any
) -> list[ItemRow]:
    stack = options.pop("stack", None) or stack_of(Fake(blob=True), batch_size=3)
    config = options.pop("config", CONFIG)
    return list(
        moderate_items(
            given_items,
            config=config,
            stack=stack,
            policy=policy_for(stack),
            pools=pools,
            fetch=lambda i: payloads[i.item_id],
            **options,
        )
    )


def test_verdicts_come_in_the_order_of_the_items(pools: Pools) -> None:
    payloads = {"block": [png(250)], "review": [png(150, 255)], "pass": [png(0, 255)], "rest": [png(0)]}
    rows = moderate([item(name) for name in payloads], payloads, pools)
    assert [row.item.item_id for row in rows] == list(payloads)
    assert [row.judgement.verdict if row.judgement else None for row in rows] == [
        Verdict.BLOCK,
        Verdict.REVIEW,
        Verdict.PASS,
        Verdict.REVIEW,
    ]
    assert {row.status for row in rows} == {Status.OK}
    assert (rows[0].width, rows[0].height, rows[0].size_bytes) == (8, 8, len(png(250)))
    assert len(rows[0].content_hash or "") == 64


def test_what_cannot_be_judged_is_an_error_row_and_its_neighbours_are_judged(pools: Pools) -> None:
    payloads: dict[str, list[Payload]] = {
        "good": [png(0, 255)],
        "gone": [ItemError(ErrorCode.NOT_FOUND, "no such object")],
        "text": [b"this is text"],
        "empty": [b""],
        "broken": [png(0)[:40]],
        "good2": [png(0, 255)],
    }
    rows = moderate([item(name) for name in payloads], payloads, pools)
    assert [row.error_code for row in rows] == [
        None,
        ErrorCode.NOT_FOUND,
        ErrorCode.UNSUPPORTED_TYPE,
        ErrorCode.EMPTY,
        ErrorCode.CORRUPT,
        None,
    ]
    for row in rows[1:5]:
        assert row.status is Status.ERROR
        assert row.judgement is not None
        assert (row.judgement.verdict, row.judgement.reason) == (Verdict.REVIEW, f"error:{row.error_code}")
    assert rows[1].error_detail == "no such object"


def test_rows_are_the_same_where_decoding_has_processes_of_its_own() -> None:
    payloads: dict[str, list[Payload]] = {
        "good": [png(0, 255)],
        "album": [png(250), ItemError(ErrorCode.NOT_FOUND, "no such object")],
        "gone": [ItemError(ErrorCode.NOT_FOUND, "no such object")],
        "text": [b"this is text"],
        "broken": [png(0)[:40]],
        "moving": [animation(0, 250)],
    }
    items = [item(name, objects=len(given)) for name, given in payloads.items()]
    rows = []
    for decoder in ("thread", "process"):
        config = CONFIG.model_copy(update={"runtime": RuntimeConfig(shards_in_flight=1, decoder=decoder)})
        rows.append(moderate(items, payloads, make_pools(config, 2), config=config))
    for by_thread, by_process in zip(*rows, strict=True):
        assert by_thread.judgement == by_process.judgement
        assert (by_thread.error_code, by_thread.error_detail) == (by_process.error_code, by_process.error_detail)
        assert by_thread.frames_total == by_process.frames_total


def test_a_file_that_is_no_media_is_skipped_without_a_verdict(pools: Pools) -> None:
    readme = Item(item_id="r", uri="r", objects=(MediaObject(uri="r", name="README"),))
    (row,) = moderate([readme], {"r": [b"read me"]}, pools)
    assert (row.status, row.error_code, row.judgement) == (Status.SKIPPED, ErrorCode.NOT_MEDIA, None)


@pytest.mark.parametrize(("name", "code"), [("", ErrorCode.UNSUPPORTED_TYPE), ("notes.txt", ErrorCode.NOT_MEDIA)])
def test_a_nameless_cell_that_is_no_picture_is_an_error(pools: Pools, name: str, code: ErrorCode) -> None:
    # It is a cell of the bytes column, so it claims to be a picture.
    cell = MediaObject(uri="t.parquet", name=name, row_group=0, row=0, column="image")
    (row,) = moderate([Item(item_id="c", uri="t.parquet#row=0", objects=(cell,))], {"c": [b"this is text"]}, pools)
    assert row.error_code is code


def test_poisoned_items_are_not_touched(pools: Pools) -> None:
    rows = moderate(
        [item("a"), item("bad"), item("b")],
        {"a": [png(0)], "b": [png(0)]},  # asking for the bytes of `bad` would be a KeyError
        pools,
        poison={"bad": ItemError(ErrorCode.DECODER_CRASHED, "SIGSEGV")},
    )
    assert [row.error_code for row in rows] == [None, ErrorCode.DECODER_CRASHED, None]
    assert rows[1].error_detail == "SIGSEGV"


def test_an_item_that_is_an_error_by_its_source_keeps_its_code(pools: Pools) -> None:
    bad = item("bad", objects=0, error=ErrorCode.FORBIDDEN, error_detail="outside source.allow")
    (row,) = moderate([bad], {"bad": []}, pools)
    assert (row.error_code, row.error_detail) == (ErrorCode.FORBIDDEN, "outside source.allow")


def test_a_detector_that_fails_on_a_frame_costs_that_item_only(pools: Pools) -> None:
    payloads = {"a": [png(0, 255)], "bad": [png(240)], "b": [png(0, 255)]}
    stack = stack_of(Fake(spoil=raise_on_red(0.9)), batch_size=8)
    rows = moderate([item(name) for name in payloads], payloads, pools, stack=stack)
    assert [row.error_code for row in rows] == [None, ErrorCode.SCORE_FAILED, None]
    assert [row.judgement.verdict if row.judgement else None for row in rows] == [
        Verdict.PASS,
        Verdict.REVIEW,
        Verdict.PASS,
    ]
    assert rows[1].votes is None


def test_an_album_is_one_row_with_the_frames_of_all(pools: Pools) -> None:
    album = item("album", objects=3, kind=Kind.ALBUM)
    (row,) = moderate([album], {"album": [png(10), png(250), png(20)]}, pools)
    assert (row.kind, row.frames_total, row.status) == (Kind.ALBUM, 3, Status.OK)
    assert row.votes is not None
    assert (row.votes.scores[:, 0] * 255).round().astype(int).tolist() == [10, 250, 20]
    assert row.judgement is not None
    assert row.judgement.verdict is Verdict.BLOCK
    assert row.judgement.evidence[0].frame == 1


def test_an_album_with_a_missing_member_is_never_passed_but_may_be_blocked(pools: Pools) -> None:
    missing = ItemError(ErrorCode.NOT_FOUND, "gone")
    payloads = {"calm": [png(0, 255), missing], "hot": [png(250), missing]}
    calm, hot = moderate([item(n, objects=2, kind=Kind.ALBUM) for n in payloads], payloads, pools)
    assert (calm.status, calm.error_code, calm.content_hash) == (Status.ERROR, ErrorCode.NOT_FOUND, None)
    assert calm.judgement is not None
    assert (calm.judgement.verdict, calm.judgement.reason) == (Verdict.REVIEW, "error:not_found")
    assert hot.judgement is not None
    assert hot.judgement.verdict is Verdict.BLOCK


def test_an_item_longer_than_a_batch_is_scored_whole(pools: Pools) -> None:
    (row,) = moderate([item("long")], {"long": [animation(*range(10, 110, 10))]}, pools)
    assert row.kind is Kind.ANIMATION
    assert row.votes is not None
    assert (row.votes.scores[:, 0] * 255).round().astype(int).tolist() == list(range(10, 110, 10))
    assert row.votes.frames == tuple(range(10))


payload = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([png(0, 255), png(250), TRUNCATED, animation(1, 2, 3), b"", b"GIF89a", b"\xff\xd8\xff"]),
    st.sampled_from(ErrorCode).map(lambda code: ItemError(code, "why")),
)
fetched = st.lists(payload, max_size=4) | st.just(None)


@given(st.lists(st.tuples(st.integers(0, 3), fetched, st.none() | st.sampled_from(Kind)), max_size=7))
@settings(max_examples=60, deadline=None)
def test_rows_in_are_rows_out_whatever_the_fetch_returns(
    pools: Pools, facts: list[tuple[int, list[Payload] | None, Kind | None]]
) -> None:
    items = [item(str(i), objects=objects, kind=kind) for i, (objects, _, kind) in enumerate(facts)]

    def fetch(asked: Item) -> Sequence[Payload]:
        found = facts[int(asked.item_id)][1]
        if found is None:
            raise ItemError(ErrorCode.NOT_FOUND, "raised, not returned")
        return found

    stack = stack_of(Fake(), batch_size=3)
    rows = list(moderate_items(items, config=CONFIG, stack=stack, policy=policy_for(stack), pools=pools, fetch=fetch))
    assert [row.item for row in rows] == items
    for row in rows:
        assert (row.judgement is None) == (row.status is Status.SKIPPED) == (row.error_code is ErrorCode.NOT_MEDIA)
        assert (row.error_code is None) == (row.status is Status.OK)
        if row.status is Status.ERROR and row.judgement is not None:
            assert row.judgement.verdict is not Verdict.PASS
        if row.status is Status.OK:
            assert row.frames_scored > 0
    counts = count_rows(rows)
    for prefix in ("status:", "kind:"):
        assert sum(n for name, n in counts.items() if name.startswith(prefix)) == len(rows)
    assert counts.get("frames", 0) == sum(row.frames_scored for row in rows)


@given(st.lists(st.sampled_from(["ok", "hot", "error", "skipped"]), max_size=8), st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_counters_of_a_whole_are_the_sums_of_its_parts(pools: Pools, kinds: list[str], cut: int) -> None:
    bodies: dict[str, Payload] = {
        "ok": png(0, 255),
        "hot": png(250),
        "error": ItemError(ErrorCode.NOT_FOUND),
        "skipped": b"text",
    }
    items = [
        Item(item_id=str(i), uri=str(i), objects=(MediaObject(uri=str(i), name="file"),)) for i in range(len(kinds))
    ]
    rows = moderate(items, {str(i): [bodies[kind]] for i, kind in enumerate(kinds)}, pools)
    parts = Counter(count_rows(rows[:cut])) + Counter(count_rows(rows[cut:]))
    assert {k: v for k, v in count_rows(rows).items() if v} == dict(parts)


def test_a_detector_that_answers_only_some_labels_was_asked(pools: Pools) -> None:
    def spoil(scores: Any) -> Any:
        scores = scores.clone()
        scores[:, 1] = float("nan")
        return scores

    rows = moderate([item("a")], {"a": [png(1)]}, pools, stack=stack_of(Fake(spoil=spoil)))
    assert count_rows(rows)["asked:fake"] == 1


def test_the_middle_frames_hash_is_the_items(pools: Pools) -> None:
    stack = stack_of(Fake(), Fake("pdq", ("x",), blob=True))
    (row,) = moderate([item("a")], {"a": [animation(10, 20, 30)]}, pools, stack=stack)
    assert row.pdq == "14141414"


def test_what_a_failed_fetch_claims_was_not_read(pools: Pools) -> None:
    clock = Clock()
    sized = MediaObject(uri="gone", name="gone.png", size_bytes=10_000)
    items = [Item(item_id="gone", uri="gone", objects=(sized,)), item("a")]
    moderate(items, {"gone": [ItemError(ErrorCode.NOT_FOUND)], "a": [png(1)]}, pools, clock=clock)
    assert clock.bytes_read == len(png(1))
    assert all(clock.seconds[step] > 0 for step in ("fetch", "decode", "score", "judge"))


def test_a_fetch_that_fails_beyond_an_item_fails_the_shard_and_reads_no_more() -> None:
    asked: list[str] = []
    gate = threading.Event()

    def fetch(wanted: Item) -> Sequence[Payload]:
        asked.append(wanted.item_id)
        if wanted.item_id == "0":
            raise ShardError("storage is down")
        gate.wait(10)
        return [png(1)]

    pools = pools_of(1)
    stack = stack_of(Fake())
    rows = moderate_items(
        [item(str(i)) for i in range(9)], config=CONFIG, stack=stack, policy=policy_for(stack), pools=pools, fetch=fetch
    )
    with pytest.raises(ShardError, match="storage is down"):
        next(rows)
    gate.set()
    pools.fetch.shutdown()
    assert len(asked) <= 2


# ---- moderate_shard: with storage


def write_source(folder: Path) -> list[Item]:
    folder.mkdir()
    for name, body in {
        "a.png": png(0, 255),
        "b.png": png(250),
        "c.webp": animation(10, 20, 30, 40),
        "d.png": b"text",
        "README": b"text",
    }.items():
        (folder / name).write_bytes(body)
    gone = Item(item_id="gone", uri="gone", objects=(MediaObject(uri=str(folder / "gone.png"), name="gone.png"),))
    return [*open_source(str(folder), SourceConfig()), gone]


def judge_shard(shard: Shard, out: str, config: Config = CONFIG, pools: Pools | None = None, **options: Any) -> Any:
    stack = stack_of(Fake(blob=True, embedding_dim=3), batch_size=4, keep_embeddings=True)
    return moderate_shard(
        shard,
        out=out,
        config=config,
        stack=stack,
        policy=policy_for(stack),
        facts=FACTS,
        pools=pools or make_pools(config, 2),
        **options,
    )


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_shard_is_judged_and_committed(tmp_path: Path, format_: Any) -> None:
    shard = make_shard(write_source(tmp_path / "source"))
    config = CONFIG.model_copy(update={"output": OutputConfig(format=format_)})
    out = f"memory://pipeline-{tmp_path.name}"
    receipt = judge_shard(shard, out, config)
    assert committed_ids(out) == {shard.shard_id}
    assert list(read_receipts(out, {shard.shard_id})) == [receipt]
    assert receipt.rows == {"verdicts": 6, "votes": 6}
    assert receipt.counts["frames"] == 6
    assert receipt.counts["status:ok"] == 3
    assert receipt.counts["error:unsupported_type"] == receipt.counts["error:not_found"] == 1
    assert receipt.counts["status:skipped"] == 1
    assert receipt.bytes_read == sum(p.stat().st_size for p in (tmp_path / "source").iterdir())
    assert receipt.seconds["write"] > 0
    assert len(receipt.slowest) == 5 and set(receipt.slowest) < {i.item_id for i in shard.items}
    assert list(receipt.slowest.values()) == sorted(receipt.slowest.values(), reverse=True)
    name = f"part-{shard.shard_id}.{format_}"
    verdicts = decode_table(storage.read_bytes(storage.join(out, "verdicts", name)), format_)
    votes = decode_table(storage.read_bytes(storage.join(out, "votes", name)), format_)
    assert verdicts.column("item_id").to_pylist() == [i.item_id for i in shard.items]
    assert verdicts.schema.metadata[b"moderation.run_id"] == b"r1"
    assert verdicts.schema.metadata[b"moderation.stack_fingerprint"] == b"s1"
    assert np.allclose(votes.column("fake.red").to_numpy() * 255, [0, 250, 10, 20, 30, 40])
    assert votes.column("fake.embedding").null_count == 0


def test_a_shard_judged_again_leaves_the_same_bytes(tmp_path: Path) -> None:
    shard = make_shard(write_source(tmp_path / "source"))
    sums = [judge_shard(shard, str(tmp_path / f"out{n}")).sha256 for n in range(2)]
    assert sums[0] == sums[1]


def test_poison_in_a_shard_is_a_committed_error_row(tmp_path: Path) -> None:
    shard = make_shard(write_source(tmp_path / "source"))
    poison = {shard.items[0].item_id: ItemError(ErrorCode.TIMEOUT, "stalled the worker")}
    receipt = judge_shard(shard, str(tmp_path / "out"), poison=poison)
    assert receipt.counts["error:timeout"] == 1
    assert receipt.rows["verdicts"] == 6


def test_a_shard_whose_output_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    shard = make_shard(write_source(tmp_path / "source"))
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FatalError, match="cannot write"):
        judge_shard(shard, str(tmp_path / "file"))


def test_two_shards_at_once_are_judged_as_one_by_one(tmp_path: Path) -> None:
    items = write_source(tmp_path / "source")
    shards = [make_shard(items[:3]), make_shard(items[3:])]
    alone = [judge_shard(s, str(tmp_path / "alone")).sha256 for s in shards]
    pools = make_pools(CONFIG, 2)
    together: list[Any] = [None, None]

    def work(index: int) -> None:
        together[index] = judge_shard(shards[index], str(tmp_path / "together"), pools=pools).sha256

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
