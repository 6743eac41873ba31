"""Counters of a shard; the counters of a run are their sums."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from moderation.results.tables import ItemRow
from moderation.types import (
    Role,
)


def count_rows(rows: Sequence[ItemRow]) -> dict[str, int]:
    """Count the rows of a shard; the counters of a run are the sums."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[f"status:{row.status}"] += 1
        counts[f"kind:{row.kind}"] += 1
        counts["frames"] += len(row.votes.frames) if row.votes is not None else 0
        if row.judgement is not None:
            counts[f"verdict:{row.judgement.verdict}"] += 1
            if row.judgement.check:
                counts[f"check:{row.judgement.check}:{row.judgement.verdict}"] += 1
        if row.escalation is not None:
            counts["escalated"] += 1
        if row.error_code is not None:
            counts[f"error:{row.error_code}"] += 1
        if row.votes is not None:
            counts.update(f"extra:{role}" for role in row.votes.roles if role is not Role.FRAME)
            asked = (~np.isnan(row.votes.scores)).sum(axis=0)
            # A detector's labels are asked together, but it may answer some of them only.
            by_detector: dict[str, int] = {}
            for label, frames in zip(row.votes.labels, asked.tolist(), strict=True):
                name = f"asked:{label.partition('.')[0]}"
                by_detector[name] = max(frames, by_detector.get(name, 0))
            counts.update(by_detector)
    return dict(sorted(counts.items()))


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports KiB
