"""Every rendered object of every overlay: no privilege, no open door, bounded, and it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import pytest

from tests.rendered_cluster import (
    OVERLAYS,
    RAY_KINDS,
    Object,
    Pod,
    cluster_spec,
    jobs,
    of_kind,
    pods,
    quantity,
    rendered,
    selects,
)

# KubeRay selects heads by these; a pod template that sets them leaves the head's service without a pod.
RESERVED_LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/created-by"}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objects(overlay: str) -> list[Object]:
    return rendered(overlay)


# Security


def locked_contexts(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    for pod in pods(objects):
        yield f"{pod.owner} {pod.role}", pod.container["securityContext"]
    for obj in objects:
        if obj["kind"] in RAY_KINDS:
            yield f"{obj['kind']} autoscaler", cluster_spec(obj)["autoscalerOptions"]["securityContext"]


def test_no_container_has_a_privilege(objects: list[Object]) -> None:
    for where, context in locked_contexts(objects):
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] > 0, where
        assert context["allowPrivilegeEscalation"] is False, where
        assert context["privileged"] is False, where
        assert context["readOnlyRootFilesystem"] is True, where
        assert context["capabilities"] == {"drop": ["ALL"]}, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where


def test_no_pod_reaches_its_node(objects: list[Object]) -> None:
    for pod in pods(objects):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
        assert not [v for v in pod.spec["volumes"] if "hostPath" in v]
        assert not [p for p in pod.container.get("ports", []) if "hostPort" in p]


def test_what_must_be_written_to_is_a_volume(objects: list[Object]) -> None:
    for pod in pods(objects):
        mounted = {m["mountPath"] for m in pod.container["volumeMounts"] if not m.get("readOnly")}
        assert mounted == ({"/tmp"} if pod.role == "submitter" else {"/tmp", "/dev/shm"})
        limits = [v["emptyDir"]["sizeLimit"] for v in pod.spec["volumes"] if "emptyDir" in v]
        assert all(quantity(limit) > 0 for limit in limits)
        assert {"name": "HOME", "value": "/tmp"} in pod.container["env"]
    for obj in objects:
        if obj["kind"] in RAY_KINDS:
            assert {"name": "tmp", "mountPath": "/tmp"} in cluster_spec(obj)["autoscalerOptions"]["volumeMounts"]


def test_only_the_autoscaler_may_talk_to_the_api_server(objects: list[Object]) -> None:
    for pod in pods(objects):
        assert pod.spec["automountServiceAccountToken"] is (pod.role == "head")
        assert pod.spec["serviceAccountName"] == "moderation"


def test_credentials_come_by_reference_only(objects: list[Object]) -> None:
    assert of_kind(objects, "Secret") == []
    assert not re.search(r"AKIA|SECRET_ACCESS_KEY|SESSION_TOKEN|PASSWORD", json.dumps(objects))
    for pod in pods(objects):
        secrets = [f["secretRef"] for f in pod.container.get("envFrom", []) if "secretRef" in f]
        assert secrets == ([] if pod.role == "submitter" else [{"name": "moderation-s3", "optional": True}])


def test_the_dashboard_asks_for_a_token(objects: list[Object]) -> None:
    for obj in objects:
        if obj["kind"] in RAY_KINDS:
            assert cluster_spec(obj)["authOptions"] == {"mode": "token"}
            major, minor, _ = cluster_spec(obj)["rayVersion"].split(".")
            assert (int(major), int(minor)) >= (2, 52)  # the first Ray with tokens


# Network


def opens(policy: Object, direction: str) -> list[Object]:
    rules: list[Object] = policy["spec"].get(direction, [])
    return rules


def test_nothing_is_open_by_default(objects: list[Object]) -> None:
    (deny,) = [p for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_policies_select_pods_that_exist(objects: list[Object]) -> None:
    labels = [p.template["metadata"]["labels"] for p in pods(objects)]
    for policy in of_kind(objects, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert any(selects(selector, each) for each in labels), policy["metadata"]["name"]
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in opens(policy, direction):
                assert rule["ports"]  # no rule opens every port
                for peer in rule.get(peers, []):
                    if set(peer) == {"podSelector"}:
                        assert any(selects(peer["podSelector"], each) for each in labels)


def test_only_submitter_operator_and_ray_reach_the_dashboard(objects: list[Object]) -> None:
    head = next(p for p in pods(objects) if p.role == "head").template["metadata"]["labels"]
    who = []
    for policy in of_kind(objects, "NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], head):
            for rule in opens(policy, "ingress"):
                if any(p["port"] <= 8265 <= p.get("endPort", p["port"]) for p in rule["ports"]):
                    assert rule.get("from"), "from anywhere"
                    who += rule["from"]
    roles = {"head", "worker", "submitter"}
    inside = [p["podSelector"] for p in who if set(p) == {"podSelector"}]
    assert {r for r in roles | {"stranger"} if any(selects(s, {"moderation/role": r}) for s in inside)} == roles
    outside = [p for p in who if "namespaceSelector" in p]
    assert [p["podSelector"]["matchLabels"] for p in outside] == [{"app.kubernetes.io/name": "kuberay-operator"}]
    # Of the namespace that cluster/README.md installs it into: whoever runs pods elsewhere labels them as they like.
    assert [p["namespaceSelector"] for p in outside] == [{"matchLabels": {"kubernetes.io/metadata.name": "kuberay"}}]


def test_workers_leave_the_cluster_for_names_and_storage_only(objects: list[Object]) -> None:
    worker = next(p for p in pods(objects) if p.role == "worker").template["metadata"]["labels"]
    ports: set[int] = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], worker):
            for rule in opens(policy, "egress"):
                if all(set(peer) == {"podSelector"} for peer in rule.get("to", [{}])):
                    continue
                ports |= {p["port"] for p in rule["ports"]}
                for peer in rule.get("to", []):
                    assert "169.254.0.0/16" in peer.get("ipBlock", {}).get("except", ["169.254.0.0/16"])
    assert ports - {9000} == {53, 443}  # 9000: the MinIO of `dev`


# Scheduling and life


def test_requests_and_limits_are_said(objects: list[Object]) -> None:
    for pod in pods(objects):
        requests, limits = pod.container["resources"]["requests"], pod.container["resources"]["limits"]
        assert 0 < quantity(requests["cpu"]) <= quantity(limits["cpu"])
        assert quantity(limits["memory"]) > 0
        if pod.role != "submitter":
            assert requests["memory"] == limits["memory"]  # Ray plans with all of it
            assert quantity(requests["ephemeral-storage"]) <= quantity(limits["ephemeral-storage"])
    for obj in objects:
        if obj["kind"] in RAY_KINDS:
            assert set(cluster_spec(obj)["autoscalerOptions"]["resources"]) == {"requests", "limits"}


def test_the_object_store_fits_in_shared_memory(objects: list[Object]) -> None:
    for pod in pods(objects):
        if pod.role != "submitter":
            (shm,) = [v["emptyDir"] for v in pod.spec["volumes"] if v["name"] == "shm"]
            assert shm["medium"] == "Memory"
            assert int(pod.start["object-store-memory"]) < quantity(shm["sizeLimit"])
            assert quantity(shm["sizeLimit"]) <= quantity(pod.container["resources"]["limits"]["memory"]) / 2


def test_images_are_pinned(objects: list[Object]) -> None:
    for pod in pods(objects):
        _, _, tag = pod.container["image"].rpartition(":")
        assert tag not in ("", "latest", pod.container["image"])


def test_the_head_judges_nothing_and_groups_grow_from_zero(objects: list[Object]) -> None:
    for obj in objects:
        if obj["kind"] in RAY_KINDS:
            spec = cluster_spec(obj)
            assert spec["enableInTreeAutoscaling"] is True
            assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
            for group in spec["workerGroupSpecs"]:
                assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


def test_gpu_pods_ask_for_a_gpu_and_go_where_it_is(objects: list[Object], overlay: str) -> None:
    groups = {
        g["groupName"]: g["template"]["spec"]
        for g in cluster_spec(of_kind(objects, "RayCluster")[0])["workerGroupSpecs"]
    }
    assert set(groups) == ({"cpu"} if overlay in ("cpu", "dev") else {"gpu", "cpu"})
    for name, spec in groups.items():
        asked = spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        tolerated = [t["key"] for t in spec.get("tolerations") or []]
        assert (asked == "1") == ("nvidia.com/gpu" in tolerated) == ("nodeSelector" in spec) == (name == "gpu")


def test_spot_workers_go_where_heads_do_not() -> None:
    def labels(pod: Pod, operator: str) -> set[str]:
        terms = pod.spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert operator == "In" or len(terms["nodeSelectorTerms"]) == 1  # terms are alternatives, a head must hold all
        expressions = [e for t in terms["nodeSelectorTerms"] for e in t["matchExpressions"]]
        assert {e["operator"] for e in expressions} == {operator}
        return {f"{e['key']}={e['values'][0]}" for e in expressions}

    spot = [p for p in pods(rendered("spot")) if p.role != "submitter"]
    heads = [labels(p, "NotIn") for p in spot if p.role == "head"]
    workers = [labels(p, "In") for p in spot if p.role == "worker"]
    assert len(heads) == 4
    assert len(workers) == 8
    assert all(each == heads[0] for each in heads + workers)


def test_metrics_are_announced_where_they_are(objects: list[Object]) -> None:
    for pod in pods(objects):
        if pod.role != "submitter":
            annotations = pod.template["metadata"]["annotations"]
            assert annotations["prometheus.io/scrape"] == "true"
            assert annotations["prometheus.io/port"] == pod.start["metrics-export-port"] == "8080"
            assert {"name": "metrics", "containerPort": 8080} in pod.container["ports"]


def test_labels_that_the_operator_selects_by_are_left_to_it(objects: list[Object]) -> None:
    for pod in pods(objects):
        assert not RESERVED_LABELS & set(pod.template["metadata"]["labels"])
        assert pod.template["metadata"]["labels"]["moderation/role"] == pod.role


def test_a_budget_keeps_the_head_of_each_job(objects: list[Object]) -> None:
    budgets = {b["metadata"]["name"]: b["spec"] for b in of_kind(objects, "PodDisruptionBudget")}
    for job in jobs(objects):
        budget = budgets.pop(f"{job['metadata']['name']}-head")
        kept = [p for p in pods([job]) if selects(budget["selector"], p.template["metadata"]["labels"])]
        assert [p.role for p in kept] == ["head"]
        assert budget["minAvailable"] == 1
    assert budgets == {}
