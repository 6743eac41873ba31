"""Rejudge, policy diff, export and extension on real votes of real photographs, held against full runs."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from moderation.results.reader import open_run
from tests.job_runs import run_job, verdicts
from tests.real_runs import CLOTHES, LIMITED, PHOTOGRAPHS, PICTURES, ClothesRun, PhotographRuns, done

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.weights,
    pytest.mark.shared,
    pytest.mark.skipif(not (CLOTHES / "train").is_dir(), reason="no ../shared/clothes beside the repository"),
    pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="no ../shared/data beside the repository"),
]


def test_a_rejudge_of_real_votes_is_a_full_run(photograph_runs: PhotographRuns, tmp_path: Path) -> None:
    done("rejudge", photograph_runs.out("plain"), "--policy", photograph_runs.policy("strict"), "--to", tmp_path / "to")
    again, full = verdicts(tmp_path / "to"), verdicts(photograph_runs.out("strict"))
    assert again.equals(full)
    assert again.num_rows == PICTURES
    assert not again["verdict"].equals(verdicts(photograph_runs.out("plain"))["verdict"])


def test_policy_diff_tells_what_two_full_runs_show(photograph_runs: PhotographRuns) -> None:
    pair = [photograph_runs.policy(name) for name in ("plain", "strict")]
    said = json.loads(done("policy", "diff", *pair, "--on", photograph_runs.out("plain"), "--json").stdout)
    plain, strict = (verdicts(photograph_runs.out(name)).to_pylist() for name in ("plain", "strict"))
    moved: dict[str, int] = {}
    for before, after in zip(plain, strict, strict=True):
        assert before["item_id"] == after["item_id"]
        if before["verdict"] != after["verdict"]:
            pair_name = f"{before['verdict']} -> {after['verdict']}"
            moved[pair_name] = moved.get(pair_name, 0) + 1
    assert said["moved"] == moved
    assert sum(moved.values()) > 2
    assert said["items"] == PICTURES
    changes = {(rule["before"], rule["after"]): rule["items"] for rule in said["rules"]}
    assert sum(n for (a, b), n in changes.items() if a.split(":")[-1] != b.split(":")[-1]) == sum(moved.values())


def test_an_extension_with_real_detectors_is_a_full_run(photograph_runs: PhotographRuns, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(photograph_runs.out("small"), out)
    config = photograph_runs.configs["strict"]
    said = done("backfill", PHOTOGRAPHS, "--out", out, "--config", config, *LIMITED, "--extend").stdout
    assert "added: skin, quality, pdq" in said
    one, other = open_run(str(out)), open_run(str(photograph_runs.out("strict")))
    assert one.run_id == other.run_id
    for shard_id in other.shard_ids:
        assert one.read_votes(shard_id).equals(other.read_votes(shard_id))
        assert one.read_verdicts(shard_id).equals(other.read_verdicts(shard_id))
    votes = pa.concat_tables([one.read_votes(shard_id) for shard_id in one.shard_ids])
    assert 0 < votes["skin.share"].null_count < votes.num_rows  # the condition on the stored vote decided


def test_every_format_exports_real_verdicts(clothes_run: ClothesRun, tmp_path: Path) -> None:
    rows = verdicts(Path(clothes_run.out))
    counts = {v: rows["verdict"].to_pylist().count(v) for v in ("block", "review", "pass")}
    assert min(counts.values()) > 0

    def export(format_: str, name: str, *options: object) -> Path:
        done("export", clothes_run.out, "--format", format_, "--to", tmp_path / name, *options)
        return tmp_path / name

    lines = [json.loads(line) for line in export("jsonl", "v.jsonl").read_text().splitlines()]
    told = {row["item_id"]: row["verdict"] for row in lines}
    assert told == dict(zip(rows["item_id"].to_pylist(), rows["verdict"].to_pylist(), strict=True))
    with export("csv", "v.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == rows.num_rows
    assert not any(str(cell).startswith(("=", "+", "@")) for row in cells for cell in row.values())
    assert pa.parquet.read_table(export("parquet", "v.parquet")).num_rows == rows.num_rows

    labelled = [json.loads(line) for line in export("rekognition", "r.jsonl").read_text().splitlines()]
    assert len(labelled) == rows.num_rows
    asked = [json.loads(line) for line in export("openai", "o.jsonl").read_text().splitlines()]
    assert len(asked) == rows.num_rows
    # A README beside the pictures was skipped: it has no response.
    flagged = [line["response"]["body"]["results"][0]["flagged"] for line in asked if line["response"]]
    assert flagged.count(False) == counts["pass"]
    assert flagged.count(True) == counts["block"] + counts["review"]
    coco = json.loads(export("coco", "c.json").read_text())
    assert len(coco["images"]) == rows.num_rows

    manifest = export("manifest", "pass.jsonl", "--verdict", "pass")
    again = run_job(
        "backfill", manifest, "--out", tmp_path / "again", "--config", clothes_run.config, "--dry-run", "--json",
        "--set", f"source.allow=[{CLOTHES}/]",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["items"] == counts["pass"]
    blocked = export("copies", "blocked", "--verdict", "block")
    assert sum(1 for p in blocked.rglob("*.jpg")) == counts["block"]
    tars = export("webdataset", "tars", "--verdict", "block")
    members: list[str] = []
    for path in tars.rglob("*.tar"):
        with tarfile.open(path) as tar:
            members += tar.getnames()
    assert sum(name.endswith(".jpg") for name in members) == counts["block"]


def test_why_and_checks_read_real_votes(clothes_run: ClothesRun, tmp_path: Path) -> None:
    blocked = next(r for r in verdicts(Path(clothes_run.out)).to_pylist() if r["verdict"] == "block")
    said = done("why", clothes_run.out, blocked["item_id"]).stdout
    assert "shoes" in said and "block" in said
    done("rejudge", clothes_run.out, "--to", tmp_path / "same")
    assert verdicts(tmp_path / "same").equals(verdicts(Path(clothes_run.out)))
