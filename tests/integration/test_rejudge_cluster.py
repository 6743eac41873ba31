"""A rejudge by the tasks of a real Ray cluster writes what processes of this machine write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moderation.analysis.rejudge import rejudge
from tests.finished_run import Made, write_run
from tests.ray_cluster import running_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

LABELS = ("a.mask",)
POLICY = "checks: {mask: {side: negative, votes: [a.mask], review: 0.5}}"
ITEMS = [Made(name=f"{n}", votes=[(n / 40,)]) for n in range(40)]


def test_tasks_of_a_cluster_write_the_same_parts(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    policy = str(tmp_path / "policy.yaml")
    rejudge(out, policy, str(tmp_path / "here"))
    with running_cluster(num_cpus=1) as cluster:
        told = ["rejudge", out, "--policy", policy, "--to", str(tmp_path / "there"), "--ray-address", cluster.address]
        subprocess.run([sys.executable, "-m", "jobs", *told], check=True, env=cluster.env, timeout=300)
    parts = [{p.name: p.read_bytes() for p in (tmp_path / to / "verdicts").iterdir()} for to in ("here", "there")]
    assert parts[0] == parts[1]
    assert len(parts[0]) == 10
