"""What holds for all tests: no deadlines on examples."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is no failure; speed belongs into benchmarks/. Where a change is let in the examples are the same each
# time, so that it is refused for what it did; new ones are looked for on developers' machines.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")
