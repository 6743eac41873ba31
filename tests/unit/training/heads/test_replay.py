"""What a head remembers: every class has its share, the hardest are among it, and the file says what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.training.heads.replay import ReplayMemory, choose_replay, encode_replay, read_replay, trim_replay


def one_hot(classes: list[int], count: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.eye(count, dtype=np.float32)[classes]


def memory(count: int = 6) -> ReplayMemory:
    rng = torch.Generator().manual_seed(0)
    return ReplayMemory(
        names=tuple(f"{i:064x}" for i in range(count)),
        uris=tuple(f"s3://b/{i}.jpg" for i in range(count)),
        groups=("ana", *[""] * (count - 1)),
        classes=("a", "b"),
        embeddings=torch.randn(count, 2, 3, generator=rng),
        targets=torch.from_numpy(one_hot([i % 2 for i in range(count)], 2)),
        outside=torch.randn(count, 2, generator=rng),
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 3))
def test_every_class_gets_an_equal_share_and_nothing_stays_unused(classes: list[int], most: int, seed: int) -> None:
    targets = one_hot(classes)
    names = [f"n{i}" for i in range(len(classes))]
    losses = np.random.default_rng(seed).random(len(classes))
    rows = choose_replay(targets, losses, names, most, seed)
    assert len(rows) == len(set(rows.tolist())) == min(most, len(classes))
    kept, whole = targets[rows].sum(axis=0), targets.sum(axis=0)
    fair = most // int((whole > 0).sum())
    assert (kept >= np.minimum(whole, fair)).all()
    order = np.random.default_rng(seed).permutation(len(classes))
    again = choose_replay(targets[order], losses[order], [names[i] for i in order], most, seed)
    assert sorted(names[i] for i in rows) == sorted(names[order[i]] for i in again)


def test_hardest_of_a_class_are_remembered() -> None:
    losses = np.arange(40, dtype=np.float64)
    losses[3] = np.nan  # nobody has an answer to it: it counts as easy
    rows = choose_replay(one_hot([0] * 40), losses, [str(i) for i in range(40)], 10, 0)
    assert set(range(35, 40)) <= set(rows.tolist())
    assert len(rows) == 10


def test_picture_of_several_classes_counts_for_the_rarest_and_of_none_by_itself() -> None:
    targets = np.array([[1, 1], *[[1, 0]] * 8, *[[0, 0]] * 8], dtype=np.float32)
    rows = choose_replay(targets, np.zeros(17), [str(i) for i in range(17)], 5, 0)
    assert 0 in rows
    assert (rows > 8).sum() == 2


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    before = memory()
    path = tmp_path / "replay.arrow"
    path.write_bytes(encode_replay(before, {"head": "abc"}))
    after, record = read_replay(str(path))
    assert record["head"] == "abc"
    assert (after.names, after.uris, after.groups, after.classes) == (
        before.names,
        before.uris,
        before.groups,
        before.classes,
    )
    torch.testing.assert_close(after.embeddings, before.embeddings, atol=2e-3, rtol=1e-3)
    assert torch.equal(after.targets, before.targets)
    assert torch.equal(after.outside, before.outside)


def test_trimmed_memory_keeps_rows_together() -> None:
    whole = memory()
    some = trim_replay(whole, 4, several=False, seed=0)
    assert len(some.names) == 4
    for row, name in enumerate(some.names):
        place = whole.names.index(name)
        assert torch.equal(some.embeddings[row], whole.embeddings[place])
        assert some.uris[row] == whole.uris[place]


def test_missing_damaged_and_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "replay.arrow"
    with pytest.raises(UsageError, match="train it again"):
        read_replay(str(path))
    data = encode_replay(memory(), {})
    other = pa.BufferOutputStream()
    with pa.ipc.new_file(other, pa.schema([("x", pa.int64())])) as writer:
        writer.write_table(pa.table({"x": [1]}))
    for damaged in (b"", data[: len(data) // 2], b"\xff" * 64, other.getvalue().to_pybytes()):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"replay\.arrow"):
            read_replay(str(path))


def test_embedding_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    broken = memory()
    broken.embeddings[0, 0, 0] = float("inf")
    path = tmp_path / "replay.arrow"
    path.write_bytes(encode_replay(broken, {}))
    with pytest.raises(UsageError, match="not finite"):
        read_replay(str(path))
