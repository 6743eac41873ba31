"""Which pool a run gets: by what is configured, joined and seen."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from moderation.config import pool_choice
from moderation.config.load import load_config
from moderation.config.model import RuntimeConfig
from moderation.config.pool_choice import choose_pool, describe_pool, has_gpu
from moderation.errors import UsageError


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, in a process that has not joined Ray."""
    monkeypatch.setattr(pool_choice, "has_gpu", lambda _: False)
    monkeypatch.setattr(pool_choice, "AUTO_CHOOSES_PROCESSES", True)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_auto_is_processes_only_on_a_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = RuntimeConfig()
    assert choose_pool(auto, {}) == choose_pool(auto, {"RAY_ADDRESS": ""}) == "processes"
    assert choose_pool(auto, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "ray"
    assert choose_pool(RuntimeConfig(ray_address="auto"), {}) == "ray"
    assert choose_pool(RuntimeConfig(pool="ray"), {}) == "ray"
    assert choose_pool(RuntimeConfig(pool="processes"), {"RAY_ADDRESS": "10.0.0.1:6379"}) == "processes"
    with monkeypatch.context() as patch:
        patch.setattr(pool_choice, "has_gpu", lambda _: True)
        assert choose_pool(auto, {}) == "ray"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
        assert choose_pool(auto, {}) == "ray"
    with monkeypatch.context() as patch:
        patch.setattr(pool_choice, "AUTO_CHOOSES_PROCESSES", False)
        assert choose_pool(auto, {}) == "ray"


def test_processes_and_a_cluster_are_refused_by_the_names_of_both_keys() -> None:
    with pytest.raises(UsageError, match=r"runtime\.pool is processes.*runtime\.ray_address is 10\.0\.0\.1:6379"):
        choose_pool(RuntimeConfig(pool="processes", ray_address="10.0.0.1:6379"), {})


def test_a_pool_that_there_is_not_gets_a_hint() -> None:
    with pytest.raises(UsageError, match=r"runtime\.pool.*'processes'"):
        load_config("default", ["runtime.pool=process"])


def test_the_first_line_of_a_run_says_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_pool(RuntimeConfig()) == "starting worker processes on this machine"
    assert describe_pool(RuntimeConfig(pool="ray")) == "starting Ray on this machine"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert describe_pool(RuntimeConfig()) == "joining Ray at 10.0.0.1:6379"


def test_a_gpu_is_seen_by_its_device_file_unless_it_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu({}, tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu({}, tmp_path) and has_gpu({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path)
    assert not has_gpu({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) and not has_gpu({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path)
