"""JSON: as text that is hashed, and of files that others may have written."""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: object) -> str:
    """Stable JSON for hashing: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def parse_json(data: bytes | str) -> Any:  # noqa: ANN401 - whatever the file holds
    """What a JSON text says. Raises ValueError where it is none, also where it is nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
