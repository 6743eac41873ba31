"""Killed drivers, killed workers, items that kill: nothing is lost, nothing differs. Small stack, real Ray."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from moderation.runtime.bisection import max_deaths
from tests.job_runs import (
    JobProcess,
    by_name,
    job_env,
    log_lines,
    make_pictures,
    make_tiny_config,
    part_bytes,
    run_job,
    summary,
    verdicts,
)
from tests.plugins.plugin_detectors import ABORTS, HANGS, IS_KILLED, RAISES

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

KILLS = 5
ITEMS = 120


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), ITEMS)


@pytest.fixture(scope="module")
def slow_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of work in fifteen shards, so that a random moment hits one in flight."""
    return make_tiny_config(tmp_path_factory.mktemp("config"), slow_s=0.05)


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, slow_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("out") / "run"
    ended = run_job("backfill", pictures, "--out", out, "--config", slow_config)
    assert ended.returncode == 0, ended.stderr
    return part_bytes(out)


def receipts(out: Path) -> dict[str, int]:
    """Receipt -> when it was written."""
    return {p.stem: p.stat().st_mtime_ns for p in (out / "receipts").glob("*.json")}


def wait_for_receipts(out: Path, count: int, job: JobProcess) -> None:
    deadline = time.monotonic() + 120
    while len(receipts(out)) < count and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_killed_driver_resumes_to_the_same_bytes(
    pictures: Path, slow_config: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chance = random.Random(20261122)
    kills = 0
    for _ in range(KILLS):
        before = receipts(out)
        with JobProcess("backfill", pictures, "--out", out, "--config", slow_config, env=job_env()) as job:
            wait_for_receipts(out, min(len(before) + chance.randint(1, 3), 15), job)
            time.sleep(chance.uniform(0, 0.4))
            job.kill()
            kills += job.wait() == -signal.SIGKILL
        assert {k: v for k, v in receipts(out).items() if k in before} == before
    assert kills == KILLS
    before = receipts(out)
    ended = run_job("backfill", pictures, "--out", out, "--config", slow_config)
    assert ended.returncode == 0, ended.stderr
    assert part_bytes(out) == undisturbed
    assert verdicts(out).num_rows == ITEMS
    # No shard with a receipt was read again: not written again, and not in the log of the last call.
    assert {k: v for k, v in receipts(out).items() if k in before} == before
    assert not {line["shard"] for line in log_lines(ended.stderr, "shard")} & set(before)


def test_killed_workers_are_replaced_and_the_bytes_are_the_same(
    pictures: Path, slow_config: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chance = random.Random(7)
    killed: list[int] = []
    with JobProcess("backfill", pictures, "--out", out, "--config", slow_config, env=job_env()) as job:
        while job.poll() is None:
            time.sleep(0.02)
            fresh = [line["pid"] for line in log_lines(job.stderr, "worker") if line["pid"] not in killed]
            if fresh and len(killed) < KILLS:
                time.sleep(chance.uniform(0.05, 0.8))
                if job.poll() is None and summary_state(out) == "running":
                    os.kill(fresh[0], signal.SIGKILL)
                    killed.append(fresh[0])
        assert job.wait() == 0, job.stderr
        lost = log_lines(job.stderr, "worker_lost")
    assert len(killed) == len(lost) == KILLS
    assert part_bytes(out) == undisturbed
    assert summary(out)["items"] == ITEMS


def summary_state(out: Path) -> str:
    try:
        return str(json.loads((out / "run.json").read_text())["state"])
    except (FileNotFoundError, ValueError):
        return ""


def test_sigterm_finishes_what_is_in_flight_and_the_next_call_goes_on(
    pictures: Path, slow_config: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with JobProcess("backfill", pictures, "--out", out, "--config", slow_config, env=job_env()) as job:
        wait_for_receipts(out, 2, job)
        job.terminate()
        assert job.wait(120) == 5, job.stderr
    assert summary_state(out) == "partial"
    assert summary(out)["stopped_by"] == "SIGTERM"
    assert 2 <= len(receipts(out)) < 15
    assert run_job("backfill", pictures, "--out", out, "--config", slow_config).returncode == 0
    assert part_bytes(out) == undisturbed


def test_a_batch_that_hangs_is_ended_long_before_its_shard_is_overdue(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 6, {3: HANGS})
    config = make_tiny_config(tmp_path / "config", deadly=True)
    sets = ["--set", "runtime.score_timeout_s=2", "--set", "runtime.max_error_rate=0.5"]
    ended = run_job("backfill", folder, "--out", tmp_path / "out", "--config", config, *sets, timeout_s=300)
    assert ended.returncode == 0, ended.stderr
    rows = by_name(verdicts(tmp_path / "out"), ["status", "verdict", "error_code"])
    assert rows.pop("0003.png") == ("error", "review", "timeout")
    assert set(rows.values()) == {("ok", "pass", None)}


def test_items_that_kill_hang_or_raise_are_found_and_their_neighbours_judged(tmp_path: Path) -> None:
    special = {5: ABORTS, 21: IS_KILLED, 30: HANGS, 42: RAISES, 50: (255, 0, 0)}
    folder = make_pictures(tmp_path / "in", 64, special)
    config = make_tiny_config(tmp_path / "config", deadly=True)
    sets = ["--set", "shards.max_items=16", "--set", "runtime.shard_timeout_s=4", "--set", "runtime.max_error_rate=0.5"]
    ended = run_job("backfill", folder, "--out", tmp_path / "out", "--config", config, *sets, timeout_s=550)
    assert ended.returncode == 0, ended.stderr
    rows = by_name(verdicts(tmp_path / "out"), ["status", "verdict", "error_code", "error_detail"])
    assert len(rows) == 64
    assert rows["0005.png"][:3] == ("error", "review", "decoder_crashed") and "SIGABRT" in rows["0005.png"][3]
    assert rows["0021.png"][:3] == ("error", "review", "out_of_memory")
    assert rows["0030.png"][:3] == ("error", "review", "timeout")
    assert rows["0042.png"][:3] == ("error", "review", "score_failed")
    assert rows["0050.png"][:3] == ("ok", "block", None)
    guilty = {f"{n:04d}.png" for n in special}
    assert all(row[:3] == ("ok", "pass", None) for name, row in rows.items() if name not in guilty)
    deaths = sum(1 for line in log_lines(ended.stderr, "worker_lost"))
    # Two tries each, then the search; 30 hangs instead of dying, which costs the same.
    assert deaths <= 3 * (2 + max_deaths(16))
