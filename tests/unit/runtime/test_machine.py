"""Cores and GPUs of this machine, as containers limit them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moderation.runtime.machine import GpuShares, count_cores, find_gpus


def test_cores_are_those_of_the_affinity_or_of_the_quota_whichever_is_less(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert count_cores(tmp_path) == allowed
    for text, cores in (
        ("max 100000", allowed),
        ("50000 100000", 1),
        ("150000 100000", 1),
        ("9900000 100000", allowed),
    ):
        (tmp_path / "cpu.max").write_text(text)
        assert count_cores(tmp_path) == cores, text
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, cores in (("-1\n", allowed), ("100000\n", 1)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        assert count_cores(tmp_path) == cores, quota


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
    assert [shares.take(0.5) for _ in range(3)] == [("0",), ("0",), ("1",)]
    assert shares.take(1.0) == () and shares.take(0.0) == ()
    shares.give_back(("1",), 0.5)
    assert shares.take(1.0) == ("1",)
    shares.give_back(("0",), 0.5)
    shares.give_back(("0",), 0.5)
    shares.give_back(("1",), 1.0)
    assert shares.take(2.0) == ("0", "1")
