"""Section `tests`: `tests/gpu` under pytest, each outcome a line at once (see `tests/gpu/conftest.py`)."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.device.models import Place
from benchmarks.device.record import Record
from benchmarks.device.weights import PACK

# Without a GPU, to see that the tests run: two detectors, compared with themselves.
_FEW = "(open_nsfw or quality) and default"


def run(record: Record, place: Place) -> None:
    """Run pytest; a failing test is a line with an error, not an error of the section."""
    # Parity first: of the faults less is new.
    files = ["tests/gpu/test_device_parity.py", "tests/gpu/test_device_faults.py"]
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "--no-header", "-rf"]
    command += ["--timeout", "100"]
    environment = {**os.environ, "DEVICE_RECORD": str(record.path)}
    if place.tiny:
        environment["DEVICE_TESTS_ON"] = "cpu"
        command += ["-k", _FEW]
    done = subprocess.run(command, cwd=PACK, env=environment, check=False)
    # 0: passed, 1: some failed (their lines say which), 5: none chosen.
    if done.returncode not in (0, 1):
        record.add("pytest", error=f"pytest ended with exit code {done.returncode}")
