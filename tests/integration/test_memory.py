"""A shard that is too much for the memory of a worker, though none of its items is: judged whole, in smaller steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.job_runs import log_lines, make_pictures, make_tiny_config, run_job, summary, verdicts

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]


def test_a_batch_that_kills_the_worker_is_made_smaller_and_no_item_is_blamed(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 8, {3: (255, 0, 0)})
    # Eight frames at once have the process killed, as the kernel does when memory runs out.
    config = make_tiny_config(tmp_path / "config", most_frames=4)
    ended = run_job("backfill", folder, "--out", tmp_path / "out", "--config", config, timeout_s=500)
    assert ended.returncode == 0, ended.stderr
    assert set(verdicts(tmp_path / "out")["status"].to_pylist()) == {"ok"}
    assert summary(tmp_path / "out")["verdicts"] == {"block": 1, "review": 0, "pass": 7}
    steps = [line["message"] for line in log_lines(ended.stderr, "search")]
    assert steps[0] == "run of 8 items (small memory): died"
    assert steps[-1] == "run of 8 items (smallest memory): done"
    # Two tries as usual and one with small memory; what came after that held.
    assert len(log_lines(ended.stderr, "worker_lost")) == 3
