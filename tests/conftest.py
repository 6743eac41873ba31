"""What holds for all tests: no deadlines on examples, and which tests `make test` leaves to `make test-long`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure; speed belongs into benchmarks/. Where a change is let in the examples are the same each
# time, so that it is refused for what it did; new ones are looked for on developers' machines.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")

# Files of which every test starts Ray jobs, a cluster or trains a model: minutes each on two cores.
LONG = frozenset(
    {
        "test_clip.py",
        "test_full.py",
        "test_job_submission.py",
        "test_memory.py",
        "test_metrics.py",
        "test_nightly.py",
        "test_nodes.py",
        "test_prompts.py",
        "test_s3.py",
        "test_scale.py",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of long files."""
    for item in items:
        if Path(str(item.fspath)).name in LONG:
            item.add_marker(pytest.mark.long)
