"""Nights that learn: what a reviewer blocks is blocked from the next night on, and found in the nights before."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moderation.analysis.sweep_changes import read_changes
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from tests.job_runs import POLICY, make_tiny_config, run_job, verdicts

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]

LISTS = """
lists:
  learned_block: {action: deny, by: content_hash, from: learned.csv}
  learned_near: {action: deny, by: pdq, distance: 15, from: learned.csv}
"""


def draw(path: Path, seed: int, **options: int) -> None:
    field = np.random.default_rng(seed).integers(0, 200, (9, 9, 3)).astype(np.uint8)
    image = Image.fromarray(field).resize((256, 256), Image.Resampling.BICUBIC)
    image.save(path, "JPEG", **options)


def test_a_block_reaches_the_next_night_and_those_before(tmp_path: Path) -> None:
    config = make_tiny_config(tmp_path / "config")
    (tmp_path / "config" / "policy.yaml").write_text(POLICY + LISTS)
    tree = json.loads(config.read_text())
    tree["stack"]["detectors"].append({"name": "pdq"})
    tree["learn"] = {"to": str(tmp_path / "config" / "learned.csv")}
    config.write_text(json.dumps(tree))
    (tmp_path / "in").mkdir()
    for seed in range(3):
        draw(tmp_path / "in" / f"{seed}.jpg", seed, quality=95)
    draw(tmp_path / "in" / "again.jpg", 0, quality=60)
    call = ("nightly", tmp_path / "in", "--ledger", tmp_path / "ledger", "--out", tmp_path / "out", "--config", config)
    first = run_job(*call)
    assert first.returncode == 0, first.stderr
    (one,) = (path for path in (tmp_path / "out").iterdir() if path.name[0].isdigit())
    rows = {row["uri"].rpartition("/")[2]: row for row in verdicts(one).to_pylist()}
    assert {row["verdict"] for row in rows.values()} == {"pass"}
    bad = rows["0.jpg"]
    append_decisions(
        str(one),
        [
            Decision(
                decision_id="d1", item_id=bad["item_id"], uri=bad["uri"], content_hash=bad["content_hash"],
                decision=Answer.BLOCK, reviewer="ann", decided_at=datetime.now(UTC),
            )
        ],
    )  # fmt: skip
    draw(tmp_path / "in" / "copy.jpg", 0, quality=80)
    draw(tmp_path / "in" / "other.jpg", 7, quality=80)
    second = run_job(*call)
    assert second.returncode == 0, second.stderr
    two = max(path for path in (tmp_path / "out").iterdir() if path.name[0].isdigit())
    told = {row["uri"].rpartition("/")[2]: row["reason"] for row in verdicts(two).to_pylist()}
    assert told == {"copy.jpg": "list:learned_near:block", "other.jpg": "default:pass"}
    assert json.loads((two / "summary.json").read_text())["nightly"]["learned"]["added"] == 2
    changed = [row for table in read_changes(str(tmp_path / "out" / "sweeps" / two.name)) for row in table.to_pylist()]
    assert {row["uri"].rpartition("/")[2]: row["new_verdict"] for row in changed} == {
        "0.jpg": "block",
        "again.jpg": "block",
    }
