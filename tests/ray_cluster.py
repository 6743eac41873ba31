"""A real Ray cluster on this machine for tests: a head and more nodes, each a raylet with processes of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.job_runs import job_env

# Starting takes 6 s on an idle machine; Ray gives up on itself earlier than this on a busy one, and is asked again.
START_TIMEOUT_S = 180
START_ATTEMPTS = 4
STORE_BYTES = 100 * 1024 * 1024

_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",  # a token in the home directory would switch it on for the head alone
    "RAY_metrics_report_interval_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "150",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


_NODE_ID = re.compile(r"Setting node ID node_id=([0-9a-f]+)")
_AGENT_PORTS = (
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)


@dataclass(slots=True)
class Node:
    """One node: the process group of its `ray start --block`."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def processes(self) -> list[psutil.Process]:
        """The raylet, its agents and workers: all that `ray start` began, directly or not; parents first."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def runs(self, pid: int) -> bool:
        """Whether a process is one of this node's."""
        return any(p.pid == pid for p in self.processes)

    def kill(self) -> None:
        """Kill it as a lost machine would be: everything at once, nothing tidied."""
        # Workers are in process groups of their own. Stopped first, so that none can tell of another's end.
        processes = self.processes
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(slots=True)
class Cluster:
    """A head and its nodes."""

    port: int
    metrics_port: int
    dashboard_port: int
    nodes: list[Node] = field(default_factory=list)
    # What every process of its nodes has in its environment beside the usual.
    node_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return f"127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment of a job that runs on this cluster."""
        return job_env(RAY_ADDRESS=self.address)

    def add_node(self, *, num_cpus: int = 1, num_gpus: int = 0) -> Node:
        """Another node, once it has joined."""
        node = _start(["--address", self.address], num_cpus, num_gpus, self.node_env, session_of=self.nodes[0])
        self.nodes.append(node)
        return node

    def lose_node(self, node: Node) -> None:
        """Kill a node that is not the head."""
        node.kill()
        self.nodes.remove(node)
        shutil.rmtree(node.folder, ignore_errors=True)

    def wait_until_gone(self) -> None:
        """Wait until Ray knows of the nodes that were killed; a worker may be sent to one until then."""
        from ray._raylet import GcsClient

        client, deadline = GcsClient(address=self.address), time.monotonic() + 60
        while self._alive(client) > len(self.nodes):
            assert time.monotonic() < deadline, "Ray has not noticed that nodes are gone"
            time.sleep(0.2)

    def _alive(self, client: Any) -> int:
        return sum(info.state == 0 for info in client.get_all_node_info().values())

    def stop(self) -> None:
        """End every process that was started here."""
        for node in reversed(self.nodes):
            node.kill()
            shutil.rmtree(node.folder, ignore_errors=True)


@contextlib.contextmanager
def running_cluster(
    *, num_cpus: int = 2, num_gpus: int = 0, dashboard: bool = False, node_env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster with a head of these (logical) resources; ends with the block."""
    port, metrics_port, dashboard_port = free_port(), free_port(), free_port()
    cluster = Cluster(
        port=port, metrics_port=metrics_port, dashboard_port=dashboard_port, node_env=dict(node_env or {})
    )
    head = ["--head", "--port", str(port), "--metrics-export-port", str(metrics_port)]
    head += ["--include-dashboard", str(dashboard).lower(), "--dashboard-port", str(dashboard_port)]
    try:
        cluster.nodes.append(_start(head, num_cpus, num_gpus, cluster.node_env))
        yield cluster
    finally:
        cluster.stop()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(
    arguments: list[str], num_cpus: int, num_gpus: int, node_env: Mapping[str, str], session_of: Node | None = None
) -> Node:
    for _ in range(START_ATTEMPTS):
        # Short: the sockets of a session lie below it, and a socket's path has room for 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="rc", dir="/tmp"))
        command = [sys.executable, "-m", "tests.warm_workers", str(folder), "start", *arguments, "--block"]
        command += ["--num-cpus", str(num_cpus), "--num-gpus", str(num_gpus), "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.0.1", "--object-store-memory", str(STORE_BYTES)]
        # A raylet waits 15 s for its agents to say which ports they took, which is too short on a busy machine; it
        # does not wait when it is told.
        ports = {name: free_port() for name in _AGENT_PORTS}
        for name, port in ports.items():
            if name not in arguments:
                command += [name, str(port)]
        if "--head" in arguments:
            command += ["--no-monitor"]  # nothing scales these clusters
            command += ["--temp-dir", str(folder)]
        # Not the address of another cluster of the tests, nor the ports that every head of a machine would take.
        own = {name: str(free_port()) for name in ("DASHBOARD_METRIC_PORT", "AUTOSCALER_METRIC_PORT")}
        env = job_env(own_cluster=True, **_SETTINGS, **own, **node_env)
        log = folder / "start.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
        node = Node(process=process, folder=folder)
        session = (folder if session_of is None else session_of.folder) / "session_latest"
        if _wait_started(process, log, session, ports["--dashboard-agent-listen-port"]):
            return node
        node.kill()
    raise RuntimeError(f"ray start failed {START_ATTEMPTS} times: {log.read_text()[-2000:]}")


def _wait_started(process: subprocess.Popen[bytes], log: Path, session: Path, listen_port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if "Ray runtime started" in log.read_text(errors="replace"):
            return True
        _tell_listen_port(session, listen_port)
        time.sleep(0.2)
    return False


def _tell_listen_port(session: Path, port: int) -> None:
    """Write for a new raylet what its agent will: Ray 2.60 passes this port to the agent, not to the raylet."""
    for log in session.glob("logs/raylet*.out"):
        found = _NODE_ID.search(log.read_text(errors="replace"))
        # Those of older nodes are there; nodes start one after the other.
        if found is not None and not (told := session / f"dashboard_agent_listen_port_{found[1]}").exists():
            told.write_text(str(port))
