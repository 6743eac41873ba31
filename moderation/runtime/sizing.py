"""How many workers of what size fit into the nodes of a cluster. Pure: no Ray here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderation.config.model import RuntimeConfig

Resources = Mapping[str, float]
# Workers of one GPU: the threads of one process wait for each other's Python, so that one leaves it idle. Measured on
# an H100 beside 16 cores (benchmarks/NOTES.md).
CORES_BESIDE_GPU = 2
BYTES_BESIDE_GPU = 4 * 2**30  # of the host's memory, for one of them: docs/gpu.md
MOST_ON_GPU = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSize:
    """What one worker gets of a node."""

    num_cpus: float
    num_gpus: float

    @property
    def threads(self) -> int:
        """Torch threads of one worker."""
        return max(1, int(self.num_cpus))

    def count_on(self, node: Resources) -> int:
        """How many workers of this size a node holds. With a CPU share of zero only GPUs count, and the reverse."""
        by_cpus = node.get("CPU", 0.0) / self.num_cpus if self.num_cpus else math.inf
        by_gpus = node.get("GPU", 0.0) / self.num_gpus if self.num_gpus else math.inf
        workers = min(by_cpus, by_gpus)
        return 0 if math.isinf(workers) else int(workers + 1e-6)


def size_workers(config: RuntimeConfig, nodes: Sequence[Resources]) -> WorkerSize:
    """One worker's share of the nodes' resources (`CPU`, `GPU`).

    auto: several workers share a GPU where there are any, each with its share of the node's cores; else all the cores
    of the smallest node, or a share of them when the number of workers is given. Without nodes (an autoscaling cluster
    that sleeps): one core, and GPUs only as configured.
    """
    num_gpus = _gpus(config, nodes)
    if config.num_cpus != "auto":
        return WorkerSize(num_cpus=config.num_cpus, num_gpus=num_gpus)
    return WorkerSize(num_cpus=_auto_cpus(config, nodes, num_gpus), num_gpus=num_gpus)


def _gpus(config: RuntimeConfig, nodes: Sequence[Resources]) -> float:
    if config.num_gpus != "auto":
        return config.num_gpus
    hosts = [node for node in nodes if node.get("GPU", 0.0) >= 1]
    if not hosts:
        return 0.0
    if config.workers != "auto":
        sharing = math.ceil(config.workers / sum(int(node["GPU"]) for node in hosts))
    else:
        cores = CORES_BESIDE_GPU if config.num_cpus == "auto" else config.num_cpus
        rooms = (min(n.get("CPU", 0.0) / cores, n.get("memory", math.inf) / BYTES_BESIDE_GPU) / n["GPU"] for n in hosts)
        sharing = int(min(rooms))
    # Ray counts in ten-thousandths.
    return math.floor(1e4 / min(max(1, sharing), MOST_ON_GPU)) / 1e4


def _auto_cpus(config: RuntimeConfig, nodes: Sequence[Resources], num_gpus: float) -> float:
    hosts = [n for n in nodes if n.get("GPU" if num_gpus else "CPU", 0.0) > 0]
    if not hosts:
        return 1.0
    if num_gpus:
        cores = min(n.get("CPU", 0.0) / (n["GPU"] / num_gpus) for n in hosts)
    else:
        workers_per_host = 1 if config.workers == "auto" else math.ceil(config.workers / len(hosts))
        cores = min(n["CPU"] for n in hosts) / workers_per_host
    # A worker with less than a core is possible (four workers on two cores); Ray counts in ten-thousandths.
    # A third of a GPU is a little less than one in ten-thousandths.
    return float(math.floor(cores + 1e-3)) if cores >= 1 else math.floor(cores * 1e4) / 1e4


def count_workers(config: RuntimeConfig, size: WorkerSize, nodes: Sequence[Resources]) -> int:
    """As configured, or as many as the cluster holds now; at least one, so that an autoscaler sees the demand."""
    if config.workers != "auto":
        return config.workers
    return max(1, sum(size.count_on(n) for n in nodes))
