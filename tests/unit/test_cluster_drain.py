"""The preStop hook, run for real against processes of its own naming."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DRAIN = Path(__file__).resolve().parents[2] / "cluster" / "drain.sh"
DRIVER = """
import pathlib, signal, sys, time
def finish(*_):
    time.sleep(1.2)  # the shards in flight
    pathlib.Path(sys.argv[1]).write_text("summary")
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
print("ready", flush=True)
time.sleep(60)
"""

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="the hook reads /proc"),
]


@dataclass
class DrainedMachine:
    """Processes with names that nobody else on this machine has."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def program(self) -> str:
        return f"/nowhere/bin/driver-{self.mark}"

    @property
    def actor(self) -> str:
        return f"ray::Actor{self.mark}.moderate"

    def start(self, *arguments: str, executable: str | None = None, wait: bool = False) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(arguments, executable=executable, stdout=subprocess.PIPE if wait else None)
        self.running.append(process)
        if wait:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        return process

    def drain(self) -> int:
        patterns = [f"/bin/driver-{self.mark}$", f"^ray::Actor{self.mark}"]
        return subprocess.run(["sh", str(DRAIN), *patterns], timeout=30, check=False).returncode


@pytest.fixture
def machine() -> Iterator[DrainedMachine]:
    machine = DrainedMachine()
    yield machine
    for process in machine.running:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_a_head_is_held_until_its_driver_has_written_the_summary(machine: DrainedMachine, tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    driver = machine.start(sys.executable, "-c", DRIVER, str(summary), machine.program, wait=True)
    assert machine.drain() == 0
    assert summary.read_text() == "summary"
    assert driver.wait(timeout=10) == 0


def test_a_worker_is_held_until_its_actor_is_gone_and_does_not_end_it(machine: DrainedMachine) -> None:
    actor = machine.start(machine.actor, "1.5", executable="/bin/sleep")
    assert machine.drain() == 0
    assert actor.wait(timeout=10) == 0  # by itself, not by a signal


def test_an_idle_pod_goes_at_once_and_bystanders_are_left_alone(machine: DrainedMachine) -> None:
    bystanders = [
        machine.start(f"{machine.program}-exporter", "60", executable="/bin/sleep"),
        machine.start(f"not-{machine.actor}", "60", executable="/bin/sleep"),
    ]
    assert machine.drain() == 0
    assert [p.poll() for p in bystanders] == [None, None]
