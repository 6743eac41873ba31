"""From real votes to a promoted bundle: the real job over photographs, labelled by their folders and by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.job_runs import SHARED, run_job, summary
from tests.ray_cluster import Cluster
from tests.real_runs import CLOTHES, ClothesRun, done, imagenet, is_bird, photographs, write_config, write_labels

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.weights,
    pytest.mark.shared,
    pytest.mark.skipif(not (CLOTHES / "train").is_dir(), reason="no ../shared/clothes beside the repository"),
]


def test_clothes_are_evaluated_certified_and_promoted(
    tmp_path: Path, clothes_run: ClothesRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache"))
    config, out, store = clothes_run.config, clothes_run.out, str(tmp_path / "store")
    words = ["--labels", clothes_run.labels, "--bad", "shoes"]
    done("evaluate", out, *words)
    evaluation = json.loads((Path(out) / "evaluation" / "evaluation.json").read_text())["evaluations"][0]
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
    pictures, birds = photographs(), [p for p in photographs() if is_bird(p)]
    policy = "checks: {bird: {side: negative, votes: [imagenet.bird], block: 0.9, review: 0.2}}\n"
    concepts = {"bird": sorted({p.name.partition("_")[0] for p in birds})}
    config = write_config(tmp_path, policy, [imagenet(concepts), {"name": "skin"}])
    labels = write_labels(tmp_path / "labels.csv", {p: "bird" if p in birds else "ok" for p in pictures})
    out = str(tmp_path / "out")
    done("backfill", str(SHARED / "images"), "--out", out, "--config", str(config))
    said = done("evaluate", out, "--labels", str(labels), "--json").stdout
    evaluation = json.loads(said)[0]
    bird = evaluation["scores"][0]
    assert (bird["items"], bird["true"]) == (len(pictures), len(birds))
    assert bird["roc_auc"] > 0.97
    assert len(birds) >= 3
