"""An album or a set of keyframes, decoded object by object, gives the row of the item decoded as a whole."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from moderation.config.model import Config, MediaConfig, RuntimeConfig
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.media.objects import Payload
from moderation.pipeline import members
from moderation.pipeline.clock import Clock
from moderation.pipeline.items import moderate_items
from moderation.pipeline.judging import judge_decoded
from moderation.pipeline.members import Member, TimeSpent, gather_items, split_item, split_members
from moderation.pipeline.pools import Pools
from moderation.results.tables import ItemRow
from moderation.scoring.batching import Decoded, score_items
from moderation.sources.content import content_hash
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject
from tests.drawn_media import jpegs, mp4
from tests.fake_detectors import Fake, animation, png, policy_for, pools_of, raise_on_red, stack_of

MIB = 1 << 20
CONFIG = Config(runtime=RuntimeConfig(shards_in_flight=1), media=MediaConfig(decode_timeout_s=30, max_frames=6))


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    made = pools_of(3)
    yield made
    made.fetch.shutdown()  # type: ignore[attr-defined]  # of a ThreadPoolExecutor
    made.decode.shutdown()  # type: ignore[attr-defined]


def clear_png(alpha: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGBA", (40, 30), (200, 10, 10, alpha)).save(sink, "PNG")
    return sink.getvalue()


PICTURES: tuple[Payload, ...] = (
    png(0, 255), png(250), png(255)[:-20], clear_png(0), clear_png(90), animation(1, 2, 3), jpegs(2)[1],
    jpegs(2)[0] + jpegs(2)[1], mp4(jpegs(2), frame_s=1.0), b"", b"a text",
    ItemError(ErrorCode.NOT_FOUND, "gone"), ItemError(ErrorCode.FORBIDDEN, "no"),
)  # fmt: skip


def item(count: int, kind: Kind | None, **changes: Any) -> Item:
    objects = tuple(MediaObject(uri=f"i-{n}", name=f"{n}.png", time_s=n * 2.0) for n in range(count))
    return Item(**{"item_id": "i", "uri": "i", "objects": objects, "kind": kind, **changes})


def judge(item: Item, payloads: Sequence[Payload], pools: Pools, config: Config = CONFIG, **options: Any) -> ItemRow:
    stack = options.pop("stack", None) or stack_of(Fake(blob=True, embedding_dim=2, regions=True), batch_size=3)
    rows = moderate_items(
        [item], config=config, stack=stack, policy=policy_for(stack), pools=pools, fetch=lambda _: payloads, **options
    )
    (row,) = rows
    return row


def judge_whole(item: Item, payloads: Sequence[Payload], config: Config = CONFIG) -> ItemRow:
    """The row by an item decoded as a whole."""
    read = [p for p in payloads if isinstance(p, bytes)]
    decoded = Decoded(
        item=item,
        media=decode_item(item, payloads, config.media),
        size_bytes=sum(map(len, read)),
        content_hash=content_hash(read) if len(read) == len(payloads) else None,
    )
    stack = stack_of(Fake(blob=True, embedding_dim=2, regions=True), batch_size=3)
    ((_, votes),) = score_items([decoded], stack, Clock())
    return judge_decoded(decoded, votes, policy_for(stack))


def assert_same(row: ItemRow, other: ItemRow) -> None:
    for field in fields(ItemRow):
        if field.name not in ("votes", "embeddings"):
            assert getattr(row, field.name) == getattr(other, field.name), field.name
    assert (row.votes is None) == (other.votes is None)
    if row.votes is not None and other.votes is not None:
        assert np.array_equal(row.votes.scores, other.votes.scores, equal_nan=True)
        assert replace(row.votes, scores=other.votes.scores) == other.votes
        assert row.embeddings is not None and other.embeddings is not None
        assert all(np.array_equal(a, other.embeddings[name]) for name, a in row.embeddings.items())


@given(
    st.lists(st.sampled_from(PICTURES), min_size=2, max_size=9).filter(
        lambda given: any(isinstance(p, bytes) for p in given)
    ),
    st.sampled_from([Kind.ALBUM, Kind.KEYFRAMES, None]),
    st.sampled_from(["off", "auto"]),
)
@settings(max_examples=60, deadline=None)
def test_the_row_is_that_of_the_item_decoded_as_a_whole(
    pools: Pools, payloads: list[Payload], kind: Kind | None, both: str
) -> None:
    media = CONFIG.media.model_copy(update={"tiles": both, "wholes": both})
    config = CONFIG.model_copy(update={"media": media})
    given_item = item(len(payloads), kind)
    assert_same(judge(given_item, payloads, pools, config), judge_whole(given_item, payloads, config))


def test_an_item_of_which_nothing_was_read_keeps_the_first_reason(pools: Pools) -> None:
    row = judge(item(3, Kind.ALBUM), [ItemError(ErrorCode.FORBIDDEN, "no"), *PICTURES[-2:]], pools)
    assert (row.kind, row.error_code, row.error_detail) == (Kind.ALBUM, ErrorCode.FORBIDDEN, "no")
    assert row.content_hash is None and row.size_bytes is None


def test_one_picture_that_cannot_be_scored_fails_the_whole_album(pools: Pools) -> None:
    stack = stack_of(Fake(spoil=raise_on_red(0.9)), batch_size=2)
    row = judge(item(3, Kind.ALBUM), [png(0, 255), png(250), png(0, 255)], pools, stack=stack)
    assert row.error_code is ErrorCode.SCORE_FAILED and row.votes is None


class Held:
    """Counts the pixels that are decoded and not scored yet."""

    def __init__(self) -> None:
        self.bytes = self.most = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count
            self.most = max(self.most, self.bytes)


def test_an_album_of_any_size_holds_a_bounded_number_of_pixels(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    sink = io.BytesIO()
    Image.new("RGB", (600, 448), (0, 255, 0)).save(sink, "PNG")
    frame_bytes = 3 * 600 * 448
    monkeypatch.setattr("moderation.media.album.MAX_FRAMES_BYTES", 10 * frame_bytes)

    def decode(wanted: Item, payloads: Sequence[Payload], *, limits: Any = None) -> Media:
        media = decode_item(wanted, payloads, CONFIG.media, limits)
        held.add(sum(frame.pixels.nbytes for frame in media.frames))
        return media

    def scored(scores: Any) -> Any:
        held.add(-frame_bytes * len(scores))
        return scores

    runtime = RuntimeConfig(shards_in_flight=1, frame_budget_bytes=16 * MIB, fetch_budget_bytes=MIB)
    config = CONFIG.model_copy(update={"runtime": runtime})
    count = 120
    row = judge(
        item(count, Kind.ALBUM),
        [sink.getvalue()] * count,
        replace(pools, decode_item=decode),
        config,
        stack=stack_of(Fake(spoil=scored), batch_size=4),
    )
    assert (row.frames_total, row.frames_scored, row.unseen, row.error_code) == (count, count, (), None)
    # What waits, what the three threads return at once, and a batch.
    assert held.most <= 17 * MIB + (3 + 4) * frame_bytes < count * frame_bytes


@given(st.lists(st.integers(0, 40) | st.none(), max_size=12), st.sampled_from([Kind.ALBUM, Kind.KEYFRAMES]))
def test_ranges_cover_the_objects_once_and_are_bounded(sizes: list[int | None], kind: Kind) -> None:
    objects = tuple(
        MediaObject(uri=str(n), name=str(n), size_bytes=size and size * MIB) for n, size in enumerate(sizes)
    )
    given_item = Item(item_id="i", uri="i", objects=objects, kind=kind)
    ranges = list(split_item(given_item, 32 * MIB, CONFIG.media))
    assert [o for s in ranges for o in s.request.objects] == list(objects)
    for part in ranges:
        assert len(sizes) < 2 or part.stop - part.start == 1 or part.expected_bytes <= 32 * MIB
    assert len({s.request.item_id for s in ranges}) == 1


def write_pictures(folder: Path, payloads: Mapping[str, bytes]) -> Item:
    for name, data in payloads.items():
        (folder / name).write_bytes(data)
    objects = tuple(MediaObject(uri=str(folder / name), name=name) for name in payloads)
    return Item(item_id="i", uri="i", objects=objects, kind=Kind.ALBUM)


def test_an_album_that_is_read_in_ranges_has_the_same_row(tmp_path: Path, pools: Pools) -> None:
    files = {f"{n}.png": png(n, 255) for n in range(9)} | {"x.webp": animation(*range(20, 40)), "y.jpg": jpegs(1)[0]}
    album = write_pictures(tmp_path, files)
    small = CONFIG.model_copy(update={"runtime": RuntimeConfig(shards_in_flight=2, fetch_budget_bytes=128 * MIB)})
    assert len(list(split_item(album, 16 * MIB, small.media))) == 6
    stack = stack_of(Fake(blob=True, embedding_dim=2, regions=True), batch_size=3)
    (row,) = moderate_items([album], config=small, stack=stack, policy=policy_for(stack), pools=pools)
    assert_same(row, judge_whole(album, list(files.values())))


def test_in_an_album_read_in_ranges_a_missing_picture_costs_itself_only(tmp_path: Path, pools: Pools) -> None:
    album = write_pictures(tmp_path, {f"{n}.png": png(n, 255) for n in range(9)})
    (tmp_path / "4.png").unlink()
    small = CONFIG.model_copy(update={"runtime": RuntimeConfig(shards_in_flight=2, fetch_budget_bytes=128 * MIB)})
    stack = stack_of(Fake())
    (row,) = moderate_items([album], config=small, stack=stack, policy=policy_for(stack), pools=pools)
    assert (row.error_code, row.frames_scored, row.frames_total) == (ErrorCode.NOT_FOUND, 8, 9)
    assert row.error_detail.startswith("1 of 9 members: not_found")


def test_the_time_of_an_item_is_shared_by_its_objects(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.pipeline.members.OBJECT_S", 0.001)
    config = CONFIG.model_copy(update={"media": CONFIG.media.model_copy(update={"decode_timeout_s": 0.05})})

    def decode(wanted: Item, payloads: Sequence[Payload], *, limits: Any = None) -> Media:
        threading.Event().wait(0.03)
        return decode_item(wanted, payloads, CONFIG.media, limits)

    row = judge(item(30, Kind.ALBUM), [png(0, 255)] * 30, replace(pools, decode_item=decode), config)
    assert row.error_code is ErrorCode.TIMEOUT
    assert 0 < row.frames_scored < 30


def test_a_set_of_keyframes_decodes_the_chosen_ones_only() -> None:
    frames, few = item(20, Kind.KEYFRAMES), CONFIG.media.model_copy(update={"frame_budget": 6})
    (part,) = split_item(frames, MIB * 999, few)
    split = list(split_members(part, [png(0)] * 20, few))
    assert [m.position for m in split if m.wanted] == [0, 4, 8, 11, 15, 19]


def test_items_of_one_object_are_passed_on_as_they_come() -> None:
    alone = Decoded(item=item(1, None), media=Media(kind=Kind.IMAGE), size_bytes=1, content_hash="x")
    assert list(gather_items([(alone, None)], CONFIG.media)) == [(alone, None)]
    assert Member(item=item(1, None), position=None, payloads=[b""], spent=TimeSpent()).request == item(1, None)


@pytest.mark.parametrize("kind", [Kind.KEYFRAMES, Kind.ALBUM])
def test_what_is_decoded_of_a_large_item_is_told_once(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: asked.append(1) or function(*args)

    for name in ("chosen_positions", "claimed_limits", "member_limits"):
        monkeypatch.setattr(members, name, counted(getattr(members, name)))
    objects = tuple(MediaObject(uri="x", name="a.png", frame=n, time_s=float(n)) for n in range(1000))
    large = Item(item_id="a", uri="u", objects=objects, kind=kind)
    parts = list(split_item(large, 8 * MIB, CONFIG.media))
    found = [m for part in parts for m in split_members(part, [b""] * (part.stop - part.start), CONFIG.media)]
    assert [m.position for m in found] == list(range(1000)) and len(parts) > 100
    assert sum(m.wanted for m in found) == (201 if kind is Kind.KEYFRAMES else 1000)
    assert len(asked) <= 2
