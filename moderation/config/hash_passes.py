"""Passes that only hash: their detectors, and how they sample videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Detectors that only hash: a pass of these alone is cheap.
HASHING: frozenset[str] = frozenset({"pdq", "known"})
# How such a pass samples videos, so that a copy which was trimmed has frames near those of the original: of videos in
# motion half of the frames are within 31 bits of those 1/15 s later, and hardly any of those 1/4 s later. Eight frames
# a second up to 112 s, one up to 15 minutes, as many spread over a longer video (1 GB of frames at 16:9).
DENSE: Mapping[str, Any] = {"sampling": "uniform", "fps": 8.0, "max_gap_s": 0.125, "frame_budget": 900}
