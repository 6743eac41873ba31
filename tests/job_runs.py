"""Running the real program in tests: the command line as a process of its own, with a small stack or the whole one."""

from __future__ import annotations

import atexit
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parent.parent
PLUGINS = REPOSITORY / "tests" / "plugins"
SHARED = REPOSITORY.parent / "shared" / "data"
SHARED_CLUSTER = "MODERATION_TEST_RAY_ADDRESS"

POLICY = """
version: 1
default: pass
checks:
  reddish:
    side: negative
    votes: [tiny.red]
    block: 0.95
    review: 0.6
    null: review
"""


def make_tiny_config(folder: Path, **options: Any) -> Path:
    """A configuration with the plug-in detector alone: starts at once and scores a thousand pictures a second."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(POLICY)
    config = {
        "policy": "policy.yaml",
        "stack": {"detectors": [{"name": "tiny", "options": options}]},
        "shards": {"max_items": 8},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def make_pictures(folder: Path, count: int, special: Mapping[int, tuple[int, int, int]] | None = None) -> Path:
    """Small PNGs of different greys; `special` ones in a plain colour of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        level = 20 + index * 7 % 120
        colour = (special or {}).get(index, (level, level, level))
        Image.new("RGB", (16 + index % 5, 16), colour).save(folder / f"{index:04d}.png")
    return folder


def job_env(*, own_cluster: bool = False, **extra: str) -> dict[str, str]:
    """The environment of a job: our packages and the plug-in on the path, the tests' cluster where it runs."""
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    if SHARED_CLUSTER in env and not own_cluster:
        env["RAY_ADDRESS"] = env[SHARED_CLUSTER]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), str(PLUGINS), env.get("PYTHONPATH")]))
    return {**env, "PYTHONPATH": path, **extra}


class JobProcess:
    """`python -m jobs ARGUMENTS` as a process of its own, forked from one that has imported what takes longest.

    Its output is in files, so that it is never held up by who reads it. A context ends with the process, which is
    killed where the context fails.
    """

    def __init__(self, *arguments: object, env: Mapping[str, str]) -> None:
        self.args = [str(a) for a in arguments]
        self._folder = Path(tempfile.mkdtemp(prefix="job"))
        self._process = _FORKING.Process(target=_be_a_job, args=(self.args, dict(env), str(self._folder)))
        self._process.start()

    def __enter__(self) -> JobProcess:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is not None:
            self.kill()
        self.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._printed("stdout")

    @property
    def stderr(self) -> str:
        """Its log so far."""
        return self._printed("stderr")

    def poll(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """The same, once it has ended. Raises TimeoutExpired."""
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout_s or 0)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def interrupt(self) -> None:
        """SIGINT, as Ctrl-C sends it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)

    def _printed(self, name: str) -> str:
        file = self._folder / name
        return file.read_text() if file.exists() else ""


# Not Ray: it reads its settings from the environment once, when it is imported.
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["moderation.pipeline.shard", "tests.job_runs", "jobs.__main__"])


def _be_a_job(arguments: list[str], env: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)

    from jobs.__main__ import main

    try:
        main(arguments)
    finally:
        atexit._run_exitfuncs()  # a forked process leaves without


def run_job(
    *arguments: object, env: Mapping[str, str] | None = None, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """`python -m jobs ARGUMENTS`, to its end: with `env` in a process of its own, else in this one.

    Most tests ask for the second, which saves them the imports; what it starts on the cluster is as real.
    """
    if env is None:
        return _run_here([str(a) for a in arguments])
    with JobProcess(*arguments, env=env) as job:
        try:
            code = job.wait(timeout_s)
        except subprocess.TimeoutExpired:
            job.kill()
            raise
        return subprocess.CompletedProcess(job.args, code, job.stdout, job.stderr)


def _run_here(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    from jobs.__main__ import main

    stdout, stderr = io.StringIO(), io.StringIO()
    added = [p for p in (str(REPOSITORY), str(PLUGINS)) if p not in sys.path]
    address = os.environ.get(SHARED_CLUSTER)
    code: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "path", [*added, *sys.path])
        if address:
            patch.setenv("RAY_ADDRESS", address)
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(arguments, int(code or 0), stdout.getvalue(), stderr.getvalue())


def verdicts(out: Path) -> pa.Table:
    """All verdict rows, sorted by URI."""
    return read_parts(out, "verdicts").sort_by("uri")


def read_parts(out: Path, table: str) -> pa.Table:
    """The parts of a table, one after the other."""
    return pa.concat_tables([pq.read_table(p) for p in sorted((out / table).glob("part-*.parquet"))])


def part_bytes(out: Path) -> dict[str, bytes]:
    """Every committed file of the tables, by its name."""
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for t in ("verdicts", "votes") for p in (out / t).iterdir()}


def summary(out: Path) -> dict[str, Any]:
    """summary.json."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def log_lines(stderr: str, event: str | None = None) -> list[dict[str, Any]]:
    """The structured log of a job that ran off a terminal."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if event is None or line["event"] == event]


def by_name(table: pa.Table, columns: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """File name -> the given columns."""
    rows = table.select(["uri", *columns]).to_pylist()
    return {row["uri"].rsplit("/", 1)[-1]: tuple(row[c] for c in columns) for row in rows}


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
