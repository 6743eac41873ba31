"""What each kind of process leaves out: torch in the driver, Ray where no work is left, pandas everywhere."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moderation.lean_imports import without_module
from moderation.runtime.cluster import _in_environment


def _imported(code: str, *names: str) -> list[str]:
    """Which of these modules are there once this code has run in a process of its own."""
    tail = f"\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return list(eval(done.stdout.splitlines()[-1], {}))  # what the line above has printed


def test_runs_are_checked_and_named_without_torch(tmp_path: Path) -> None:
    code = (
        "from moderation.config.load import load_config\n"
        "from moderation.runtime.backfill import judging_task\n"
        "from moderation.runtime.prepare import prepare_run\n"
        "for name in ('default', 'full', 'clip'):\n"
        f"    run = prepare_run({str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}, load_config(name))\n"
        "    judging_task(run).to_json()"
    )
    assert _imported(code, "torch", "ray", "pandas") == []


def test_no_detector_of_this_package_needs_torch_to_be_declared() -> None:
    code = "from moderation.detectors.registry import available\nfor name in available(): available()[name]"
    assert _imported(code, "torch") == []


def test_the_nightly_module_imports_neither_torch_nor_ray() -> None:
    assert _imported("import moderation.runtime.nightly, moderation.runtime.resume", "torch", "ray") == []


def test_a_run_by_processes_of_this_machine_imports_no_ray() -> None:
    code = (
        "import moderation.runtime.plan_run, moderation.runtime.smoke, moderation.runtime.worker_process\n"
        "from moderation.config.model import RuntimeConfig\n"
        "from moderation.runtime.exporters import describe_metrics\n"
        "from moderation.runtime.open_pool import check_pool, open_pool\n"
        "from tests.scripted_task import ScriptedTask\n"
        "config = RuntimeConfig(pool='processes')\n"
        "with open_pool(check_pool(config), ScriptedTask(), config, 'run') as opened:\n"
        "    opened.pool.close()\n"
        "describe_metrics('run', 'processes')"
    )
    assert _imported(code, "torch", "ray", "pandas") == []


def test_the_job_files_import_no_heavy_library() -> None:
    jobs = ", ".join(f"jobs.{name}" for name in ("status", "report", "config_show", "backfill", "nightly", "rejudge"))
    assert _imported(f"import {jobs}", "torch", "ray", "pandas", "matplotlib", "PIL") == []


def test_arrow_is_asked_for_arrays_without_pandas() -> None:
    code = "from moderation.lean_imports import leave_pandas_out as leave\nleave()\nimport pyarrow as pa\npa.array([1])"
    assert _imported(code, "pandas") == []


def test_a_table_becomes_a_frame_of_pandas_all_the_same() -> None:
    pytest.importorskip("pandas")
    code = (
        "from moderation.lean_imports import leave_pandas_out as leave\nleave()\nimport pyarrow as pa\n"
        "assert pa.table({'a': [1]}).to_pandas().shape == (1, 1)"
    )
    assert _imported(code, "pandas") == ["pandas"]


def test_a_module_is_absent_only_meanwhile_and_alone() -> None:
    with without_module("wave"), pytest.raises(ModuleNotFoundError, match="'wave'"):
        sys.modules.pop("wave", None)
        importlib.import_module("wave")
    assert importlib.import_module("wave").__name__ == "wave"


def test_what_is_imported_already_stays() -> None:
    importlib.import_module("wave")
    with without_module("wave"):
        assert importlib.import_module("wave").__name__ == "wave"


def test_processes_started_meanwhile_have_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NA_SET", "before")
    monkeypatch.delenv("NA_UNSET", raising=False)
    with _in_environment({"NA_SET": "now", "NA_UNSET": "now"}):
        assert (os.environ["NA_SET"], os.environ["NA_UNSET"]) == ("now", "now")
    assert os.environ["NA_SET"] == "before" and "NA_UNSET" not in os.environ
