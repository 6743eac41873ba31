"""Judging within a sweep: what certificates say of a policy, and lists that are added beside a policy's own."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from moderation.actions.act import ActOptions
from moderation.actions.of_run import act_on_run
from moderation.analysis.sweep import SweepChange, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_changes import read_changes
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.errors import UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.certified import Certificate, CertificateSet, CertifiedSide, certified_hash
from moderation.results.certificates import certificates_path, write_certificates
from moderation.results.escalations import Escalation, publish_escalations
from tests.finished_run import Made, write_run

POLICY = """
default: review
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5}
"""
SWEPT = POLICY.replace("default: review", "default: pass").replace("review: 0.5", "review: 0.5, block: 0.9")
SCORES = {"bad.jpg": 0.95, "fine.jpg": 0.1}


@pytest.fixture
def out(tmp_path: Path) -> str:
    (tmp_path / "in").mkdir()
    made = []
    for number, (name, score) in enumerate(SCORES.items()):
        (tmp_path / "in" / name).write_bytes(name.encode())
        made.append(Made(name=name, votes=[(score,)], content_hash=f"{number:064x}"))
    out = write_run(tmp_path, ("a.mask",), made, POLICY)
    record = Path(out) / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "identity": {"stack": "stack"}}))
    return out


def swept(out: str, policy: Path, to: Path) -> dict[str, str]:
    change = SweepChange(name=str(policy), policy=load_whole_policy(policy))
    sweep(find_sources([out]), change, str(to), as_of=date(2026, 1, 1), workers=1)
    return {row["item_id"]: row["new_verdict"] for table in read_changes(str(to)) for row in table.to_pylist()}


def certify(policy: Path, expires: date) -> None:
    sides: dict[CertifiedSide, float] = {"block": 0.9, "pass": 0.5}
    certificates = [
        Certificate(
            side=side, check="mask", threshold=threshold, allowed=0.01, risk=0.025, labels=600, errors=0, bound=0.01,
            method="binomial",
        )
        for side, threshold in sides.items()
    ]  # fmt: skip
    issued = CertificateSet(
        policy=certified_hash(load_whole_policy(policy)), stack_fingerprint="stack", salt_sha256="0" * 64, rates={},
        issued=date(2020, 1, 1), expires=expires, labels_sha256="0" * 64, rule="two", agreement=None,
        certificates=tuple(certificates),
    )  # fmt: skip
    write_certificates(certificates_path(str(policy)), issued)


@pytest.mark.parametrize("certified", [False, True])
def test_a_policy_that_requires_certificates_decides_nothing_by_itself_without_them(
    out: str, certified: bool, tmp_path: Path
) -> None:
    policy = tmp_path / "swept.yaml"
    policy.write_text(f"require_certificate: true\n{SWEPT}")
    if certified:
        certify(policy, datetime.now(UTC).date() + timedelta(days=2))
    changed = swept(out, policy, tmp_path / "swept")
    assert changed == ({"bad.jpg": "block", "fine.jpg": "pass"} if certified else {})


def test_what_a_swept_policy_decides_by_ended_certificates_is_acted_on_only_if_told(out: str, tmp_path: Path) -> None:
    policy = tmp_path / "swept.yaml"
    policy.write_text(SWEPT)
    certify(policy, date(2020, 6, 1))
    assert swept(out, policy, tmp_path / "swept") == {"bad.jpg": "block", "fine.jpg": "pass"}
    rule = {"name": "list", "do": "manifest", "when": {"verdict": ["block"]}, "to": str(tmp_path / "away/m.jsonl")}
    actions = tmp_path / "actions.yaml"
    actions.write_text(json.dumps({"destinations": [str(tmp_path / "away")], "actions": [rule]}))
    acted = act_on_run(str(tmp_path / "swept"), str(actions), ActOptions())
    assert dict(acted.report.counts["list"]) == {"refused (certificate)": 1}
    acted = act_on_run(str(tmp_path / "swept"), str(actions), ActOptions(uncertified=True))
    assert dict(acted.report.counts["list"]) == {"done": 1}


@pytest.mark.parametrize("key", ["severity", "label", "check"])
def test_a_condition_that_no_row_of_a_sweep_can_meet_is_refused(out: str, key: str, tmp_path: Path) -> None:
    sources = find_sources([out])
    change = SweepChange(name="x", targets=tuple(find_targets(sources, ["bad.jpg"], "block", embedding=None)))
    sweep(sources, change, str(tmp_path / "swept"), workers=1)
    rule = {"name": "list", "do": "manifest", "to": str(tmp_path / "away/m.jsonl")}
    actions = tmp_path / "actions.yaml"
    told = {
        "destinations": [str(tmp_path / "away")],
        "actions": [{**rule, "when": {"verdict": ["block"], key: ["mask"]}}],
    }
    actions.write_text(json.dumps(told))
    with pytest.raises(UsageError, match=f"when.{key}: rows of a sweep by decision have no {key}"):
        act_on_run(str(tmp_path / "swept"), str(actions), ActOptions())


def test_a_pass_does_not_replace_a_deny_list_of_the_same_name(tmp_path: Path) -> None:
    """The content that was passed is allowed by a list `decision`; a run may have one of that name."""
    denied = "lists: {decision: {action: deny, by: owner, entries: [eve]}}\n" + POLICY.replace(
        "default: review", "default: pass"
    )
    made = [
        Made(name=name, votes=[(score,)], content_hash=f"{1:064x}", attributes={"owner": owner})
        for name, score, owner in (("a.jpg", 0.6, "ann"), ("b.jpg", 0.6, "eve"))
    ]
    out = write_run(tmp_path / "run", ("a.mask",), made, denied)
    sources = find_sources([out])
    targets = tuple(find_targets(sources, ["a.jpg"], "pass", embedding=None))
    change = SweepChange(name="a", targets=targets, limits=CopyLimits())
    to = tmp_path / "swept"
    sweep(sources, change, str(to), workers=1)
    rows = [row for table in read_changes(str(to)) for row in table.to_pylist()]
    assert [row["item_id"] for row in rows] == ["a.jpg"]


def test_what_a_later_run_escalated_is_not_touched_by_the_sweep_of_an_older_one(out: str, tmp_path: Path) -> None:
    found = Escalation(item_id="bad.jpg", uri="elsewhere/bad.jpg", rule="known", content_hash=f"{0:064x}")
    publish_escalations(out, "0" * 32, [found], "later")
    sources = find_sources([out])
    targets = tuple(find_targets(sources, list(SCORES), "block", embedding=None))
    sweep(sources, SweepChange(name="x", targets=targets), str(tmp_path / "swept"), workers=1)
    rule = {"name": "list", "do": "manifest", "when": {"verdict": ["block"]}, "to": str(tmp_path / "away/m.jsonl")}
    actions = tmp_path / "actions.yaml"
    actions.write_text(json.dumps({"destinations": [str(tmp_path / "away")], "actions": [rule]}))
    report = act_on_run(str(tmp_path / "swept"), str(actions), ActOptions()).report
    assert (report.escalated, dict(report.counts["list"])) == (1, {"done": 1})
    assert "bad.jpg" not in (tmp_path / "away/m.jsonl").read_text()
