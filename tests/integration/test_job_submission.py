"""The command of the rendered RayJob, given to a real Ray cluster as the operator gives it: verdicts come out."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.job_runs import PLUGINS, REPOSITORY, log_lines, make_pictures, make_tiny_config, summary, verdicts
from tests.ray_cluster import Cluster, running_cluster
from tests.rendered_cluster import job_spec, of_kind, rendered

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

PATIENCE_S = 400
CONFIG_IN_POD = "/etc/moderation/config.yaml"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """With the dashboard: it is what takes jobs."""
    with running_cluster(num_cpus=2, dashboard=True) as cluster:
        yield cluster


def entrypoint_of(name: str) -> list[str]:
    """Words of the command in a RayJob of the smallest overlay."""
    (job,) = [job for job in of_kind(rendered("dev"), "RayJob") if job["metadata"]["name"] == name]
    return shlex.split(job_spec(job)["entrypoint"])


def run_on(cluster: Cluster, words: list[str]) -> str:
    """Submit a command as the operator does, wait until it has ended well, and return its log."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    client = JobSubmissionClient(f"http://127.0.0.1:{cluster.dashboard_port}")
    variables = {"PATH": programs, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{PLUGINS}"}
    job_id = submit(client, shlex.join(words), variables)
    status, log = wait_for(client, job_id), str(client.get_job_logs(job_id))
    assert status is JobStatus.SUCCEEDED, log
    return log


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The overlay's own configuration, with a stack that loads at once."""
    maps = of_kind(rendered("dev"), "ConfigMap")
    (text,) = [m["data"]["config.yaml"] for m in maps if "config.yaml" in m.get("data", {})]
    path = make_tiny_config(tmp_path_factory.mktemp("config"))
    path.write_text(yaml.safe_dump(yaml.safe_load(text) | yaml.safe_load(path.read_text())))
    return path


def submit(client: JobSubmissionClient, entrypoint: str, variables: dict[str, str]) -> str:
    """Asks again while the dashboard answers that the node's agent, which runs the job, is not there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env={"env_vars": variables}))
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def wait_for(client: JobSubmissionClient, job_id: str) -> JobStatus:
    deadline = time.monotonic() + PATIENCE_S
    while not (status := client.get_job_status(job_id)).is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(job_id)
        time.sleep(0.5)
    return status


def test_the_entrypoint_of_the_rendered_job_gives_verdicts(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 20, {3: (255, 0, 0)})
    out = tmp_path / "out"
    program, command, _source, flag, _out, *rest = entrypoint_of("backfill")
    assert (program, command, flag) == ("moderation", "backfill", "--out")
    assert CONFIG_IN_POD in rest
    # What differs is where things lie: pictures, tables, and the file that the pod mounts.
    here = [str(config) if word == CONFIG_IN_POD else word for word in rest]
    log = run_on(cluster, [program, command, str(folder), flag, str(out), *here])
    assert verdicts(out).num_rows == 20
    assert summary(out)["verdicts"] == {"block": 1, "review": 0, "pass": 19}
    # It ran on that cluster, and what it said is where the operator looks for it.
    assert sum(line["rows"] for line in log_lines(log, "shard")) == 20


def test_the_smoke_job_says_in_one_line_that_the_site_works(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    program, command, flag, _out, *rest = entrypoint_of("smoke")
    assert (program, command, flag) == ("moderation", "smoke", "--out")
    here = [str(config) if word == CONFIG_IN_POD else word for word in rest]
    log = run_on(cluster, [program, command, flag, str(tmp_path / "smoke"), *here])
    assert [line for line in log.splitlines() if line.startswith("smoke: well: 25 of 25 pictures")], log
