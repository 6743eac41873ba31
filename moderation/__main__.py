"""`moderation JOB` and `python -m moderation JOB`: the jobs inside the wheel, or those of the clone around it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec


def main() -> None:
    """Run one job. By name only: no module of the library imports a job."""
    # The wheel carries the folder `jobs` as `moderation._jobs`, so that site-packages gets no package called `jobs`.
    package = "moderation._jobs" if find_spec("moderation._jobs") else "jobs"
    import_module(f"{package}.__main__").main()


if __name__ == "__main__":
    main()
