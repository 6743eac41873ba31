"""What a worker is given: it travels as JSON, it dies in a process of its own, and it loads no more than it needs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moderation.config.model import Config, RuntimeConfig
from moderation.runtime.isolated_run import main, run_isolated
from moderation.runtime.keyframe_task import KeyframeTask
from moderation.runtime.task import small_memory, small_memory_config
from tests.deadly_task import DeadlyTask
from tests.fake_pool import numbered_shards
from tests.job_runs import REPOSITORY


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("survive", "survived"),
        ("SIGSEGV", "SIGSEGV"),
        ("raise", "exit code 1"),
        ("hang", "timeout"),
    ],
)
def test_an_isolated_run_tells_how_its_process_ended(ending: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (shard,) = numbered_shards(1)
    assert run_isolated(DeadlyTask(ending), shard, threads=1, timeout_s=1.0) == told


def test_an_isolated_run_takes_no_module_of_the_folder_that_it_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyarrow.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    (shard,) = numbered_shards(1)
    assert run_isolated(DeadlyTask("survive"), shard, threads=1, timeout_s=5.0) == "survived"


def test_a_keyframe_task_is_the_same_after_its_journey() -> None:
    task = KeyframeTask(config=Config(runtime=RuntimeConfig(fetch_threads=3)), out="s3://bucket/cut")
    assert KeyframeTask.from_json(task.to_json()).to_json() == task.to_json()


def test_a_judging_task_is_the_same_after_its_journey() -> None:
    from moderation.config.load import load_config
    from moderation.policy.model import policy_hash
    from moderation.runtime.backfill import judging_task
    from moderation.runtime.judging_task import JudgingTask
    from moderation.runtime.prepare import prepare_run

    config = load_config(None, ["runtime.fetch_threads=3"])
    task = judging_task(prepare_run("/in", "/out", config))
    copy = JudgingTask.from_json(task.to_json())
    assert copy.to_json() == task.to_json()
    # The default policy has attributes, of which `null` must not be said: an isolated run could not read it.
    assert policy_hash(copy._rules) == policy_hash(task._rules)


def test_small_memory_changes_nothing_that_decides_a_score() -> None:
    config = Config()
    small = small_memory_config(config)
    assert small.model_copy(update={"runtime": config.runtime}) == config
    assert small.runtime.fetch_budget_bytes < config.runtime.fetch_budget_bytes
    with small_memory(config) as (used, pools):
        assert used == small and pools.decode_threads == 1
    with pytest.raises(RuntimeError):
        pools.decode.submit(int)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("moderation.runtime.keyframe_task, moderation.runtime.worker_process", {"torch", "ray"}),
        ("moderation.runtime.isolated_run", {"torch", "ray"}),
        ("moderation.runtime.keyframes", {"torch", "ray"}),
        ("moderation.runtime.driver", {"torch", "ray"}),
        ("moderation.runtime.task, moderation.runtime.sizing, moderation.runtime.keyframe_task", {"torch", "ray"}),
    ],
    ids=[
        "a worker that cuts keyframes",
        "an isolated run",
        "the job that cuts keyframes",
        "the driver's loop",
        "tasks and sizes",
    ],
)
def test_what_is_not_needed_is_not_loaded(modules: str, heavy: set[str]) -> None:
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not heavy & set(done.stdout.split())


def test_the_program_of_an_isolated_run_takes_its_task_by_name(tmp_path: Any) -> None:
    from moderation.planning.plan import encode_shards

    (tmp_path / "task.json").write_text(DeadlyTask("survive").to_json())
    (tmp_path / "plan.parquet").write_bytes(encode_shards(numbered_shards(2)))
    name = f"{DeadlyTask.__module__}:DeadlyTask"
    main(name, str(tmp_path / "task.json"), str(tmp_path / "plan.parquet"), "1", "60")
    assert signal.alarm(0) > 0  # its own end, should nobody wait for it
