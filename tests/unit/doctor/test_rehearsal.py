"""What would stand in the way of a run is told before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.config.model import Config
from moderation.doctor.rehearsal import find_obstacles, try_writing
from tests.s3_server import BUCKET, environment, find_moto, serve_moto


def test_a_file_in_the_way_of_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert list(try_writing(str(tmp_path / "file" / "out"))) == [f"{tmp_path}/file/out: {tmp_path}/file is a file"]


def test_a_folder_that_takes_no_files_is_told() -> None:
    (problem,) = try_writing("/proc/out")
    assert problem.startswith("/proc/out: /proc can't be written to: ")


def test_a_folder_is_asked_and_not_made(tmp_path: Path) -> None:
    assert list(try_writing(str(tmp_path / "a" / "out"))) == []
    assert not (tmp_path / "a").exists()


def test_a_store_is_written_to_and_left_as_it_was() -> None:
    if find_moto() is None:
        pytest.skip("no moto to serve S3")
    from moderation import storage

    with serve_moto() as server, environment(server.env()):
        assert list(try_writing(f"s3://{BUCKET}/out")) == []
        with pytest.raises(FileNotFoundError):
            list(storage.list_objects(f"s3://{BUCKET}/out"))
        (problem,) = try_writing("s3://nosuch/out")
        assert "cannot write s3://nosuch/out" in problem


def test_weights_and_extras_that_are_missing_are_told(tmp_path: Path) -> None:
    entry = {"name": "open_nsfw", "weights": f"file://{tmp_path}/none.onnx", "sha256": "0" * 64}
    config = Config.model_validate({"stack": {"detectors": [entry]}})
    (problem,) = find_obstacles(config, str(tmp_path / "out"))
    assert problem.startswith("open_nsfw: ")
