"""Real votes of real pictures: runs over ../shared that tests of one session share. They are read, never written to."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.job_runs import SHARED, run_job

CLOTHES = SHARED.parent / "clothes"
PHOTOGRAPHS = SHARED / "images"
SHOES = ["running shoe", "Loafer", "clog", "sandal", "cowboy boot"]
CLOTHES_POLICY = """
default: review
checks:
  shoes: {side: negative, votes: [imagenet.shoes], block: 0.9, review: 0.3}
  plain: {side: positive, votes: [imagenet.shoes], invert: true, pass: 0.98}
audit:
  salt: test
  block: {check: shoes, rate: 1.0, from: 0.3}
  pass: {check: plain, rate: 1.0, from: 0.5}
"""
BIRDS_POLICY = "default: pass\nchecks:\n  bird: {side: negative, votes: [imagenet.bird], block: 0.9, review: 0.2}\n"
# Blocks more birds, and looks at what is blurred or shows skin.
STRICT_POLICY = """
default: pass
checks:
  bird: {side: negative, votes: [imagenet.bird], block: 0.5, review: 0.05}
  skin: {side: negative, votes: [skin.share], review: 0.3, null: ignore}
"""
PICTURES = 60  # of the photographs, the first in the order of their names: birds are among them
LIMITED = ("--limit", PICTURES, "--allow-partial")


def done(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A job that ends with 0."""
    ended = run_job(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended


def is_bird(picture: Path) -> bool:
    """Whether a photograph is of a bird, by its name: synsets n01514668 to n01622779 are birds."""
    return "n01514668" <= picture.name.partition("_")[0] <= "n01622779"


def photographs() -> list[Path]:
    """The photographs of the runs."""
    return sorted(PHOTOGRAPHS.glob("n*.JPEG"))


def write_config(folder: Path, policy: str, detectors: Sequence[Mapping[str, object]], name: str = "config") -> Path:
    """A configuration in fp32, and its policy beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.policy.yaml").write_text(policy, encoding="utf-8")
    config = {
        "policy": f"{name}.policy.yaml",
        "stack": {"detectors": list(detectors), "dtype": "fp32"},
        "shards": {"max_items": 32},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def imagenet(concepts: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """The entry of the detector that names what photographs show."""
    return {"name": "imagenet", "options": {"concepts": {name: list(of) for name, of in concepts.items()}}}


def write_labels(path: Path, labels: Mapping[Path, str]) -> Path:
    """Two answers each, of the audit."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label", "source", "reviewer"])
        writer.writerows([picture, label, "audit", who] for picture, label in labels.items() for who in "ab")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClothesRun:
    """All photographs of clothes, of which shoes are forbidden. labels: of their folders, two answers each."""

    config: Path
    out: str
    labels: str


def run_clothes(folder: Path) -> ClothesRun:
    """Judge all photographs of clothes."""
    config = write_config(folder, CLOTHES_POLICY, [imagenet({"shoes": SHOES}), {"name": "skin"}])
    labels = write_labels(folder / "labels.csv", {p: p.parent.name for p in sorted(CLOTHES.glob("*/*/*.jpg"))})
    out = str(folder / "out")
    first = done("backfill", CLOTHES, "--out", out, "--config", config)
    assert "warning: not certified: block:shoes, pass:plain" in first.stderr
    return ClothesRun(config=config, out=out, labels=str(labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographRuns:
    """Photographs of which birds are forbidden, judged three times.

    plain: by a loose policy and the whole stack. strict: by a strict policy and the whole stack. small: by the loose
    policy and without `skin`, `quality` and `pdq`. configs: by the names of the runs.
    """

    folder: Path
    configs: Mapping[str, Path]

    def out(self, name: str) -> Path:
        """The OUT of a run."""
        return self.folder / name

    def policy(self, name: str) -> Path:
        """The policy file of a run."""
        return self.folder / f"{name}.policy.yaml"


def run_photographs(folder: Path) -> PhotographRuns:
    """Judge the first photographs three times."""
    birds = imagenet({"bird": sorted({p.name.partition("_")[0] for p in photographs() if is_bird(p)})})
    # `skin` runs where no bird is seen, by a vote that the small run has.
    others = [{"name": "skin", "when": "imagenet.bird < 0.5"}, {"name": "quality"}, {"name": "pdq"}]
    configs = {
        "plain": write_config(folder, BIRDS_POLICY, [birds, *others], "plain"),
        "strict": write_config(folder, STRICT_POLICY, [birds, *others], "strict"),
        "small": write_config(folder, BIRDS_POLICY, [birds], "small"),
    }
    for name, config in configs.items():
        done("backfill", PHOTOGRAPHS, "--out", folder / name, "--config", config, *LIMITED)
    return PhotographRuns(folder=folder, configs=configs)
