"""Certificates in the file beside a policy, `<policy>.certificates.json`; and what a run may decide by itself today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from moderation import storage
from moderation.errors import UsageError, one_line
from moderation.policy.certified import (
    CertificateSet,
    automatic_actions,
    find_uncertified,
    withdraw,
)
from moderation.policy.model import Policy

_SUFFIX = ".certificates.json"
_VERSION = 1
_MAX_BYTES = 1 << 20
_SET = TypeAdapter(CertificateSet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """What a run may decide by itself. uncertified: action -> why no certificate covers it. withdrawn: whether these
    items go to review (`require_certificate`). file: of the certificates. actions: all of the policy."""

    file: str
    actions: tuple[str, ...] = ()
    uncertified: Mapping[str, str] = field(default_factory=dict)
    withdrawn: bool = False
    expires: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {**asdict(self), "actions": list(self.actions), "uncertified": dict(self.uncertified)}


def certificates_path(policy_path: str) -> str:
    """`policy.yaml` -> `policy.certificates.json`."""
    return str(Path(policy_path).with_suffix("")) + _SUFFIX


def certify_policy(
    policy: Policy,
    policy_path: str,
    stack_fingerprint: str,
    *,
    today: date | None = None,
    ended: Mapping[str, str] | None = None,
) -> tuple[Policy, Certification]:
    """The policy that holds today, and which of its actions are certified.

    Where the policy requires certificates, actions without one are removed from it: those items go to review. ended:
    what a monitor has ended. Raises UsageError where the file beside the policy is not one of certificates.
    """
    file = certificates_path(policy_path)
    certificates = read_certificates(file)
    uncertified = find_uncertified(policy, certificates, stack_fingerprint, today or datetime.now(UTC).date(), ended)
    required = policy.require_certificate
    certification = Certification(
        file=file,
        actions=automatic_actions(policy),
        uncertified=uncertified,
        withdrawn=required and bool(uncertified),
        expires=None if certificates is None else certificates.expires.isoformat(),
    )
    return (withdraw(policy, uncertified) if required else policy), certification


def read_certificates(file: str) -> CertificateSet | None:
    """The certificates of a policy; None without a file. Raises UsageError where the file has no certificates."""
    data = storage.read_optional(file)
    if data is None:
        return None
    try:
        if len(data) > _MAX_BYTES or json.loads(data)["version"] != _VERSION:
            raise ValueError(f"not of version {_VERSION}")
        return _SET.validate_json(data)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(
            f"{file}: not readable as certificates: {one_line(error, 300)}; delete it, or certify again"
        ) from error


def write_certificates(file: str, certificates: CertificateSet) -> None:
    """Write the file, whole or not at all."""
    record = {
        "version": _VERSION,
        **asdict(certificates),
        "issued": certificates.issued.isoformat(),
        "expires": certificates.expires.isoformat(),
    }
    storage.publish(file, json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False).encode())


def describe_certification(certification: Mapping[str, Any] | None) -> list[str]:
    """What a person should know, in sentences; empty where everything automatic is certified."""
    if not certification or not certification["uncertified"]:
        return []
    uncertified: Mapping[str, str] = certification["uncertified"]
    by_reason: dict[str, list[str]] = {}
    for action, reason in uncertified.items():
        by_reason.setdefault(reason, []).append(action)
    fate = "go to review" if certification["withdrawn"] else "are decided all the same"
    return [
        f"not certified: {', '.join(actions)} ({reason}); such items {fate}. See docs/certificates.md"
        for reason, actions in by_reason.items()
    ]
