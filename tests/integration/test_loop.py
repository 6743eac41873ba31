"""Review, learning, certification and promotion in one loop, each step by the real program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.loop import LoopPlan, as_table, run_loop
from moderation.labels.decision_store import read_decisions
from tests.job_runs import SHARED, run_job
from tests.ray_cluster import Cluster

CLOTHES = SHARED.parent / "clothes"
pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.weights,
    pytest.mark.shared,
    pytest.mark.skipif(not CLOTHES.is_dir(), reason="needs ../shared/clothes"),
]


def run(*arguments: object) -> tuple[int, str]:
    ended = run_job(*arguments)
    return ended.returncode, ended.stdout + ended.stderr


def test_decisions_make_a_head_that_decides_more_at_the_same_certified_rate(
    tmp_path: Path, ray_cluster: Cluster
) -> None:
    plan = LoopPlan(
        pictures=CLOTHES,
        work=tmp_path,
        forbidden="pants",
        rounds=1,
        first=12,
        each=30,
        mined=10,
        per_class=30,
        leak=0.06,
    )
    first, second = run_loop(plan, run)
    assert (first.labels, second.labels) == (12, 42), as_table([first, second])
    assert second.automation > max(0.5, first.automation)
    assert second.bound_pass is not None and second.bound_pass <= plan.leak
    decisions = read_decisions(str(tmp_path / "run"), verify=True)
    assert len(decisions) == 30
    bundle = json.loads((tmp_path / "store" / "current.json").read_text())["bundle"]
    assert bundle in run_job("bundle", "list", "--bundles", tmp_path / "store").stdout
    card = json.loads((tmp_path / "head1" / "card.json").read_text())
    assert (card["continues"]["remembered"], card["continues"]["added"]) == (12, 30)
