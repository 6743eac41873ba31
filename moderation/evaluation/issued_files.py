"""A certification as files: the policy, its certificates, and its calibrated scores."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import yaml

from moderation import storage
from moderation.errors import UsageError
from moderation.evaluation.issue import Issued
from moderation.policy.definitions import FOLDER
from moderation.policy.model import Policy
from moderation.results.certificates import certificates_path, write_certificates


def write_issued(issued: Issued, to: str) -> str:
    """Write the policy file, then the certificates beside it; returns the latter's path."""
    tree = issued.policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    head = f"# Written by `moderation certify` on {issued.certificates.issued}; a change ends its certificates.\n"
    # Either order is safe: a policy without its certificates is uncertified, those of another policy do not count.
    storage.publish(to, (head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).encode())
    if issued.calibrations:
        record = {"calibrations": [asdict(calibration) for calibration in issued.calibrations]}
        storage.publish(calibration_path(to), json.dumps(record, indent=1).encode())
    file = certificates_path(to)
    write_certificates(file, issued.certificates)
    return file


def calibration_path(policy_path: str) -> str:
    """`policy.yaml` -> `policy.calibration.json`: scores as probabilities, for people and for the order of review."""
    return str(Path(policy_path).with_suffix("")) + ".calibration.json"


def check_target(to: str, policy: Policy, policy_path: str) -> None:
    """Check where the policy is to be written.

    Raises UsageError where it is no YAML file, or lists, the taxonomy or definitions beside the policy would be lost.
    """
    if not to.endswith((".yaml", ".yml")) or "://" in to:
        raise UsageError(f"--to {to}: a policy is a local file that ends with .yaml")
    if Path(to).parent.absolute() == Path(policy_path).parent.absolute():
        return
    beside = [rule.from_ for rule in policy.lists.values() if rule.from_ is not None and "://" not in rule.from_]
    beside += [policy.taxonomy] if policy.taxonomy is not None else []
    beside += [
        name for name in _definitions(policy, Path(policy_path).parent) if not (Path(to).parent / name).is_file()
    ]
    if beside:
        raise UsageError(f"--to {to}: the policy names {beside[0]!r}, which lies beside it: write it there, too")


def _definitions(policy: Policy, folder: Path) -> list[str]:
    """The definitions that lie beside a policy, and not in the package."""
    names = [f"{FOLDER}/{check.definition}.yaml" for check in policy.checks.values() if check.definition is not None]
    return [name for name in names if (folder / name).is_file()]
