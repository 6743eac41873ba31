"""What `kubectl apply -k cluster/overlays/NAME` would send: valid, complete, and of one mind with the program."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from moderation.config.load import load_config
from moderation.runtime.sizing import WorkerSize
from tests.rendered_cluster import (
    OVERLAYS,
    RAY_KINDS,
    ROOT,
    Object,
    cluster_spec,
    job_spec,
    jobs,
    of_kind,
    pods,
    quantity,
    rendered,
    renderer,
)

CRDS = ROOT.parent / "shared" / "schemas" / "kuberay"
KUBERNETES = "1.34"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objects(overlay: str) -> list[Object]:
    return rendered(overlay)


def strict(schema: Any) -> Any:
    """An openAPIV3Schema that refuses the fields it does not name (an API server drops them without a word)."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items()}
    closed = "properties" in schema and "additionalProperties" not in schema
    if closed and isinstance(schema["properties"], dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    return out


@functools.cache
def crd_validator(kind: str) -> Any:
    import jsonschema  # type: ignore[import-untyped]  # no stubs in the dev extra

    file = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.is_file():
        pytest.skip("no ../shared/schemas/kuberay beside the repository")
    crd = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    return jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))


def problems(obj: Object) -> list[str]:
    found = crd_validator(obj["kind"]).iter_errors(obj)
    return [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


# Schemas


@pytest.mark.shared
@pytest.mark.parametrize("kind", RAY_KINDS)
def test_ray_objects_hold_the_operators_schema_without_an_unknown_field(objects: list[Object], kind: str) -> None:
    assert of_kind(objects, kind)
    for obj in of_kind(objects, kind):
        assert obj["apiVersion"] == "ray.io/v1"
        assert problems(obj) == []


@pytest.mark.shared
def test_a_misspelt_field_is_refused() -> None:
    job = of_kind(rendered("gpu"), "RayJob")[0]
    wrong = json.loads(json.dumps(job))
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["tolerationz"] = []
    wrong["spec"]["backOffLimit"] = 1
    assert len(problems(wrong)) == 2


def test_core_objects_hold_the_schemas_of_kubernetes(objects: list[Object]) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    core = [o for o in objects if o["kind"] not in RAY_KINDS]
    assert {o["kind"] for o in core} == {
        "Namespace",
        "ServiceAccount",
        "ConfigMap",
        "NetworkPolicy",
        "PodDisruptionBudget",
    }
    for obj in core:
        assert validate(obj, KUBERNETES, strict=True)


def test_pod_templates_are_valid_pods(objects: list[Object]) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for pod in pods(objects):
        metadata = {**pod.template["metadata"], "name": "x"}
        assert validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}, KUBERNETES, True)


# Kustomize did what the files mean


def test_everything_lies_in_one_namespace(objects: list[Object]) -> None:
    assert {o["metadata"].get("namespace") for o in objects if o["kind"] != "Namespace"} == {"moderation"}


def test_jobs_run_on_the_groups_of_the_cluster(objects: list[Object]) -> None:
    (cluster,) = of_kind(objects, "RayCluster")
    name = cluster["metadata"]["name"]
    for job in jobs(objects):
        expected = json.loads(json.dumps(cluster_spec(cluster)).replace(f'"{name}"', f'"{job["metadata"]["name"]}"'))
        expected.pop("suspend")
        assert cluster_spec(job) == expected


def test_every_config_map_that_is_named_is_there(objects: list[Object]) -> None:
    there = {o["metadata"]["name"] for o in of_kind(objects, "ConfigMap")}
    for pod in pods(objects):
        named = {v["configMap"]["name"] for v in pod.spec["volumes"] if "configMap" in v}
        named |= {f["configMapRef"]["name"] for f in pod.container.get("envFrom", []) if "configMapRef" in f}
        assert named <= there
        assert named or pod.role == "submitter"


def test_the_example_keeps_what_its_site_says() -> None:
    objects = rendered("example")
    text = json.dumps(objects)
    assert "s3://your-media/incoming/" in text
    assert "s3://example-" not in text
    assert {p.container["image"] for p in pods(objects)} == {"your-registry/moderation:0.1.0"}
    assert {cluster_spec(o)["workerGroupSpecs"][0]["maxReplicas"] for o in objects if o["kind"] in RAY_KINDS} == {40}


# Jobs


def test_a_job_ends_cleans_up_and_is_tried_again(objects: list[Object], overlay: str) -> None:
    for job in jobs(objects):
        spec = job_spec(job)
        assert spec["submissionMode"] == "K8sJobMode"
        assert spec["shutdownAfterJobFinishes"] is True
        assert spec["ttlSecondsAfterFinished"] > 0
        assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
        assert spec["backoffLimit"] >= (0 if overlay == "dev" else 2)
        assert spec["submitterConfig"]["backoffLimit"] > 0
        assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def test_a_night_is_over_before_the_next(objects: list[Object]) -> None:
    (nightly,) = of_kind(objects, "RayCronJob")
    minute, hour, *rest = nightly["spec"]["schedule"].split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert rest == ["*", "*", "*"]
    assert job_spec(nightly)["activeDeadlineSeconds"] < 24 * 3600


def test_applying_starts_nothing(objects: list[Object]) -> None:
    assert [o["spec"]["suspend"] for kind in RAY_KINDS for o in of_kind(objects, kind)] == [True] * 4


def test_entrypoints_are_plain_words_from_the_jobs_values(objects: list[Object]) -> None:
    (values,) = [o["data"] for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"] == "moderation-job"]
    config = ["--config", "/etc/moderation/config.yaml"]
    expected = {
        "backfill": ["moderation", "backfill", values["SOURCE"], "--out", values["BACKFILL_OUT"], *config],
        "nightly": [
            *["moderation", "nightly", values["SOURCE"]],
            *["--ledger", values["LEDGER"], "--out", values["NIGHTLY_OUT"], *config],
        ],
        "smoke": ["moderation", "smoke", "--out", values["SMOKE_OUT"], *config],
    }
    for job in jobs(objects):
        words = job_spec(job)["entrypoint"].split(" ")
        assert words == expected[job["metadata"]["name"]]
        assert [shlex.quote(w) for w in words] == words  # the submitter's shell changes nothing


@pytest.mark.parametrize("name", ["backfill", "nightly", "smoke"])
def test_the_program_takes_the_entrypoint(objects: list[Object], name: str) -> None:
    import typer

    from jobs.__main__ import app

    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    if name not in program.commands:
        pytest.skip(f"`moderation {name}` is not there yet")
    (job,) = [j for j in jobs(objects) if j["metadata"]["name"] == name]
    _, command, *arguments = shlex.split(job_spec(job)["entrypoint"])
    context = program.commands[command].make_context(command, list(arguments))
    assert context.params["source" if name != "smoke" else "out"] == arguments[0 if name != "smoke" else 1]
    assert context.params["config"] == "/etc/moderation/config.yaml"


# Configuration


def test_a_worker_fits_in_a_pod_and_its_grace_in_the_pods(objects: list[Object], tmp_path: Path) -> None:
    (data,) = [o["data"] for o in of_kind(objects, "ConfigMap") if "config.yaml" in o["data"]]
    (tmp_path / "config.yaml").write_text(data["config.yaml"], encoding="utf-8")
    config = load_config(str(tmp_path / "config.yaml"))
    default = load_config("default.yaml")
    assert config.stack == default.stack  # no cluster judges with another stack by accident
    assert config.policy == default.policy
    runtime = config.runtime
    assert isinstance(runtime.workers, int)  # `auto` counts what is there, and at first nothing is
    assert isinstance(runtime.num_gpus, float | int)
    assert isinstance(runtime.num_cpus, float | int)
    room = 0
    for group in cluster_spec(of_kind(objects, "RayCluster")[0])["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        node = {"CPU": quantity(limits["cpu"]), "GPU": quantity(limits.get("nvidia.com/gpu", 0))}
        room += group["maxReplicas"] * WorkerSize(num_cpus=runtime.num_cpus, num_gpus=runtime.num_gpus).count_on(node)
    assert runtime.workers <= room
    for pod in pods(objects):
        if pod.role != "submitter":
            assert runtime.grace_s + (30 if pod.role == "head" else 10) <= pod.spec["terminationGracePeriodSeconds"]
            environment = {e["name"]: e["value"] for e in pod.container["env"]}
            assert runtime.grace_s + 10 <= int(environment["RAY_JOB_STOP_WAIT_TIME_S"])
            assert pod.container["lifecycle"]["preStop"] == {"exec": {"command": ["moderation-drain"]}}


def test_the_ray_of_the_cluster_is_the_ray_of_the_image(objects: list[Object]) -> None:
    lock = (ROOT / "cluster" / "requirements.lock").read_text(encoding="utf-8")
    match = re.search(r"(?m)^ray(?:\[[a-z,]+\])?==([0-9.]+)", lock)
    assert match
    assert {cluster_spec(o)["rayVersion"] for o in objects if o["kind"] in RAY_KINDS} == {match[1]}


# The guard


def apply(overlay: str) -> subprocess.CompletedProcess[str]:
    command = renderer()
    if command is None:
        pytest.skip("neither kubectl nor kustomize is here: install the dev extra")
    environment = {**os.environ, "KUSTOMIZE": " ".join(command)}
    script = ["sh", str(ROOT / "cluster" / "apply.sh"), "--check", overlay]
    return subprocess.run(script, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_placeholders_are_refused_before_anything_is_applied(overlay: str) -> None:
    done = apply(str(ROOT / "cluster" / "overlays" / overlay))
    assert done.returncode == 2
    assert "nothing was applied" in done.stderr
    assert "s3://" in done.stderr


def test_a_site_that_says_what_is_its_own_is_let_through(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cluster", tmp_path / "cluster")
    site = tmp_path / "cluster" / "overlays" / "example"
    text = (site / "kustomization.yaml").read_text()
    (site / "kustomization.yaml").write_text(text.replace("your-registry", "registry.corp").replace("your-", "corp-"))
    done = apply(str(site))
    assert (done.returncode, done.stderr) == (0, "")
    assert "no placeholders" in done.stdout


def test_a_folder_that_is_no_overlay_is_refused(tmp_path: Path) -> None:
    assert apply(str(tmp_path)).returncode == 2
