"""A head trained by the real program on real photographs, and run by the real program as a detector."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.job_runs import SHARED, job_env, run_job
from tests.ray_cluster import Cluster

CLOTHES = SHARED.parent / "clothes"
STANDINS = {"explicit": "shoes", "other": "dress", "person": "pants", "suggestive": "hat"}
POLICY = """
default: review
checks:
  explicit: {side: negative, votes: [content.explicit], definition: explicit, block: 0.9, review: 0.3}
  suggestive: {side: negative, votes: [content.suggestive], definition: suggestive, review: 0.5}
  fine: {side: positive, votes: [content.person, content.other], fuse: max, pass: 0.7}
"""
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.shared, pytest.mark.weights]


def pictures(name: str) -> list[Path]:
    return sorted((CLOTHES / "train" / name).iterdir())


def write_labels(path: Path, labels: dict[Path, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("uri", "label"), *labels.items()])


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


@pytest.mark.skipif(not CLOTHES.is_dir(), reason="needs ../shared/clothes")
def test_four_classes_are_learned_continued_refused_defined_and_evaluated(tmp_path: Path, ray_cluster: Cluster) -> None:
    """Clothes stand for four classes of sexual content: whose weights are made from a user's own labels."""
    first, more, wrong, judged = (tmp_path / f"{name}.csv" for name in ("first", "more", "wrong", "judged"))
    write_labels(first, {path: name for name, of in STANDINS.items() for path in pictures(of)[:10]})
    write_labels(more, {path: name for name, of in STANDINS.items() for path in pictures(of)[10:16]})
    write_labels(wrong, dict.fromkeys(pictures("shoes")[10:40], "person"))
    write_labels(judged, {path: name for name, of in STANDINS.items() for path in pictures(of)[50:62]})
    common = ("--cache", str(tmp_path / "cache"), "--set", f"source.allow=[{CLOTHES}]")
    head = tmp_path / "content"
    trained = run_job("train-head", "--images", str(first), "--out", str(head), "--views", "1", *common)
    assert trained.returncode == 0, trained.stderr

    later = tmp_path / "later"
    # Ten pictures of a class are few: one or two of them change sides by chance.
    lenient = ("--max-forgotten", "0.3", *common)
    gone_on = run_job("train-head", "--from", str(head), "--add", str(more), "--out", str(later), *lenient)
    assert gone_on.returncode == 0, gone_on.stderr
    assert "40 remembered pictures, 24 added" in gone_on.stdout
    card = json.loads((later / "card.json").read_text())
    assert card["continues"]["head"] == json.loads((head / "card.json").read_text())["sha256"]
    assert card["data"]["classes"] == dict.fromkeys(STANDINS, 16)

    before = (head / "head.safetensors").read_bytes()
    refused = run_job("train-head", "--from", str(head), "--add", str(wrong), "--out", str(head), *common)
    assert refused.returncode == 1, refused.stderr
    assert "NOT KEPT explicit: of 10 older pictures" in refused.stdout
    assert (head / "head.safetensors").read_bytes() == before

    config = yaml.safe_load((later / "config.yaml").read_text())
    (later / "policy.yaml").write_text(POLICY)
    (later / "judge.yaml").write_text(yaml.safe_dump({**config, "policy": "policy.yaml"}))
    out = tmp_path / "run"
    run = run_job("backfill", str(judged), "--out", str(out), "--config", str(later / "judge.yaml"))
    assert run.returncode == 0, run.stderr
    assert "explicit" in run_job("policy", "show", str(later / "policy.yaml")).stdout
    measured = run_job(
        "evaluate", str(out), "--labels", str(judged), "--means", "fine=person", "--means", "fine=other", "--json"
    )
    assert measured.returncode == 0, measured.stderr
    scores = {score["name"]: score for score in json.loads(measured.stdout)[0]["scores"]}
    assert scores["explicit"]["roc_auc"] > 0.9
    assert scores["suggestive"]["roc_auc"] > 0.8
    sorted_ = run_job("sort", str(out), "--by", "content", "--previews", "2")
    assert sorted_.returncode == 0, sorted_.stderr
    assert "48 pictures" in sorted_.stdout


@pytest.mark.ray
@pytest.mark.skipif(not CLOTHES.is_dir(), reason="needs ../shared/clothes")
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    write_labels(labels, {path: name for name in ("hat", "skirt", "shirt") for path in pictures(name)[:14]})
    curves = {}
    for workers in ("1", "2"):
        out = tmp_path / f"by{workers}"
        trained = run_job(
            *("train-head", "--images", str(labels), "--out", str(out), "--name", "clothes", "--workers", workers),
            *("--views", "1", "--blocks", "1", "--epochs", "3", "--cache", str(tmp_path / f"cache{workers}")),
            *("--set", f"source.allow=[{CLOTHES}]"),
            env=job_env(own_cluster=True),
        )
        assert trained.returncode == 0, trained.stderr
        assert json.loads((out / "card.json").read_text())["settings"]["workers"] == int(workers)
        curves[workers] = json.loads((out / "evaluation.json").read_text())["held_losses"]
    assert len(curves["1"]) > 1
    assert curves["2"] == pytest.approx(curves["1"], abs=0.02)
