"""Cores and GPUs of this machine, as containers limit them."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.config.model import RuntimeConfig
from moderation.runtime.machine import GpuShares, WorkerShare, find_gpus


def test_gpus_are_numbered_by_their_device_files_and_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert find_gpus(tmp_path) == []
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidia-uvm", "nvidiactl"):
        (tmp_path / name).touch()
    assert find_gpus(tmp_path) == ["3", "1"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert find_gpus(tmp_path) == ["0", "1", "2", "3"]


def test_workers_share_gpus_as_configured_and_give_them_back() -> None:
    shares = GpuShares(ids=["0", "1"])
    assert [shares.take(0.5) for _ in range(3)] == [("0",), ("1",), ("0",)]  # none idle
    assert shares.take(1.0) == () and shares.take(0.0) == ()
    shares.give_back(("1",), 0.5)
    assert shares.take(1.0) == ("1",)
    shares.give_back(("0",), 0.5)
    shares.give_back(("0",), 0.5)
    shares.give_back(("1",), 1.0)
    assert shares.take(2.0) == ("0", "1")


@pytest.mark.parametrize("num_gpus", [0.4, 0.5, 0.6, 1, 2])
def test_no_more_workers_start_than_gpus_have_room_for(num_gpus: float) -> None:
    config = RuntimeConfig(pool="processes", num_gpus=num_gpus, num_cpus=1)
    resources = {"CPU": 16.0, "memory": 1e12, "GPU": 2.0}
    shares = GpuShares(ids=["0", "1"])
    assert all(shares.take(num_gpus) for _ in range(WorkerShare.of(config, resources).workers))
