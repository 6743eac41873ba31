"""The folder that runs without a network: library, configurations, tests, benchmark, wheels, weights and pictures."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.device import pictures, weights, wheels
from moderation.config.load import load_config
from moderation.detectors.base import Weights
from moderation.detectors.registry import build
from moderation.detectors.weights.locator import resolve

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_BYTES = 53 * 2**20  # beside the repository, which travels too: 64 MiB together
CONFIGS = ("default.yaml", "full.yaml")
_LEFT_OUT = ("__pycache__", "*.pyc", "runtime")

RUN_SH = """#!/usr/bin/env bash
# bash run.sh [--cpu] [--seconds N] [--out DIR]: measure, print a table, write DIR/device.json. Needs no network.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/site"
for wheel in "$here"/wheels/*.whl; do
    if [ -e "$wheel" ]; then python3 -m zipfile -e "$wheel" "$scratch/site"; fi
done
export PYTHONPATH="$scratch/site:$here" PYTHONPYCACHEPREFIX="$scratch/pycache" PYTHONUNBUFFERED=1
# As the job's workers have it (moderation/runtime/worker.py): frames that were freed stay in the process.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=8589934592
cd "$here"
python3 -m benchmarks.device run --scratch "$scratch" "$@"
"""


def make_pack(out: Path, *, with_wheels: bool = True, bits: int = weights.ROUNDED_BITS) -> dict[str, int]:
    """Write the folder anew; returns the bytes of its parts. Raises RuntimeError when a wheel can't be had."""
    if out.exists():
        shutil.rmtree(out)
    ignore = shutil.ignore_patterns(*_LEFT_OUT)
    for folder in ("moderation", "benchmarks/device", "tests/gpu", "configs"):
        shutil.copytree(REPOSITORY / folder, out / folder, ignore=ignore)
    for file in ("benchmarks/__init__.py", "pyproject.toml"):
        shutil.copyfile(REPOSITORY / file, out / file)
    _write_metadata(out)
    (out / "run.sh").write_text(RUN_SH, encoding="utf-8")
    if with_wheels:
        wheels.download_wheels(REPOSITORY / "requirements.lock", out / "wheels")
    needed = list(_packaged_weights())
    files = [resolve(w) for w in needed]
    weights.pack_weights([w.locator for w in needed], files, out / weights.FOLDER, bits)
    pictures.write_base(out / pictures.FOLDER)
    return {entry.name: _size_bytes(entry) for entry in sorted(out.iterdir())}


def _packaged_weights() -> Iterator[Weights]:
    """Of the detectors in these configurations, each file of another package once."""
    done = set()
    for name in CONFIGS:
        for entry in load_config(name).stack.detectors:
            for found in build(entry).weights:
                if found.locator not in done and not found.locator.startswith("pkg://moderation/"):
                    done.add(found.locator)
                    yield found


def _write_metadata(out: Path) -> None:
    """What an installation leaves beside the package: by it the detectors are found."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = out / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir()
    identity = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(identity, encoding="utf-8")
    points = [f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in entries.items())
              for group, entries in project["entry-points"].items()]  # fmt: skip
    (folder / "entry_points.txt").write_text("\n\n".join(points) + "\n", encoding="utf-8")


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(file.stat().st_size for file in files)
