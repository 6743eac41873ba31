"""A head trained by the real program on real photographs, and run by the real program as a detector."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.job_runs import SHARED, run_job

CLOTHES = SHARED.parent / "clothes"
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.shared, pytest.mark.weights]


@pytest.mark.skipif(not CLOTHES.is_dir(), reason="needs ../shared/clothes")
def test_probe_tells_ten_classes_of_clothes_apart_and_is_a_detector_at_once(tmp_path: Path) -> None:
    out = tmp_path / "clothes"
    trained = run_job(
        "train-head",
        *("--images", str(CLOTHES / "train"), "--test", str(CLOTHES / "validation"), "--out", str(out)),
        *("--views", "6", "--licence", "CC0-1.0", "--cache", str(tmp_path / "cache")),
    )
    assert trained.returncode == 0, trained.stderr
    figures = json.loads((out / "evaluation.json").read_text())
    assert figures["test"]["probe"]["accuracy"] >= 0.85
    judged = run_job(
        "backfill",
        str(CLOTHES / "validation" / "hat"),
        "--out",
        str(tmp_path / "run"),
        "--config",
        str(out / "config.yaml"),
    )
    assert judged.returncode == 0, judged.stderr
    votes = pq.read_table(tmp_path / "run" / "votes")
    hats = votes["clothes.hat"].to_pylist()
    assert sum(hat > 0.5 for hat in hats) / len(hats) > 0.7
