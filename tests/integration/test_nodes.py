"""Nodes and workers come and go: no row is lost or differs, and nobody is blamed for a node. Several real raylets."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.job_runs import (
    JobProcess,
    log_lines,
    make_pictures,
    make_tiny_config,
    part_bytes,
    run_job,
    summary,
    verdicts,
)
from tests.ray_cluster import Cluster, Node, running_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

ITEMS, SHARDS = 64, 8
# Processes of a worker take 10 s to import torch when the machine is idle, and nothing here depends on how long.
PATIENCE_S = 240
ONE_CORE = ("--set", "runtime.num_cpus=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with room for one worker; tests add nodes and lose them."""
    with running_cluster(num_cpus=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), ITEMS, {9: (255, 0, 0)})


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is not there, no worker scores: what a test does meanwhile happens with shards in flight."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def config(gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_config(tmp_path_factory.mktemp("config"), waits_for=str(gate), slow_s=0.02)


@pytest.fixture(scope="module")
def undisturbed(
    cluster: Cluster, pictures: Path, config: Path, gate: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    gate.touch()
    out = tmp_path_factory.mktemp("out") / "run"
    ended = run_job("backfill", pictures, "--out", out, "--config", config, *ONE_CORE, env=cluster.env)
    assert ended.returncode == 0, ended.stderr
    return part_bytes(out)


class Backfill(JobProcess):
    """A backfill at work."""

    def __init__(self, cluster: Cluster, *arguments: object) -> None:
        super().__init__("backfill", *arguments, env=cluster.env)

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        return log_lines(self.stderr, event)

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            assert self.poll() is None, self.stderr
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.05)

    def wait_for_workers(self, count: int) -> list[dict[str, Any]]:
        self.wait_for(lambda: len(self.lines("worker")) >= count)
        return self.lines("worker")

    def end(self) -> None:
        assert self.wait(PATIENCE_S) == 0, self.stderr


@pytest.fixture
def job(
    cluster: Cluster, pictures: Path, config: Path, gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> Iterator[Callable[..., Backfill]]:
    """Starts backfills into `out`, with the gate shut."""
    gate.unlink(missing_ok=True)
    began: list[Backfill] = []

    def start(name: str = "out", *more: str) -> Backfill:
        began.append(Backfill(cluster, pictures, "--out", tmp_path / name, "--config", config, *ONE_CORE, *more))
        return began[-1]

    yield start
    for one in began:
        with one:
            one.kill()
    for node in cluster.nodes[1:]:
        cluster.lose_node(node)
    cluster.wait_until_gone()


def assert_undisturbed(out: Path, undisturbed: dict[str, bytes]) -> None:
    assert part_bytes(out) == undisturbed
    assert verdicts(out).num_rows == ITEMS
    assert summary(out)["items"] == ITEMS
    receipts = [json.loads(p.read_text())["shard_id"] for p in (out / "receipts").iterdir()]
    assert len(receipts) == len(set(receipts)) == SHARDS


def at(node: Node, workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The workers that run on a node."""
    return [w for w in workers if node.runs(w["pid"])]


def test_a_killed_worker_is_replaced(
    job: Callable[..., Backfill], gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    one = job()
    (worker,) = one.wait_for_workers(1)
    os.kill(worker["pid"], signal.SIGKILL)
    one.wait_for_workers(2)
    gate.touch()
    one.end()
    assert_undisturbed(tmp_path / "out", undisturbed)
    (lost,) = one.lines("worker_lost")
    assert lost["pid"] == worker["pid"] and lost["message"] == "worker died"


def test_shards_of_a_lost_node_go_elsewhere_and_are_not_blamed(
    cluster: Cluster, job: Callable[..., Backfill], gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    one = job()
    (worker,) = at(node, one.wait_for_workers(2))
    cluster.lose_node(node)
    one.wait_for(lambda: bool(one.lines("worker_lost")))
    gate.touch()
    one.end()
    assert_undisturbed(tmp_path / "out", undisturbed)
    (lost,) = one.lines("worker_lost")
    assert (lost["pid"], lost["message"]) == (worker["pid"], "node lost")
    assert lost["shards"]
    assert one.lines("shard_retry") == []
    assert summary(tmp_path / "out")["retries"] == {"node": len(lost["shards"])}


def test_a_node_that_joins_late_is_used(
    cluster: Cluster, job: Callable[..., Backfill], gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    one = job()
    one.wait_for_workers(1)
    node = cluster.add_node(num_cpus=1)
    (late,) = at(node, one.wait_for_workers(2))
    gate.touch()
    one.end()
    assert_undisturbed(tmp_path / "out", undisturbed)
    assert f"{late['node'][:12]}/{late['pid']}" in {line["worker"] for line in one.lines("shard")}
    assert len({w["node"] for w in summary(tmp_path / "out")["workers"]}) == 2


def test_a_killed_driver_leaves_what_the_next_call_goes_on_with(
    cluster: Cluster, job: Callable[..., Backfill], gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    gate.touch()
    one = job()
    one.wait_for(lambda: bool(one.lines("shard")))
    one.kill()
    assert one.wait() == -signal.SIGKILL
    # Its workers end with it, but may be at their last shard now.
    committed = {line["shard"] for line in one.lines("shard")}
    before = {s: (tmp_path / "out" / "receipts" / f"{s}.json").stat().st_mtime_ns for s in committed}
    again = job()
    again.end()
    assert_undisturbed(tmp_path / "out", undisturbed)
    assert {s: (tmp_path / "out" / "receipts" / f"{s}.json").stat().st_mtime_ns for s in committed} == before
    assert not {line["shard"] for line in again.lines("shard")} & committed


def test_a_full_cluster_is_waited_for_and_said_to_be_full(
    job: Callable[..., Backfill], gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    first = job("first")
    first.wait_for_workers(1)
    second = job("second", "--set", "runtime.no_room_every_s=0.5")
    second.wait_for(lambda: len(second.lines("no_room")) >= 2)
    assert second.lines("worker") == []
    assert "a worker needs 1 CPU" in second.lines("no_room")[0]["message"]
    gate.touch()
    first.end()
    second.end()
    for name in ("first", "second"):
        assert_undisturbed(tmp_path / name, undisturbed)


def test_each_worker_sees_a_gpu_of_its_own(
    cluster: Cluster, job: Callable[..., Backfill], gate: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=2, num_gpus=2)
    one = job()
    one.wait_for_workers(2)
    gate.touch()
    one.end()
    assert_undisturbed(tmp_path / "out", undisturbed)
    seen = [w["gpu_ids"] for w in summary(tmp_path / "out")["workers"]]
    assert sorted(seen) == [["0"], ["1"]]
