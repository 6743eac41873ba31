"""One Ray cluster for the jobs of all integration tests: one per test would take longer to start than the jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.job_runs import SHARED_CLUSTER
from tests.ray_cluster import Cluster, running_cluster
from tests.real_runs import ClothesRun, PhotographRuns, run_clothes, run_photographs


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """Two cores on one node; `job_env()` points jobs to it while it runs."""
    with running_cluster(num_cpus=2) as cluster:
        os.environ[SHARED_CLUSTER] = cluster.address
        yield cluster
        del os.environ[SHARED_CLUSTER]


@pytest.fixture(scope="session")
def clothes_run(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> ClothesRun:
    """Real votes on all photographs of clothes, judged once for all tests."""
    return run_clothes(tmp_path_factory.mktemp("clothes"))


@pytest.fixture(scope="session")
def photograph_runs(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> PhotographRuns:
    """Real votes on photographs by two policies, and by a small stack."""
    return run_photographs(tmp_path_factory.mktemp("photographs"))
