"""The main job over the sample data with the packaged configuration: real pictures, real weights, real Ray."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from tests.job_runs import REPOSITORY, SHARED, by_name, read_parts, run_job, summary, verdicts

pytestmark = [
    pytest.mark.ray,
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.usefixtures("ray_cluster"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    out = tmp_path_factory.mktemp("out") / "run"
    ended = run_job("backfill", SHARED, "--out", out, timeout_s=500)
    assert ended.returncode == 0, ended.stderr
    return out


def test_every_photograph_video_and_face_picture_has_a_row(done: Path) -> None:
    table = verdicts(done)
    names = {p.name for p in SHARED.rglob("*") if p.is_file()}
    rows = by_name(table, ["kind", "status", "verdict"])
    assert table.num_rows == len(names) and rows.keys() == names
    kinds = [row[0] for row in rows.values() if row[1] == "ok"]
    assert (kinds.count("image"), kinds.count("video")) == (206, 6)
    assert all(row == ("unknown", "skipped", None) for row in rows.values() if row[1] != "ok")


def test_most_pass_none_is_blocked(done: Path) -> None:
    found = summary(done)["verdicts"]
    assert found["block"] == 0
    assert found["pass"] >= 200


def test_videos_record_frames_and_gaps(done: Path) -> None:
    for row in verdicts(done).to_pylist():
        if row["kind"] == "video":
            assert 0 < row["frames_scored"] <= min(64, row["frames_total"])
            assert 0 < row["widest_gap_s"] <= row["duration_s"]


def test_votes_have_a_row_a_frame_and_hashes(done: Path) -> None:
    votes = read_parts(done, "votes")
    assert votes.num_rows == sum(verdicts(done)["frames_scored"].to_pylist())
    assert votes["pdq.hash"].null_count == 0 and votes["open_nsfw.nsfw"].null_count == 0


def test_the_queries_of_the_readme_run(done: Path) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    queries = re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)
    assert queries
    for query in queries:
        assert duckdb.sql(query.replace("OUT/", f"{done}/").replace("demo-out/", f"{done}/")).fetchall()


def test_one_detector_alone_leaves_the_others_checks_null(done: Path, tmp_path: Path) -> None:
    ended = run_job(
        "backfill", SHARED / "faces", "--out", tmp_path / "out", "--set", "stack.only=[image_safety]", timeout_s=500
    )
    assert ended.returncode == 0, ended.stderr
    votes = read_parts(tmp_path / "out", "votes")
    assert "image_safety.nsfw" in votes.column_names and "open_nsfw.nsfw" not in votes.column_names
    rows = verdicts(tmp_path / "out").to_pylist()
    assert len(rows) == 6
    # The policy asks for two voices; one of them was not asked.
    assert {row["verdict"] for row in rows} == {"review"}
