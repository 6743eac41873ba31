"""An isolated run: a few items in a process of its own, which may die of them.

`python -m moderation.runtime.isolated_run MODULE:TASK SETTINGS PLAN THREADS SECONDS` is that process. Its exit status
names the signal that ended it, which Ray does not say.
"""

from __future__ import annotations

import importlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from moderation.concurrency import die_with_parent
from moderation.planning.plan import decode_shards, encode_shards
from moderation.runtime.bisection import SURVIVED, TIMED_OUT
from moderation.runtime.own_group import describe_exit
from moderation.runtime.task import WorkerTask
from moderation.types import Shard

LOAD_TIMEOUT_S = 300.0  # for imports and the task's loading, before the clock of the items starts


def run_isolated(task: WorkerTask, shard: Shard, *, threads: int, timeout_s: float) -> str:
    """How a process of its own ends on these items: a signal's name, `exit code N`, `timeout`, or `survived`."""
    # Files without names: nothing of them is left where this process is killed meanwhile.
    with tempfile.TemporaryFile() as settings, tempfile.TemporaryFile() as plan:
        for file, data in ((settings, task.to_json().encode()), (plan, encode_shards([shard]))):
            file.write(data)
            file.flush()
            file.seek(0)
        fds = [settings.fileno(), plan.fileno()]
        paths = [f"/dev/fd/{fd}" for fd in fds]
        name = f"{type(task).__module__}:{type(task).__qualname__}"
        module = "moderation.runtime.isolated_run"
        # -P: the folder that the worker runs in may hold modules of anybody.
        command = [sys.executable, "-P", "-m", module, name, *paths, str(threads), str(timeout_s)]
        try:
            # No pipes: nothing is read of them, and whatever holds one open would outlast the process.
            ended = subprocess.run(
                command,
                timeout=timeout_s + LOAD_TIMEOUT_S,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                pass_fds=fds,
            )
        except subprocess.TimeoutExpired:
            return TIMED_OUT
    return _ending(ended.returncode)


def _ending(exit_status: int) -> str:
    if exit_status == -signal.SIGALRM:
        return TIMED_OUT
    return SURVIVED if exit_status == 0 else describe_exit(exit_status)


def main(name: str, settings: str, plan: str, threads: str, seconds: str) -> None:
    """Go through the items of a plan; nothing is written."""
    module, _, class_name = name.partition(":")
    task_class: type[WorkerTask] = getattr(importlib.import_module(module), class_name)
    task = task_class.from_json(Path(settings).read_text(encoding="utf-8"))
    task.load(int(threads))
    # Ends this process even if the worker that waits for it is gone.
    signal.alarm(max(1, math.ceil(float(seconds))))
    for shard in decode_shards(Path(plan).read_bytes()):
        task.probe(shard, {}, "small")


if __name__ == "__main__":
    die_with_parent()  # a worker that is killed meanwhile leaves nothing behind
    main(*sys.argv[1:6])
