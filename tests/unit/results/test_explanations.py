"""Explanations as rows and files: written, read back, and read when they are not ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from moderation.errors import UsageError
from moderation.results.explanations import (
    SCHEMA,
    Explanation,
    encode_map,
    map_name,
    overlay_name,
    read_explanations,
    read_map,
    read_overlay,
    write_explanation,
)

BARE = Explanation(
    item_id="a",
    uri="in/a.png",
    kind="image",
    verdict="review",
    reason="default",
    check=None,
    threshold=None,
    method="occlusion",
    detector="red",
    label="share",
)


def written(out: Path, explanation: Explanation, **files: bytes) -> Explanation:
    write_explanation(str(out / "explanations"), explanation, files, {"moderation.run_id": "run"})
    return explanation


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    whole = replace(
        BARE, score=0.5, box=(0.25, 0.25, 0.5, 0.75), drop=0.25, map=map_name(BARE.key), overlay=overlay_name(BARE.key)
    )
    files = {map_name(whole.key): encode_map([values, values + 1]), overlay_name(whole.key): b"png"}
    write_explanation(str(tmp_path / "explanations"), whole, files, {})
    assert read_explanations(str(tmp_path)) == [whole]
    stored = read_map(whole, str(tmp_path))
    assert stored is not None and stored.dtype == np.float32
    np.testing.assert_array_equal(stored, np.stack([values, values + 1]))
    assert read_overlay(whole, str(tmp_path)) == b"png"


def test_explaining_again_replaces_the_row_and_another_vote_adds_one(tmp_path: Path) -> None:
    written(tmp_path, BARE)
    written(tmp_path, replace(BARE, score=0.7))
    written(tmp_path, replace(BARE, label="other"))
    assert [(e.label, e.score) for e in read_explanations(str(tmp_path))] == [
        ("other", None),
        ("share", pytest.approx(0.7)),
    ]


def test_the_same_explanation_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(tmp_path / name, BARE)
    (one,), (two,) = (list((tmp_path / name).rglob("part-*.arrow")) for name in ("one", "two"))
    assert one.name == two.name and one.read_bytes() == two.read_bytes()
    with pa.ipc.open_file(one) as file:
        assert file.schema.equals(SCHEMA)
        assert file.schema.metadata[b"moderation.run_id"] == b"run"


def test_no_folder_is_no_explanation(tmp_path: Path) -> None:
    assert read_explanations(str(tmp_path / "nothing")) == []


@pytest.mark.parametrize("data", [b"", b"noise" * 99])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, data: bytes) -> None:
    written(tmp_path, BARE)
    (part,) = tmp_path.rglob("part-*.arrow")
    part.write_bytes(data)
    with pytest.raises(UsageError, match=part.name):
        read_explanations(str(tmp_path))


def test_a_table_of_something_else_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "explanations"
    folder.mkdir()
    other = pa.table({"x": [1]})
    with pa.ipc.new_file(folder / "part-00.arrow", other.schema) as file:
        file.write_table(other)
    with pytest.raises(UsageError, match="is no explanation"):
        read_explanations(str(tmp_path))


def test_a_name_in_a_row_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    row = written(tmp_path, replace(BARE, overlay="../secret.png", map="../secret.png"))
    assert read_overlay(row, str(tmp_path)) is None


def test_a_map_with_a_pickle_is_refused(tmp_path: Path) -> None:
    row = replace(BARE, map=map_name(BARE.key))
    target = tmp_path / "explanations" / map_name(row.key)
    target.parent.mkdir(parents=True)
    np.save(target, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="no array"):
        read_map(row, str(tmp_path))
