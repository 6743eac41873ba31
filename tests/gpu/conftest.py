"""GPU tests: where they run, what they compare with, and one line per outcome where the pack asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.device.weights import accept_packed

# The benchmark's own check, on a machine without a GPU, that these tests run: `cpu`.
_ON = os.environ.get("DEVICE_TESTS_ON", "cuda")


def pytest_configure(config: pytest.Config) -> None:
    """In the pack the weights are rounded and have other checksums."""
    accept_packed()


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test; skips where there is none."""
    if _ON == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return torch.device(_ON)


@pytest.fixture(scope="session")
def cuda(device: torch.device) -> torch.device:
    """The same, for what only a GPU has."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device, not a stand-in")
    return device


@pytest.fixture
def told() -> Iterator[Any]:
    """told(piece, **facts): a line beside the outcomes, as `benchmarks.device` records its figures."""
    yield _write


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line a test: passed, failed (with the end of why), or skipped (why)."""
    if report.when != "call" and report.passed:
        return
    name = report.nodeid.rpartition("tests/gpu/")[2]
    facts: dict[str, Any] = {"outcome": report.outcome, "took_s": round(report.duration, 2)}
    if report.failed:
        facts["error"] = str(report.longrepr)[-1500:]
    if report.skipped:
        facts["why"] = str(report.longrepr)[-200:]
    _write(name, **facts)


def _write(piece: str, **facts: Any) -> None:
    path = os.environ.get("DEVICE_RECORD")
    if path:
        with Path(path).open("a", encoding="utf-8") as sink:
            sink.write(json.dumps({"section": "tests", "piece": piece, **facts}) + "\n")
