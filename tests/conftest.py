"""Settings for all tests: no deadlines on examples."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is no failure; speed belongs in benchmarks/. In CI the examples are the same each time, so only the
# change itself can fail; developers' machines look for new ones.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")
