from __future__ import annotations

import pytest

from moderation.config.model import RuntimeConfig
from moderation.runtime.sizing import WorkerSize, count_workers, size_workers


@pytest.mark.parametrize(
    ("config", "nodes", "per_worker", "workers"),
    [
        ({}, [{"CPU": 2}], (2, 0), 1),
        ({"workers": 2}, [{"CPU": 2}], (1, 0), 2),
        ({"workers": 4}, [{"CPU": 2}], (0.5, 0), 4),
        # Two cores a worker, whose threads wait for each other; at most eight on a GPU.
        ({}, [{"CPU": 16, "GPU": 4}], (2, 0.5), 8),
        ({}, [{"CPU": 16, "GPU": 4}, {"CPU": 0}, {"CPU": 32}], (2, 0.5), 8),
        ({}, [{"CPU": 16, "GPU": 1}], (2, 0.125), 8),
        ({}, [{"CPU": 96, "GPU": 2}], (6, 0.125), 16),
        ({}, [{"CPU": 1, "GPU": 1}], (1, 1), 1),
        ({}, [{"CPU": 6, "GPU": 1}], (2, 0.3333), 3),
        ({}, [{"CPU": 16, "GPU": 1, "memory": 22e9}], (3, 0.2), 5),  # four gigabytes of the host each
        ({"num_gpus": 1}, [{"CPU": 16, "GPU": 4}], (4, 1), 4),
        ({"num_cpus": 4}, [{"CPU": 16, "GPU": 1}], (4, 0.25), 4),
        ({"workers": 2}, [{"CPU": 16, "GPU": 1}], (8, 0.5), 2),
        ({"workers": 1}, [{"CPU": 16, "GPU": 4}], (4, 1), 1),
        ({}, [{"CPU": 4}, {"CPU": 8}], (4, 0), 3),
        ({"workers": 6}, [{"CPU": 4}, {"CPU": 4}], (1, 0), 6),
        ({"num_gpus": 0.5}, [{"CPU": 8, "GPU": 1}], (4, 0.5), 2),
        ({"num_gpus": 0}, [{"CPU": 8, "GPU": 1}], (8, 0), 1),
        ({"num_cpus": 3}, [{"CPU": 8}], (3, 0), 2),
        # A cluster that sleeps until somebody asks.
        ({"num_gpus": 1}, [{"CPU": 0}], (1, 1), 1),
        ({}, [], (1, 0), 1),
    ],
)
def test_workers_share_the_nodes(
    config: dict[str, float], nodes: list[dict[str, float]], per_worker: tuple[float, float], workers: int
) -> None:
    runtime = RuntimeConfig.model_validate(config)
    size = size_workers(runtime, nodes)
    assert (size.num_cpus, size.num_gpus) == per_worker
    assert count_workers(runtime, size, nodes) == workers


def test_a_worker_with_part_of_a_core_has_one_thread() -> None:
    assert WorkerSize(num_cpus=0.5, num_gpus=0).threads == 1
    assert WorkerSize(num_cpus=7.9, num_gpus=1).threads == 7
