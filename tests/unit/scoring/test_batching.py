"""score_items: frames of several items share a batch, a long item spans several, a failure stays with its item."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.errors import ItemError, ShardError
from moderation.pipeline.clock import Clock
from moderation.scoring.batching import Decoded, score_items
from moderation.scoring.stack import Stack
from moderation.scoring.votes import BatchVotes
from moderation.types import ErrorCode, Item, Kind, Media
from tests.fake_detectors import Fake, frame, raise_on_red, stack_of


def decoded(name: str, reds: Iterable[int]) -> Decoded:
    frames = tuple(frame(red, index=i) for i, red in enumerate(reds))
    item = Item(item_id=name, uri=name, objects=())
    media = Media(kind=Kind.VIDEO, frames=frames, frames_total=len(frames))
    return Decoded(item=item, media=media, size_bytes=1, content_hash=None)


def score(items: Sequence[Sequence[int]], stack: Stack) -> list[list[int] | ErrorCode | None]:
    """The reds of each item according to the votes, or its error; also checks the order of the items."""
    given_items = [decoded(str(i), reds) for i, reds in enumerate(items)]
    scored = list(score_items(iter(given_items), stack, Clock()))
    assert [found for found, _ in scored] == given_items
    out: list[list[int] | ErrorCode | None] = []
    for _, votes in scored:
        if isinstance(votes, BatchVotes):
            out.append([round(float(row[0]) * 255) for row in votes.scores])
        else:
            out.append(votes.code if isinstance(votes, ItemError) else None)
    return out


@given(st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=12), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_every_item_gets_its_own_frames_votes(items: list[list[int]], batch_size: int) -> None:
    detector = Fake()
    assert score(items, stack_of(detector, batch_size=batch_size)) == [reds or None for reds in items]
    frames = sum(map(len, items))
    full, rest = divmod(frames, batch_size)
    assert detector.batches == [batch_size] * full + [rest] * bool(rest)


def test_regions_blobs_and_embeddings_stay_with_their_frames() -> None:
    stack = stack_of(Fake(blob=True, regions=True, embedding_dim=3), batch_size=2, keep_embeddings=True)
    (_, one), (_, two) = score_items(
        iter([decoded("one", [10]), decoded("two", [20, 30, 40, 50])]), stack, Clock()
    )  # fmt: skip
    assert isinstance(one, BatchVotes)
    assert isinstance(two, BatchVotes)
    assert one.blobs == {"fake.hash": (bytes([10]) * 4,)}
    assert two.blobs == {"fake.hash": tuple(bytes([red]) * 4 for red in (20, 30, 40, 50))}
    assert [round(r[0].score * 255) for r in two.regions] == [20, 30, 40, 50]
    assert two.embeddings["fake"].shape == (4, 3)
    assert np.allclose(np.linalg.norm(two.embeddings["fake"].astype(np.float32), axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_a_detector_that_raises_on_one_frame_fails_only_its_item(batch_size: int) -> None:
    stack = stack_of(Fake(spoil=raise_on_red(0.9)), batch_size=batch_size)
    items = [[1, 2], [3], [4, 250, 5], [], [6], [255], [7, 8]]
    failed = ErrorCode.SCORE_FAILED
    assert score(items, stack) == [[1, 2], [3], failed, None, [6], failed, [7, 8]]


def test_the_failure_is_told() -> None:
    stack = stack_of(Fake(spoil=raise_on_red(0.9)))
    ((_, failed),) = score_items(iter([decoded("a", [255])]), stack, Clock())
    assert isinstance(failed, ItemError)
    assert failed.detail == "RuntimeError: too red"


def test_a_frame_that_does_not_fit_in_memory_is_out_of_memory() -> None:
    def spoil(scores: torch.Tensor) -> torch.Tensor:
        if bool((scores[:, 0] > 0.5).any()):
            raise torch.cuda.OutOfMemoryError("no room")
        return scores

    assert score([[1], [200], [2]], stack_of(Fake(spoil=spoil))) == [[1], ErrorCode.OUT_OF_MEMORY, [2]]


def test_a_device_that_is_gone_fails_the_shard_rather_than_every_item() -> None:
    def spoil(scores: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("an illegal memory access")

    with pytest.raises(ShardError, match="illegal memory access"):
        score([[1], [2]], stack_of(Fake(spoil=spoil)))


def test_batches_stay_bounded_when_another_shard_shrinks_them() -> None:
    detector = Fake()
    stack = stack_of(detector, batch_size=8)

    def items() -> Iterable[Decoded]:
        for i in range(20):
            if i == 6:
                stack.batch_size = 4  # as another shard's thread does after running out of memory
            yield decoded(str(i), [i])

    assert len(list(score_items(items(), stack, Clock()))) == 20
    # Six frames were gathered, and a seventh; the stack cuts the batch.
    assert detector.batches == [4, 3, 4, 4, 4, 1]


def test_an_item_comes_out_as_soon_as_it_is_scored() -> None:
    taken = 0

    def items() -> Iterable[Decoded]:
        nonlocal taken
        while True:
            taken += 1
            yield decoded(str(taken), [1])

    next(iter(score_items(items(), stack_of(Fake(), batch_size=3), Clock())))
    assert taken == 3


def test_the_clock_counts_scoring() -> None:
    clock = Clock()
    list(score_items(iter([decoded("a", [1])]), stack_of(Fake()), clock))
    assert clock.seconds["score"] > 0
    assert clock.seconds["decode"] == 0
