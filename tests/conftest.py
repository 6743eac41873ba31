"""Settings for all tests: no deadlines on examples; the process ends without the interpreter's teardown."""

from __future__ import annotations

import atexit
import os
import sys
import threading

import pytest
from hypothesis import settings

# A busy machine is no failure; speed belongs in benchmarks/. In CI the examples are the same each time, so only the
# change itself can fail; developers' machines look for new ones.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process here, when all is reported.

    Tests of decoders that hang leave threads in native code. When one of them came back while the interpreter was torn
    down, the process ended with SIGSEGV after all tests had passed (twice in some forty runs in CI). Jobs run in
    processes of their own, whose exit codes the tests of `tests/integration` check.
    """
    if _STATUS not in config.stash or "PYTEST_XDIST_WORKER" in os.environ:
        return
    left = [t.name for t in threading.enumerate() if t is not threading.main_thread() and t.is_alive()]
    if left:
        print(f"threads at the end: {', '.join(sorted(left))}", file=sys.stderr)  # noqa: T201 - for whoever looks for one
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[_STATUS])


_STATUS = pytest.StashKey[int]()
