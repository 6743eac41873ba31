"""Write the golden verdicts anew: `make golden`. The difference belongs into the commit message.

Two files: the sample data beside the repository, and pictures that ship in packages, which every clone has.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moderation import Moderator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SAMPLES = ROOT.parent / "shared" / "data"
SAMPLES_FILE = HERE / "sample_verdicts.json"
PACKAGED_FILE = HERE / "packaged_verdicts.json"
DIGITS = 3
# `auto` takes bf16 where a processor has it, which moves a score by up to 0.03 (test_parity.py holds its verdicts).
EXACT = ("stack.dtype=fp32",)
# Far more than kernels differ by (1e-4 between ours and ONNX Runtime), far less than a threshold's neighbourhood.
# Verdicts must not differ at all.
TOLERANCE, RELATIVE_TOLERANCE = 0.004, 1e-3

Rows = dict[str, dict[str, Any]]


def sample_paths() -> dict[str, Path]:
    """Name below the sample folder -> path; empty where there is no ../shared/data."""
    return {str(path.relative_to(SAMPLES)): path for path in sorted(SAMPLES.rglob("*")) if path.is_file()}


@contextmanager
def packaged_paths() -> Iterator[dict[str, Path]]:
    """Name -> path of the pictures as they ship, and of what the demo set makes of them: broken, animated, a video."""
    from examples.demo_set import write_demo_set
    from tests.packaged_pictures import packaged_pictures

    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder)
        write_demo_set(demo)
        made = {f"demo/{path.relative_to(demo).as_posix()}": path for path in sorted(demo.rglob("*.*"))}
        yield packaged_pictures() | made


def judge_files(moderator: Moderator, paths: Mapping[str, Path]) -> Rows:
    """Name -> verdict, reason and the score of every check."""
    rows = moderator.moderate(list(paths.values()))
    return {
        name: {
            "verdict": row.verdict and str(row.verdict),
            "reason": row.reason,
            "frames": row.frames_scored,
            "scores": {k: None if v is None else round(v, DIGITS) for k, v in sorted(row.scores.items())},
        }
        for name, row in zip(paths, rows, strict=True)
    }


def agree(row: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    """Whether two rows say the same, their scores up to what kernels differ by."""
    scores, recorded_scores = row["scores"], recorded["scores"]
    return (
        all(row[name] == recorded[name] for name in ("verdict", "reason", "frames"))
        and scores.keys() == recorded_scores.keys()
        and all(is_close(scores[check], recorded_scores[check]) for check in scores)
    )


def is_close(score: float | None, recorded: float | None) -> bool:
    """Whether two scores agree; null only with null."""
    if score is None or recorded is None:
        return score is recorded
    return math.isclose(score, recorded, abs_tol=TOLERANCE, rel_tol=RELATIVE_TOLERANCE)


def write(file: Path, judged: Rows) -> None:
    """Write one file, and say whose reason changed. A row that agrees with the record stays as recorded."""
    recorded: Rows = json.loads(file.read_text()) if file.is_file() else {}
    kept = {name for name, row in judged.items() if name in recorded and agree(row, recorded[name])}
    after = {name: recorded[name] if name in kept else row for name, row in judged.items()}
    for name in sorted(recorded.keys() | after.keys()):
        old, new = (rows.get(name, {}).get("reason") for rows in (recorded, after))
        if old != new:
            sys.stdout.write(f"{name}: {old} -> {new}\n")
    file.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Judge both sets by the default configuration, in fp32, and write their files."""
    from moderation import Moderator

    with Moderator.from_config(overrides=EXACT) as moderator:
        if samples := sample_paths():
            write(SAMPLES_FILE, judge_files(moderator, samples))
        else:
            sys.stdout.write(f"no ../shared/data beside the repository: {SAMPLES_FILE.name} stays\n")
        with packaged_paths() as packaged:
            write(PACKAGED_FILE, judge_files(moderator, packaged))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
