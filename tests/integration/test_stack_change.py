"""A run from before the watermark detector was in the default stack: refused by the new stack, or extended by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from moderation.config.files import packaged_configs
from moderation.config.load import load_config
from moderation.results.reader import open_run
from tests.job_runs import by_name, make_pictures, read_parts, run_job, verdicts

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.long]

# As one process of this machine; fp32, because the numeric type is a part of what a vote is.
SETTINGS = ("--set", "runtime.pool=processes", "--set", "stack.dtype=fp32", "--set", "runtime.workers=1")


@pytest.fixture(scope="module")
def old_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack as it was before, and its policy."""
    folder = tmp_path_factory.mktemp("old")
    policy = yaml.safe_load((packaged_configs() / "policies" / "default.yaml").read_text())
    del policy["checks"]["watermark"]
    policy["checks"] = {
        name: {("null" if k is None else k): v for k, v in c.items()} for name, c in policy["checks"].items()
    }
    (folder / "policy.yaml").write_text(json.dumps(policy))
    config = {
        "extends": "default.yaml",
        "policy": "policy.yaml",
        "stack": {"detectors": [{"name": "watermark", "remove": True}]},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder / "config.yaml"


@pytest.mark.timeout(600)
def test_an_old_run_is_refused_by_the_new_stack_and_extended_by_the_one_detector(
    old_config: Path, tmp_path: Path
) -> None:
    pictures, out = make_pictures(tmp_path / "in", 6), tmp_path / "out"
    judged = run_job("backfill", pictures, "--out", out, "--config", old_config, *SETTINGS)
    assert judged.returncode == 0, judged.stderr
    before = verdicts(out)
    assert "score_watermark" not in before.column_names
    assert "watermark.mark" not in read_parts(out, "votes").column_names

    again = run_job("backfill", pictures, "--out", out, *SETTINGS)
    assert again.returncode == 2
    assert "belongs to another run: stack was" in again.stderr and "--extend to score only" in again.stderr

    plan = run_job("backfill", pictures, "--out", out, *SETTINGS, "--extend", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "new: watermark" in plan.stdout and "scored again" not in plan.stdout
    extended = run_job("backfill", pictures, "--out", out, *SETTINGS, "--extend")
    assert extended.returncode == 0, extended.stderr

    run = open_run(str(out))
    assert [d.title for d in run.load_config().stack.detectors] == [d.title for d in load_config().stack.detectors]
    votes = run.read_votes(run.shard_ids[0])
    assert votes["watermark.mark"].null_count == 0
    after = verdicts(out)
    assert after["score_watermark"].null_count == 0
    assert by_name(after, ["verdict", "reason"]) == by_name(before, ["verdict", "reason"])

    resumed = run_job("backfill", pictures, "--out", out, *SETTINGS)
    assert resumed.returncode == 0, resumed.stderr
