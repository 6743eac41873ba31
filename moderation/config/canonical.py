"""Configuration as text for hashing."""

from __future__ import annotations

import json


def canonical_json(value: object) -> str:
    """Stable JSON for hashing: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
