"""Write the golden verdicts of the sample data anew: `make golden`. The difference belongs into the commit message."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "sample_verdicts.json"
SAMPLES = Path(__file__).parent.parent.parent.parent / "shared" / "data"
# Scores of other machines' kernels differ in the fourth digit; verdicts must not.
DIGITS = 3


def judge_samples() -> dict[str, dict[str, Any]]:
    """Name below the sample folder -> verdict, reason and the score of every check, by the default configuration."""
    from moderation import Moderator

    paths = sorted(p for p in SAMPLES.rglob("*") if p.is_file())
    with Moderator.from_config() as moderator:
        rows = moderator.moderate(paths)
    return {
        str(path.relative_to(SAMPLES)): {
            "verdict": row.verdict and str(row.verdict),
            "reason": row.reason,
            "frames": row.frames_scored,
            "scores": {k: None if v is None else round(v, DIGITS) for k, v in sorted(row.scores.items())},
        }
        for path, row in zip(paths, rows, strict=True)
    }


def main() -> None:
    """Judge the samples and write the file; says what changed."""
    before = json.loads(FILE.read_text()) if FILE.is_file() else {}
    after = judge_samples()
    for name in sorted(before.keys() | after.keys()):
        old, new = (found.get(name, {}).get("reason") for found in (before, after))
        if old != new:
            sys.stdout.write(f"{name}: {old} -> {new}\n")
    FILE.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    main()
