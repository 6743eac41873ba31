"""A shard extended by detectors that its run lacks has the votes that the whole stack would have given it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from moderation.config.model import Config, MediaConfig, RuntimeConfig
from moderation.errors import ItemError, UsageError
from moderation.media import decode_item
from moderation.media.limits import MemberLimits
from moderation.media.objects import Payload
from moderation.pipeline.extending import extend_shard
from moderation.pipeline.pools import Pools
from moderation.pipeline.shard import moderate_shard
from moderation.planning.shards import make_shard
from moderation.results.intact import read_intact
from moderation.results.joined import extension_metadata, read_joined
from moderation.results.layout import EXTENSION_ITEMS, extension_home
from moderation.results.reader import StoredRun
from moderation.results.receipts import Receipt
from moderation.results.record import RunFacts
from moderation.scoring.extending import DetectorChanges, ExtendingStack, compare_detectors
from moderation.scoring.slots import describe_detectors
from moderation.scoring.stack import Stack
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject, Shard
from tests.fake_detectors import Fake, animation, png, policy_for, pools_of, stack_of

CONFIG = Config(
    runtime=RuntimeConfig(shards_in_flight=1), media=MediaConfig(decode_timeout_s=30), output={"format": "arrow"}
)
FACTS = RunFacts(run_id="r1", stack_fingerprint="s1", policy_hash="p1")
NAME = "0123456789abcdef"


class Brighter(Fake):
    """The same detector, of a later version."""

    version = "2"


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    made = pools_of(2)
    yield made
    made.fetch.shutdown()  # type: ignore[attr-defined]  # of a ThreadPoolExecutor
    made.decode.shutdown()  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """A run in `out`, extended there; a run of the whole stack in `full`."""

    out: Path
    full: Path
    shard: Shard
    changes: DetectorChanges
    stack: ExtendingStack
    receipt: Receipt

    def joined(self, **options: Any) -> pa.Table:
        return read_joined(str(self.out), self.shard.shard_id, "arrow", extensions=(NAME,), **options)

    def whole(self) -> pa.Table:
        return read_joined(str(self.full), self.shard.shard_id, "arrow", extensions=())

    def items(self) -> pa.Table:
        return read_intact(extension_home(str(self.out), NAME), EXTENSION_ITEMS, self.shard.shard_id, "arrow")


PICTURES = {
    "dark.png": png(10, 200),
    "warm.png": png(120, 20),
    "moving.webp": animation(20, 140, 250),
    "hot.png": png(250),
    "broken.png": png(0)[:40],
    "notes.txt": b"this is text",
}


def write(folder: Path, pictures: dict[str, bytes]) -> Shard:
    folder.mkdir(exist_ok=True)
    items = []
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
        uri = str(folder / name)
        items.append(Item(item_id=name, uri=uri, objects=(MediaObject(uri=uri, name=name),)))
    return make_shard(items)


def whole_stack(version: type[Fake] = Fake, second: str = "fake.red >= 0.4") -> Stack:
    """`gated` runs where `fake` is red; `reads` needs the results of `fake`; `spotted` marks regions and hashes."""
    return stack_of(
        version(regions=True),
        Fake("gated"),
        Fake("reads", requires=("fake",)),
        Fake("spotted", blob=True, embedding_dim=3),
        when={"gated": second},
        keep_embeddings=True,
        batch_size=3,
    )


def metadata_of(whole: Stack, changes: DetectorChanges) -> dict[str, str]:
    columns = ("item_id", "frame", "time_s", "role", "parent", "box", *whole.labels, *whole.blob_sizes)
    return {
        **FACTS.metadata(),
        **extension_metadata(
            scored=changes.scored,
            detectors=[slot.detector.name for slot in whole.slots],
            columns=(*columns, *(f"{n}.embedding" for n in whole.embedding_dims), "regions"),
            replaces=bool(changes.again),
        ),
    }


def config_of(stack: Stack) -> Config:
    return CONFIG.model_copy(update={"stack": stack._config})


def extend(
    tmp_path: Path,
    pools: Pools,
    before: Stack,
    whole: Stack,
    between: dict[str, bytes] | None = None,
    *,
    album: bool = False,
    later: Pools | None = None,
    **options: Any,
) -> Extended:
    """album: with one of two pictures. later: the pools that extend, where they are others."""
    shard = write(tmp_path / "in", PICTURES)
    if album:
        objects = tuple(item.objects[0] for item in shard.items[:2])
        shard = make_shard([*shard.items, Item(item_id="album", uri="album", objects=objects, kind=Kind.ALBUM)])
    out, full = tmp_path / "out", tmp_path / "full"
    for to, stack in ((out, before), (full, whole)):
        moderate_shard(
            shard, out=str(to), config=CONFIG, stack=stack, policy=policy_for(stack), facts=FACTS, pools=pools
        )
    write(tmp_path / "in", between or {})
    changes = compare_detectors(
        whole, describe_detectors(before.slots, config_of(before)), describe_detectors(whole.slots, config_of(whole))
    )
    some = ExtendingStack(whole, changes, config_of(whole))
    some.load()
    receipt = extend_shard(
        shard,
        run=StoredRun(out=str(out), record={}, format="arrow", shard_ids=()),
        home=extension_home(str(out), NAME),
        config=CONFIG,
        stack=some,
        metadata=metadata_of(whole, changes),
        pools=later or pools,
        **options,
    )
    return Extended(out=out, full=full, shard=shard, changes=changes, stack=some, receipt=receipt)


def test_joined_votes_are_those_of_the_whole_stack(tmp_path: Path, pools: Pools) -> None:
    done = extend(tmp_path, pools, stack_of(Fake(regions=True), batch_size=3), whole_stack())
    assert done.changes.added == done.changes.scored == ("gated", "reads", "spotted")
    joined, whole = done.joined(), done.whole()
    assert joined.column_names == whole.column_names
    assert joined.equals(whole)
    assert joined["gated.red"].null_count == 2  # the condition was met on all other frames
    assert done.receipt.rows == {"votes": 6, "items": 6}
    assert done.receipt.counts == {
        "asked:gated": 4, "asked:reads": 6, "asked:spotted": 6, "frames": 6, "status:ok": 6,
    }  # fmt: skip


def test_a_condition_reads_the_stored_votes_and_the_detector_itself_does_not_run(tmp_path: Path, pools: Pools) -> None:
    done = extend(
        tmp_path,
        pools,
        stack_of(Fake(regions=True), Fake("reads", requires=("fake",)), Fake("spotted", blob=True, embedding_dim=3),
                 keep_embeddings=True, batch_size=3),
        whole_stack(),
    )  # fmt: skip
    assert [slot.detector.name for slot in done.stack.slots] == ["gated"]
    assert done.stack.known_labels == ("fake.red",)
    assert done.joined().equals(done.whole())


def test_what_others_read_runs_again_and_its_votes_are_not_kept(tmp_path: Path, pools: Pools) -> None:
    before = stack_of(Fake(regions=True), Fake("gated"), Fake("spotted", blob=True, embedding_dim=3),
                      when={"gated": "fake.red >= 0.4"}, keep_embeddings=True, batch_size=3)  # fmt: skip
    done = extend(tmp_path, pools, before, whole_stack())
    assert (done.changes.scored, done.changes.helpers) == (("reads",), ("fake",))
    assert done.stack.kept_labels == ("reads.red", "reads.green")
    assert done.joined().equals(done.whole())


def test_a_changed_detector_is_scored_again_with_all_that_read_it(tmp_path: Path, pools: Pools) -> None:
    done = extend(tmp_path, pools, whole_stack(), whole_stack(Brighter))
    assert done.changes.again["fake"] == ("1", "2")
    assert done.changes.scored == ("fake", "gated", "reads")
    assert done.changes.kept == ("spotted",)
    joined = done.joined()
    assert joined.equals(done.whole())
    assert [len(regions) for regions in joined["regions"].to_pylist()] == [1] * 6


def test_a_changed_condition_is_a_changed_detector(tmp_path: Path, pools: Pools) -> None:
    done = extend(tmp_path, pools, whole_stack(), whole_stack(second="fake.red >= 0.9"))
    assert done.changes.scored == ("gated",)
    assert done.joined().equals(done.whole())


def test_another_content_gets_no_votes_and_loses_those_of_the_old_one(tmp_path: Path, pools: Pools) -> None:
    between = {"warm.png": png(5, 5), "moving.webp": animation(20, 140)}
    done = extend(tmp_path, pools, stack_of(Fake(regions=True), batch_size=3), whole_stack(), between)
    rows = {row["item_id"]: row for row in done.items().to_pylist()}
    assert [name for name, row in rows.items() if row["error_code"] is not None] == ["warm.png", "moving.webp"]
    assert rows["warm.png"]["error_code"] == ErrorCode.CHANGED
    assert "another one now" in rows["warm.png"]["error_detail"]
    assert done.joined()["item_id"].to_pylist() == ["dark.png", "hot.png"]
    everything = done.joined(with_changed=True)
    assert everything["item_id"].to_pylist() == done.whole()["item_id"].to_pylist()
    assert everything.filter(pa.compute.equal(everything["item_id"], "warm.png"))["reads.red"].to_pylist() == [None]
    assert done.receipt.counts["error:changed"] == 2


def test_the_same_content_under_another_time_is_the_same(tmp_path: Path, pools: Pools) -> None:
    between = {"warm.png": PICTURES["warm.png"]}
    done = extend(tmp_path, pools, stack_of(Fake(regions=True), batch_size=3), whole_stack(), between)
    assert done.joined().equals(done.whole())


def test_an_item_that_cannot_be_read_keeps_its_votes_and_says_why_it_has_no_others(
    tmp_path: Path, pools: Pools
) -> None:
    poison = {"hot.png": ItemError(ErrorCode.DECODER_CRASHED, "it killed the process")}
    done = extend(tmp_path, pools, stack_of(Fake(regions=True), batch_size=3), whole_stack(), poison=poison)
    row = done.items().filter(pa.compute.equal(done.items()["item_id"], "hot.png")).to_pylist()[0]
    assert (row["error_code"], row["error_detail"]) == ("decoder_crashed", "it killed the process")
    joined = done.joined()
    hot = joined.filter(pa.compute.equal(joined["item_id"], "hot.png")).to_pylist()[0]
    assert hot["fake.red"] > 0.9 and hot["reads.red"] is None and hot["regions"]


@pytest.mark.parametrize("code", [ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY])
def test_a_picture_of_an_album_that_is_not_decoded_this_time_is_no_other_content(
    tmp_path: Path, pools: Pools, code: ErrorCode
) -> None:
    def decode(item: Item, payloads: Sequence[Payload], limits: MemberLimits | None = None) -> Media:
        told = [*payloads[:1], *(ItemError(code, "this time") for _ in payloads[1:])]
        return decode_item(item, told, CONFIG.media, limits)

    later = replace(pools, decode_item=decode)
    done = extend(tmp_path, pools, stack_of(Fake(regions=True), batch_size=3), whole_stack(), album=True, later=later)
    (row,) = done.items().filter(pa.compute.equal(done.items()["item_id"], "album")).to_pylist()
    assert row["error_code"] == code and "this time" in row["error_detail"]
    joined = done.joined()
    votes = joined.filter(pa.compute.equal(joined["item_id"], "album")).to_pylist()
    assert [(vote["fake.red"] is None, vote["reads.red"]) for vote in votes] == [(False, None)] * 2


def test_some_columns_are_read_and_a_missing_one_is_named(tmp_path: Path, pools: Pools) -> None:
    done = extend(tmp_path, pools, stack_of(Fake(regions=True), batch_size=3), whole_stack())
    assert done.joined(columns=["reads.red", "fake.red"]).equals(done.whole().select(["reads.red", "fake.red"]))
    with pytest.raises(UsageError, match=r"no column nothing\.red"):
        done.joined(columns=["nothing.red"])


def test_frames_decoded_by_another_version_are_refused(tmp_path: Path) -> None:
    stack = whole_stack()
    now = describe_detectors(stack.slots, config_of(stack))
    with pytest.raises(UsageError, match="decoded by version other"):
        compare_detectors(stack, {**now, "decoding": "other"}, now)
