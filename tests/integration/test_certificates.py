"""From real votes to a promoted bundle: the real job over photographs, labelled by their folders and by their names."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.job_runs import SHARED, run_job, summary
from tests.ray_cluster import Cluster

CLOTHES = SHARED.parent / "clothes"
POLICY = """
default: review
checks:
  shoes: {side: negative, votes: [imagenet.shoes], block: 0.9, review: 0.3}
  plain: {side: positive, votes: [imagenet.shoes], invert: true, pass: 0.98}
audit:
  salt: test
  block: {check: shoes, rate: 1.0, from: 0.3}
  pass: {check: plain, rate: 1.0, from: 0.5}
"""
SHOES = ["running shoe", "Loafer", "clog", "sandal", "cowboy boot"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.weights,
    pytest.mark.shared,
    pytest.mark.skipif(not (CLOTHES / "train").is_dir(), reason="no ../shared/clothes beside the repository"),
]


def done(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A job that ends with 0."""
    ended = run_job(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended


def write_config(folder: Path, policy: str, concepts: dict[str, list[str]]) -> Path:
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    detectors = [{"name": "imagenet", "options": {"concepts": concepts}}, {"name": "skin"}]
    path = folder / "config.yaml"
    path.write_text(json.dumps({"policy": "policy.yaml", "stack": {"detectors": detectors}}), encoding="utf-8")
    return path


def write_labels(path: Path, labels: dict[Path, str]) -> Path:
    """Two answers each, of the audit."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label", "source", "reviewer"])
        writer.writerows([picture, label, "audit", who] for picture, label in labels.items() for who in "ab")
    return path


def test_clothes_are_evaluated_certified_and_promoted(
    tmp_path: Path, ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache"))
    config = write_config(tmp_path, POLICY, {"shoes": SHOES})
    labels = write_labels(tmp_path / "labels.csv", {p: p.parent.name for p in sorted(CLOTHES.glob("*/*/*.jpg"))})
    out, store = str(tmp_path / "out"), str(tmp_path / "store")
    words = ["--labels", str(labels), "--bad", "shoes"]
    first = done("backfill", str(CLOTHES), "--out", out, "--config", str(config))
    assert "warning: not certified: block:shoes, pass:plain" in first.stderr

    done("evaluate", out, *words)
    evaluation = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())["evaluations"][0]
    scores = {measures["name"]: measures for measures in evaluation["scores"]}
    assert evaluation["labelled"] == 1050
    assert scores["shoes"]["roc_auc"] > 0.98
    assert scores["shoes"]["roc_auc"] > scores["skin.share (baseline)"]["roc_auc"] + 0.2

    refused = done("certify", out, *words, "--dry-run").stdout
    assert "not certified: block:shoes needs" in refused
    to = tmp_path / "certified.yaml"
    done("certify", out, *words, "--block-errors", "0.06", "--leak", "0.02", "--to", str(to))
    certificates = json.loads((tmp_path / "certified.certificates.json").read_text())
    assert sorted(c["check"] for c in certificates["certificates"]) == ["plain", "shoes"]
    assert all(c["bound"] <= c["allowed"] for c in certificates["certificates"])
    assert certificates["agreement"] == 1.0

    certified = to.read_text() + "require_certificate: true\n"
    to.write_text(certified, encoding="utf-8")
    made = ["bundle", "make", "--bundles", store, "--config", str(config), "--policy", str(to)]
    bundle = done(*made).stdout.strip()
    again = str(tmp_path / "again")
    held = ["--bundles", store]
    second = done("backfill", str(CLOTHES), "--out", again, "--bundle", bundle, *held)
    assert "not certified" not in second.stderr
    assert summary(tmp_path / "again")["certificates"]["uncertified"] == {}

    limits = tmp_path / "limits.yaml"
    limits.write_text("max_cost_ratio: 100.0\nmax_leak_increase: 0.02\nrequire_certificates: true\n")
    promote = ["promote", again, "--against", out, *words, *held, "--limits", str(limits)]
    done(*promote)
    assert json.loads((tmp_path / "store" / "current.json").read_text())["bundle"] == bundle
    back = run_job("promote", "--rollback", *held)
    assert back.returncode == 2
    assert "no bundle before this one" in back.stderr
    limits.write_text("max_leak: 0.0\nmust_improve: false\nmax_automation_drop: 0.0\nleast_items: 100000\n")
    worse = run_job(*promote)
    assert worse.returncode == 1
    assert "NOT KEPT enough items" in worse.stdout
    drift = done("drift", again, "--against", out).stdout
    assert "0 of" in drift


def test_photographs_are_labelled_by_their_names(tmp_path: Path, ray_cluster: Cluster) -> None:
    pictures = sorted((SHARED / "images").glob("n*.JPEG"))
    # Synsets n01514668 to n01622779 are birds.
    birds = [p for p in pictures if "n01514668" <= p.name.partition("_")[0] <= "n01622779"]
    concepts = {"bird": sorted({p.name.partition("_")[0] for p in birds})}
    policy = "checks: {bird: {side: negative, votes: [imagenet.bird], block: 0.9, review: 0.2}}\n"
    config = write_config(tmp_path, policy, concepts)
    labels = write_labels(tmp_path / "labels.csv", {p: "bird" if p in birds else "ok" for p in pictures})
    out = str(tmp_path / "out")
    done("backfill", str(SHARED / "images"), "--out", out, "--config", str(config))
    said = done("evaluate", out, "--labels", str(labels), "--json").stdout
    evaluation = json.loads(said)[0]
    bird = evaluation["scores"][0]
    assert (bird["items"], bird["true"]) == (len(pictures), len(birds))
    assert bird["roc_auc"] > 0.97
    assert len(birds) >= 3
