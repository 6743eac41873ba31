"""`ray start` whose workers are forked from a process that has imported torch and this package already.

`python -m tests.warm_workers FOLDER start --head ...` is `ray start --head ...` but for one thing: where a raylet would
run a fresh interpreter for a worker, which costs 8 to 10 s of a processor before its first line of ours, a helper
forks. Such a worker is a process like any other: its own id, environment, log and end. The tests start a hundred.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import runpy
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

# What a worker imports; not Ray itself, which reads the environment once, when it is imported.
_MODULES = ("moderation.pipeline.shard", "google.protobuf.message", "jsonschema", "psutil", "requests", "yaml")
_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_SCRIPT = "default_worker.py"
_CONTEXT = "--serialized-runtime-env-context"
# Stopped, so that its arguments and environment can be read until it is killed. All but workers run as they would.
_INTERPRETER = r"""#!/bin/sh
case "$*" in
*/setup_worker.py\ */default_worker.py\ *) echo $$ > {requests}; kill -STOP $$ ;;
*) exec {python} "$@" ;;
esac
"""


def main(folder: Path, arguments: Sequence[str]) -> None:
    """`ray ARGUMENTS`, with a helper for its workers as a child."""
    requests, interpreter = folder / "workers", folder / "python"
    os.mkfifo(requests)
    interpreter.write_text(_INTERPRETER.format(requests=requests, python=sys.executable))
    interpreter.chmod(stat.S_IRWXU)
    if os.fork() == 0:
        _become(_fork_each(requests))
        return
    import ray.scripts.scripts as scripts

    scripts.get_ray_client_dependency_error = lambda: "no test uses it"  # type: ignore[attr-defined]
    sys.executable = str(interpreter)
    sys.argv = ["ray", *arguments]
    scripts.main()


def _fork_each(requests: Path) -> int:
    """Fork for each process id that comes, for ever; returns it in each child."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # no longer than the node
    for name in _MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    # For writing too, so that it does not end when nobody else has it open.
    with os.fdopen(os.open(requests, os.O_RDWR)) as lines:
        for line in lines:
            if os.fork() == 0:
                return int(line)
    raise AssertionError("it is open for writing")


def _become(asked: int) -> None:
    """Do what that process was asked to do, with its environment and output, and end it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    proc = Path("/proc") / str(asked)
    command = [os.fsdecode(part) for part in (proc / "cmdline").read_bytes().split(b"\0")[:-1]]
    pairs = [entry.partition(b"=") for entry in (proc / "environ").read_bytes().split(b"\0") if entry]
    os.environ.clear()
    os.environ.update({os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs})
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_APPEND), (2, os.O_WRONLY | os.O_APPEND)):
        os.dup2(os.open(proc / "fd" / str(number), mode), number)
    os.chdir((proc / "cwd").readlink())
    os.kill(asked, signal.SIGKILL)
    sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]

    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs

    context = next((part.partition("=")[2] for part in command if part.startswith(f"{_CONTEXT}=")), "{}")
    update_envs(RuntimeEnvContext.deserialize(context).env_vars)
    first = next(i for i, part in enumerate(command) if part.endswith(_SCRIPT))
    sys.argv = [part for part in command[first:] if not part.startswith((_CONTEXT, "--language"))]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
