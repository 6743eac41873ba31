"""The files of the loop of `benchmarks.loop`: pictures, policy, configurations, labels of the audit."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import yaml

from moderation.policy.audit import audit_value

NAME: Final = "goods"
SALT: Final = "loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPlan:
    """What to run. forbidden: the folder whose pictures must not pass. first: labels of the first head; each: decisions
    a round; mined: of these, at least, of hard examples, nearer than `near` to a threshold. audit: share of the
    pictures that is drawn. block_errors, leak: rates to certify. per_class: pictures of each folder; 0: all.
    """

    pictures: Path
    work: Path
    forbidden: str
    rounds: int = 5
    first: int = 20
    each: int = 50
    mined: int = 20
    near: float = 0.2
    audit: float = 0.6
    block_errors: float = 0.15
    leak: float = 0.02
    per_class: int = 0
    max_forgotten: float = 0.1


def gate_limits(plan: LoopPlan) -> dict[str, float]:
    """What the gate holds a head against: what is certified may not be exceeded, less may be used up."""
    return {
        "max_leak": plan.leak,
        "max_leak_increase": plan.leak,
        "max_precision_drop": plan.block_errors,
        "max_cost_ratio": 100.0,  # the stack is the same, and a machine that others use makes it noise
        "least_items": 100,
    }


def write_pictures(plan: LoopPlan) -> dict[str, bool]:
    """Write the manifest; picture -> whether it is forbidden."""
    by_class: dict[str, list[Path]] = {}
    for path in sorted(plan.pictures.rglob("*.jpg")):
        by_class.setdefault(path.parent.name, []).append(path.resolve())
    truth: dict[str, bool] = {}
    for name, paths in sorted(by_class.items()):
        for path in paths[: plan.per_class or None]:
            truth[str(path)] = name == plan.forbidden
    with (plan.work / "pictures.csv").open("w", encoding="utf-8", newline="") as file:
        # Each picture is a group, by its URI, so that the audit is known before anything is judged.
        csv.writer(file).writerows([("uri", "group"), *((uri, uri) for uri in truth)])
    return truth


def write_policy(plan: LoopPlan) -> None:
    """The policy of the loop: one negative check, and an audit of every score."""
    check = {"side": "negative", "votes": [f"{NAME}.forbidden"], "block": 0.99, "review": 0.01}
    audit = {
        "salt": SALT,
        "block": {"check": "forbidden", "from": 0.0, "rate": plan.audit},
        "pass": {"check": "forbidden", "to": 1.0, "rate": plan.audit},
    }
    policy = {"default": "pass", "require_certificate": True, "checks": {"forbidden": check}, "audit": audit}
    (plan.work / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False), encoding="utf-8")


def audit_pictures(plan: LoopPlan, truth: dict[str, bool]) -> set[str]:
    """Pictures that the audit draws, whatever a head says of them: the region of each side is every score."""
    return {uri for uri in truth if audit_value(SALT, uri) < plan.audit}


def source_settings(plan: LoopPlan) -> dict[str, Any]:
    """What the source may read."""
    return {"allow": [str(plan.pictures.resolve())]}


def config_path(plan: LoopPlan, number: int) -> Path:
    """The configuration of a round."""
    return plan.work / f"config{number}.yaml"


def write_config(plan: LoopPlan, number: int) -> None:
    """The configuration that `train-head` wrote, with the policy of the loop."""
    config = yaml.safe_load((plan.work / f"head{number}" / "config.yaml").read_text(encoding="utf-8"))
    config_path(plan, number).write_text(yaml.safe_dump({**config, "policy": "policy.yaml"}), encoding="utf-8")


def write_audit(plan: LoopPlan, out: Path, truth: dict[str, bool]) -> Path:
    """Labels of all that the audit drew, by two people who agree."""
    path = plan.work / "audit.csv"
    drawn = [row["uri"] for row in read_verdicts(out, "uri", "audit") if row["audit"]]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("uri", "label", "source", "reviewer"))
        writer.writerows((uri, "forbidden" if truth[uri] else "ok", "audit", who) for uri in drawn for who in "ab")
    return path


def read_verdicts(out: Path, *columns: str) -> list[dict[str, Any]]:
    """Rows of the verdicts of a run."""
    rows: list[dict[str, Any]] = pq.read_table(out / "verdicts", columns=list(columns)).to_pylist()
    return rows
