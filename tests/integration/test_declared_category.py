"""The positive rule "it is what it is declared to be", with a head trained by the real program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from moderation.detectors.heads.head_file import column_label
from tests.job_runs import REPOSITORY, SHARED, run_job

CLOTHES = SHARED.parent / "clothes"
CLASSES = ("dress", "hat", "pants", "shoes", "t-shirt")
LEARNED, JUDGED = 24, 8  # of a class
pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.weights,
    pytest.mark.skipif(not CLOTHES.is_dir(), reason="needs ../shared/clothes"),
]


def pictures(part: str, name: str, count: int) -> list[str]:
    return [str(path) for path in sorted((CLOTHES / part / name).iterdir())[:count]]


def write_manifest(path: Path, **columns: list[str]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def policy() -> Mapping[str, object]:
    """The default policy without its general positive check: only what is as declared passes."""
    whole = yaml.safe_load((REPOSITORY / "configs/policies/default.yaml").read_text())
    del whole["checks"]["sfw"]
    whole.pop("audit", None)
    labels = {name: f"clothes.{column_label(name)}" for name in CLASSES}
    declared = {"attribute": "category", "votes": list(labels.values()), "values": labels, "least": 0.5}
    return {**whole, "vouch": {"as_declared": {"others_below": 0.35, "declared": declared}}}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """Each picture judged three times: under its own class, another, and none that the head knows."""
    folder = tmp_path_factory.mktemp("declared")
    learned = [(uri, name) for name in CLASSES for uri in pictures("train", name, LEARNED)]
    manifest = write_manifest(
        folder / "train.parquet", uri=[uri for uri, _ in learned], label=[name for _, name in learned]
    )
    bundle = folder / "clothes"
    allowed = ("--set", f"source.allow=[{CLOTHES}]")
    trained = run_job(
        *("train-head", "--images", manifest, "--out", str(bundle), "--views", "1"),
        *("--cache", str(folder / "cache"), *allowed),
    )
    assert trained.returncode == 0, trained.stderr

    config = yaml.safe_load((bundle / "config.yaml").read_text())
    (bundle / "declared.yaml").write_text(yaml.safe_dump(policy()))
    (bundle / "judge.yaml").write_text(yaml.safe_dump({**config, "policy": "declared.yaml"}))
    rows = []
    for place, name in enumerate(CLASSES):
        other = CLASSES[(place + 1) % len(CLASSES)]
        for uri in pictures("validation", name, JUDGED):
            rows += [(uri, name, "right"), (uri, other, "wrong"), (uri, "sofa", "unknown")]
    given = write_manifest(
        folder / "new.parquet",
        uri=[uri for uri, _, _ in rows],
        item_id=[f"{i}-{case}" for i, (_, _, case) in enumerate(rows)],
        category=[category for _, category, _ in rows],
    )
    run = folder / "run"
    judged = run_job("backfill", given, "--out", str(run), "--config", str(bundle / "judge.yaml"))
    assert judged.returncode == 0, judged.stderr
    found: list[dict[str, object]] = pq.read_table(
        run / "verdicts", columns=["item_id", "verdict", "reason", "status"]
    ).to_pylist()
    assert len(found) == len(rows)
    return found


def of_case(verdicts: list[dict[str, object]], case: str) -> list[dict[str, object]]:
    return [row for row in verdicts if str(row["item_id"]).endswith(f"-{case}")]


def test_pictures_of_the_declared_class_pass_by_that_rule(verdicts: list[dict[str, object]]) -> None:
    rows = of_case(verdicts, "right")
    passed = [row for row in rows if row["verdict"] == "pass"]
    assert {row["reason"] for row in passed} == {"vouch:as_declared:pass"}
    assert len(passed) >= 0.6 * len(rows)


def test_pictures_declared_as_another_class_are_reviewed(verdicts: list[dict[str, object]]) -> None:
    rows = of_case(verdicts, "wrong")
    assert sum(row["verdict"] == "review" for row in rows) >= 0.9 * len(rows)
    assert {row["verdict"] for row in rows} <= {"pass", "review"}


def test_category_that_the_head_does_not_know_never_passes(verdicts: list[dict[str, object]]) -> None:
    assert {row["verdict"] for row in of_case(verdicts, "unknown")} == {"review"}
