"""Large backfills as processes: slices and their merge, an order, the status beside a run, keyframes on CPU nodes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.drawn_media import jpegs, mp4
from tests.job_runs import (
    JobProcess,
    by_name,
    job_env,
    make_pictures,
    make_tiny_config,
    part_bytes,
    run_job,
    summary,
    verdicts,
)

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_config(tmp_path_factory.mktemp("config"))


@pytest.mark.slow
@pytest.mark.timeout(1200)  # five or six jobs, each of which starts a Ray of its own
def test_three_slices_merged_are_the_unsliced_run(config: Path, tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "in", 40, {3: (255, 0, 0), 7: (180, 10, 10)})
    (pictures / "notes.txt").write_text("not media")
    smaller = ["--config", config, "--set", "shards.max_items=4"]
    whole, sliced = tmp_path / "whole", tmp_path / "sliced"
    assert run_job("backfill", pictures, "--out", whole, *smaller).returncode == 0
    for index in (1, 2, 3):
        ended = run_job("backfill", pictures, "--out", sliced, *smaller, "--slice", f"{index}/3")
        assert ended.returncode == 0, ended.stderr
    found = json.loads(run_job("status", sliced, "--json").stdout)
    assert (found["state"], found["merged"], found["items_done"], found["items_total"]) == ("done", False, 41, 41)
    merged = run_job("merge", sliced, "--json")
    assert merged.returncode == 0, merged.stderr
    assert part_bytes(sliced) == part_bytes(whole)
    counts = ("run_id", "items", "frames", "shards", "verdicts", "status", "kinds", "errors", "checks")
    assert {k: json.loads(merged.stdout)[k] for k in counts} == {k: summary(whole)[k] for k in counts}
    again = run_job("backfill", pictures, "--out", sliced, *smaller)
    assert "Nothing left" in again.stdout  # what was merged is the unsliced run
    fresh = run_job("backfill", pictures, "--out", sliced, *smaller, "--slice", "1/3", "--fresh")
    assert fresh.returncode == 2 and "other slices" in fresh.stderr


def test_the_status_follows_a_run_that_is_killed_and_ends(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "in", 24)
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri,priority\n" + "".join(f"in/{p.name},{int(p.stem) % 3}\n" for p in pictures.iterdir()))
    slow = make_tiny_config(tmp_path / "slow", slow_s=0.4)
    out = tmp_path / "out"
    # One at a time: of two in flight the second may be the first to be committed.
    ordered = ("--set", "shards.order_by=priority", "--set", "runtime.shards_in_flight=1")
    command = ("backfill", manifest, "--out", out, "--config", slow, *ordered)
    with JobProcess(*command, env=job_env()) as job:
        waited = time.monotonic() + 200
        while not (out / "receipts").is_dir() or not list((out / "receipts").glob("*.json")):
            assert job.poll() is None and time.monotonic() < waited
            time.sleep(0.1)
        during = json.loads(run_job("status", out, "--json").stdout)
        job.kill()
    assert during["state"] == "running"
    assert 8 <= during["items_done"] <= during["items_total"] == 24
    assert sum(during["verdicts"].values()) == during["items_done"]
    first = min((out / "receipts").glob("*.json"), key=lambda p: json.loads(p.read_text())["committed_at"])
    urgent = by_name(verdicts_of(out, first.stem), ["verdict"])
    assert {int(name.partition(".")[0]) % 3 for name in urgent} == {2}
    assert run_job(*command).returncode == 0
    after = run_job("status", out)
    assert after.returncode == 0 and "done" in after.stdout and "24 of 24 (100.0%)" in after.stdout
    assert run_job("status", tmp_path / "nowhere").returncode == 2


def verdicts_of(out: Path, shard_id: str) -> pa.Table:
    return pq.read_table(out / "verdicts" / f"part-{shard_id}.parquet")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # five or six jobs, each of which starts a Ray of its own
def test_keyframes_are_cut_resumed_and_judged_as_their_videos(config: Path, tmp_path: Path) -> None:
    videos = make_pictures(tmp_path / "in", 3, {1: (255, 0, 0)})
    for number in range(4):
        (videos / f"clip{number}.mp4").write_bytes(mp4(jpegs(4 + 3 * number)))
    (videos / "broken.mp4").write_bytes(mp4(jpegs(12), moov_last=True)[:50_000])
    sampling = ["--config", config, "--set", "media.sampling=uniform", "--set", "shards.max_items=3"]
    cut = ("keyframes", videos, "--out", tmp_path / "cut", *sampling, "--set", "runtime.max_error_rate=0.5")
    part = run_job(*cut, "--max-items", 3, "--json")
    assert part.returncode == 5, part.stderr
    assert json.loads(part.stdout)["state"] == "partial"
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut" / "tars").iterdir()}
    whole = run_job(*cut, "--json")
    assert whole.returncode == 0, whole.stderr
    assert {p: p.stat().st_mtime_ns for p in done} == done  # what was cut is not cut again
    found = json.loads(whole.stdout)
    assert (found["state"], found["items"], found["errors"]) == ("done", 8, {"corrupt": 1})
    assert "8 items" in run_job(*cut).stdout
    keyframes = ["--set", "source.type=webdataset", "--set", "source.keyframes=true"]
    judged = run_job("backfill", tmp_path / "cut" / "tars", "--out", tmp_path / "b", *sampling, *keyframes)
    assert judged.returncode == 3, judged.stderr  # one of eight is an error
    direct = run_job("backfill", videos, "--out", tmp_path / "a", *sampling)
    assert direct.returncode == 3, direct.stderr
    columns = ["uri", "verdict", "reason", "error_code", "frames_total", "frames_scored", "duration_s", "width"]
    expected = {r["uri"]: r for r in verdicts(tmp_path / "a").select(columns).to_pylist()}
    rows = verdicts(tmp_path / "b").select([*columns, "attributes"]).to_pylist()
    mapped = {uri: {**r, "uri": uri} for r in rows if (uri := dict(r.pop("attributes"))["cut_from.uri"])}
    assert mapped == expected
