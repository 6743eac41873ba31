"""The crew of a run: how many workers of what size fit into the cluster, and the actors themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from moderation.config.model import Config, RuntimeConfig
from moderation.policy.model import Policy
from moderation.results.record import RunFacts
from moderation.runtime.worker import MALLOC_ENV, ShardWorker

Resources = Mapping[str, float]

# Ray ends a worker that it cannot place in no time at all, and one whose stack does not load as fast: this many in a
# row without a success are no accident.
MOST_FAILED_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker gets of a node."""

    num_cpus: float
    num_gpus: float

    @property
    def threads(self) -> int:
        """Torch threads of one worker."""
        return max(1, int(self.num_cpus))

    def fits(self, node: Resources) -> int:
        """How many workers of this size a node holds. A CPU share of zero counts GPUs only, and the reverse."""
        cpus = node.get("CPU", 0.0) / self.num_cpus if self.num_cpus else math.inf
        gpus = node.get("GPU", 0.0) / self.num_gpus if self.num_gpus else math.inf
        most = min(cpus, gpus)
        return 0 if math.isinf(most) else int(most + 1e-6)


def share_out(config: RuntimeConfig, nodes: Sequence[Resources]) -> Share:
    """One worker's share of the nodes' resources (`CPU`, `GPU`).

    auto: a GPU each where there are any, with its part of the node's cores; else all the cores of the smallest node,
    or their part when the number of workers is given. Without nodes (an autoscaling cluster that sleeps): a core, and
    GPUs only as configured.
    """
    num_gpus = (
        (1.0 if any(n.get("GPU", 0.0) >= 1 for n in nodes) else 0.0) if config.num_gpus == "auto" else config.num_gpus
    )
    if config.num_cpus != "auto":
        return Share(num_cpus=config.num_cpus, num_gpus=num_gpus)
    hosts = [n for n in nodes if n.get("GPU" if num_gpus else "CPU", 0.0) > 0]
    if not hosts:
        return Share(num_cpus=1.0, num_gpus=num_gpus)
    if num_gpus:
        cores = min(n.get("CPU", 0.0) / (n["GPU"] / num_gpus) for n in hosts)
    else:
        a_host = 1 if config.workers == "auto" else math.ceil(config.workers / len(hosts))
        cores = min(n["CPU"] for n in hosts) / a_host
    # A worker with less than a core is possible (four workers on two cores); Ray counts in ten-thousandths.
    return Share(num_cpus=float(math.floor(cores)) if cores >= 1 else math.floor(cores * 1e4) / 1e4, num_gpus=num_gpus)


def wanted_workers(config: RuntimeConfig, share: Share, nodes: Sequence[Resources]) -> int:
    """As configured, or as many as the cluster holds now; one at least, so that an autoscaler sees the demand."""
    if config.workers != "auto":
        return config.workers
    return max(1, sum(share.fits(n) for n in nodes))


def live_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that are alive, as Ray describes them."""
    return [n for n in ray.nodes() if n["Alive"]]


def node_gone(member: Member) -> bool:
    """Whether the node of a worker has left the cluster; of one that has not said where it is, whether any has."""
    alive = {n["NodeID"] for n in live_nodes()}
    return not alive.issuperset({member.node} if member.node is not None else member.nodes_then)


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """A worker actor: loading until `loading` has answered, then with tasks in flight (by Ray's reference).

    placing: answers with its node and process once it runs somewhere; None when it has. nodes_then: the cluster's when
    it was asked for.
    """

    actor: Any
    loading: Any | None
    placing: Any | None = None
    placed_s: float | None = None
    nodes_then: frozenset[str] = frozenset()
    facts: dict[str, Any] = field(default_factory=dict)
    tasks: dict[Any, Any] = field(default_factory=dict)

    @property
    def node(self) -> str | None:
        """The node it runs on, once it has said so."""
        return self.facts.get("node")


@dataclass(slots=True, kw_only=True)
class Crew:
    """The workers of a run: keeps as many as wanted, fills lost places again."""

    config: Config
    policy: Policy
    facts: RunFacts
    out: str
    worker: type[ShardWorker] = ShardWorker
    members: list[Member] = field(default_factory=list)
    share: Share | None = None
    failed_starts: int = 0
    started: int = 0
    _looked_s: float = -math.inf
    _wanted: int = 1
    _nodes: frozenset[str] = frozenset()

    def fill(self, most: int) -> None:
        """Start workers up to what is wanted now, never more than `most` (there may be less work than room)."""
        now = time.monotonic()
        if now - self._looked_s > 2.0:
            # Nodes join and leave; asking the head is cheap, but not free.
            alive = live_nodes()
            nodes = [n["Resources"] for n in alive]
            self._nodes = frozenset(n["NodeID"] for n in alive)
            if self.share is None or not self.members:
                self.share = share_out(self.config.runtime, nodes)
            self._wanted = wanted_workers(self.config.runtime, self.share, nodes)
            self._looked_s = now
        while len(self.members) < min(self._wanted, max(1, most)):
            self.members.append(self._start())

    def _start(self) -> Member:
        assert self.share is not None
        threads = self.share.threads
        options = {
            "num_cpus": self.share.num_cpus,
            "num_gpus": self.share.num_gpus,
            # A place more than shards in flight, so that a question is answered while they are at work.
            "max_concurrency": self.config.runtime.shards_in_flight + 1,
            "max_restarts": 0,  # a lost worker is replaced here, where its shards are known
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads), **MALLOC_ENV}},
        }
        actor = (
            ray.remote(self.worker).options(**options).remote(self.config, self.policy, self.facts, self.out, threads)
        )
        self.started += 1
        return Member(actor=actor, placing=actor.place.remote(), loading=actor.load.remote(), nodes_then=self._nodes)

    def remove(self, member: Member) -> None:
        """End a worker and forget it; the caller puts its tasks back."""
        ray.kill(member.actor, no_restart=True)
        if member in self.members:
            self.members.remove(member)

    def dismiss(self) -> None:
        """End all workers."""
        for member in list(self.members):
            self.remove(member)

    @property
    def refs(self) -> list[Any]:
        """What can become ready: answers of new workers and of tasks."""
        found = [ref for m in self.members for ref in (m.placing, m.loading) if ref is not None]
        return found + [ref for m in self.members for ref in m.tasks]

    def owner(self, ref: Any) -> Member | None:  # noqa: ANN401 - Ray is untyped
        """Whose answer a reference is; None when its worker is gone."""
        return next((m for m in self.members if ref in (m.placing, m.loading) or ref in m.tasks), None)
