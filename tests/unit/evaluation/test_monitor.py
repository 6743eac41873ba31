"""The monitor of certificates: what it bets on, when it alarms, and what a night says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from moderation.config.model import Config, MonitorConfig
from moderation.errors import UsageError
from moderation.evaluation.claim import Claim
from moderation.evaluation.monitor import ended_actions, hold_labels, note_night, read_state
from moderation.evaluation.watch import begin_watch, monitoring_facts, watch_scores
from moderation.policy.certified import Certificate, CertificateSet, certified_hash
from moderation.policy.model import Policy, load_policy
from moderation.results.certificates import certificates_path, certify_policy, write_certificates
from tests.finished_run import Made, write_run

POLICY = """
checks:
  bad: {side: negative, votes: [a.bad], block: 0.9, review: 0.4}
audit:
  salt: pepper
  block: {check: bad, rate: 1.0, from: 0.5}
"""


def night_of(folder: Path, count: int = 200) -> tuple[str, Policy]:
    """A night that blocked `count` items and reviewed as many."""
    items = [Made(name=f"i{n}", votes=[(0.95 if n < count else 0.6,)]) for n in range(2 * count)]
    return write_run(folder, ("a.bad",), items, POLICY, shard_items=200), load_policy(folder / "policy.yaml")


def certified(policy: Policy) -> CertificateSet:
    certificate = Certificate(
        side="block",
        check="bad",
        threshold=0.9,
        allowed=0.01,
        risk=0.025,
        labels=600,
        errors=0,
        bound=0.009,
        method="binomial",
    )
    return CertificateSet(
        policy=certified_hash(policy),
        stack_fingerprint="stack",
        salt_sha256="0" * 64,
        rates={"block:bad": 1.0},
        issued=date(2026, 11, 1),
        expires=date(2027, 2, 1),
        labels_sha256="1" * 64,
        rule="",
        agreement=None,
        certificates=(certificate,),
    )


def labels_of(folder: Path, wrong: int, count: int = 400, source: str = "audit", answers: int = 2) -> str:
    """Labels of all items, two answers each; the first `wrong` of them are fine."""
    rows = [f"i{n},{'ok' if n < wrong else 'bad'},{source},r{r}" for n in range(count) for r in range(answers)]
    (folder / "labels.csv").write_text("\n".join(["item_id,label,source,reviewer", *rows]), encoding="utf-8")
    return str(folder / "labels.csv")


def test_only_what_was_drawn_and_decided_by_the_machine_is_bet_on_and_once(tmp_path: Path) -> None:
    out, policy = night_of(tmp_path)
    home, certificates = str(tmp_path / "home"), certified(policy)
    assert note_night(home, "20261126-1", out, policy, certificates) == 200
    labels = labels_of(tmp_path, wrong=1)
    (report,) = hold_labels(home, labels, policy, certificates)
    assert (report.action, report.labels, report.errors, report.new, report.ended) == ("block:bad", 200, 1, 200, None)
    (again,) = hold_labels(home, labels, policy, certificates)
    assert (again.labels, again.new) == (200, 0)
    assert ended_actions(home, certificates) == {}


@pytest.mark.parametrize(("answers", "bets"), [(2, 0), (1, 200)])
def test_one_answer_is_bet_on_where_the_certificate_rests_on_one(tmp_path: Path, answers: int, bets: int) -> None:
    out, policy = night_of(tmp_path)
    home, certificates = str(tmp_path / "home"), replace(certified(policy), rule=Claim(answers=answers).rule)
    note_night(home, "20261126-1", out, policy, certificates)
    (report,) = hold_labels(home, labels_of(tmp_path, wrong=1, answers=1), policy, certificates)
    assert report.labels == bets


def test_too_many_errors_end_the_certificate_and_good_labels_do_not_bring_it_back(tmp_path: Path) -> None:
    out, policy = night_of(tmp_path)
    home, certificates = str(tmp_path / "home"), certified(policy)
    note_night(home, "20261126-1", out, policy, certificates)
    (report,) = hold_labels(home, labels_of(tmp_path, wrong=15), policy, certificates)
    assert report.ended == "the monitor ended it: 15 of 200 new audit labels are errors, 1.00% are allowed"
    assert hold_labels(home, labels_of(tmp_path, wrong=0), policy, certificates)[0].ended == report.ended
    assert ended_actions(home, certificates) == {"block:bad": report.ended}
    # A new certificate, from new labels, begins anew.
    assert ended_actions(home, replace(certificates, labels_sha256="2" * 64)) == {}


@pytest.mark.parametrize("source", ["report", ""])
def test_labels_of_no_audit_are_not_bet_on(tmp_path: Path, source: str) -> None:
    out, policy = night_of(tmp_path)
    home, certificates = str(tmp_path / "home"), certified(policy)
    note_night(home, "20261126-1", out, policy, certificates)
    assert hold_labels(home, labels_of(tmp_path, wrong=200, source=source), policy, certificates)[0].labels == 0


def test_a_state_that_cannot_be_read_is_refused_because_it_may_hold_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor" / "wealth.json").write_text("{")
    with pytest.raises(UsageError, match="not readable as that of a monitor"):
        read_state(str(tmp_path))


def test_an_alarm_takes_the_action_to_review_where_certificates_are_required(tmp_path: Path) -> None:
    out, policy = night_of(tmp_path)
    home, path = str(tmp_path / "home"), str(tmp_path / "policy.yaml")
    write_certificates(certificates_path(path), certified(policy))
    note_night(home, "20261126-1", out, policy, certified(policy))
    config = Config(policy=path, monitor=MonitorConfig(labels=labels_of(tmp_path, wrong=15), reference=out))
    required = policy.model_copy(update={"require_certificate": True})
    today = date(2026, 11, 27)
    kept, _ = certify_policy(required, path, "stack", today=today)
    watch = begin_watch(home, config, policy)
    assert kept.checks["bad"].block == 0.9
    # Jobs that do not know the folder of nights know it by the file beside the policy.
    for known in (watch.ended, None):
        ended, certification = certify_policy(required, path, "stack", today=today, ended=known)
        assert ended.checks["bad"].block is None
        assert certification.withdrawn
    assert begin_watch(home, config, policy).ended == watch.ended
    drifts, notes = watch_scores(out, config)
    facts = monitoring_facts(watch, drifts, notes)
    assert facts is not None
    assert facts["scores_changed"] == []
    assert facts["reasons"] == [f"certificate ended: block:bad: {watch.ended['block:bad']}"]


def test_what_could_not_be_looked_at_is_said_and_stops_nothing(tmp_path: Path) -> None:
    out, policy = night_of(tmp_path, count=5)
    path = str(tmp_path / "policy.yaml")
    gone = str(tmp_path / "gone.csv")
    config = Config(policy=path, monitor=MonitorConfig(labels=gone, reference=str(tmp_path / "nowhere")))
    assert monitoring_facts(begin_watch(out, config, policy), (), ()) is None  # no certificates, nothing to hold
    write_certificates(certificates_path(path), certified(policy))
    watch = begin_watch(out, config, policy)
    facts = monitoring_facts(watch, *watch_scores(out, config))
    assert facts is not None
    assert len(facts["reasons"]) == 2
    assert "no such file of labels" in facts["reasons"][0]
    assert "not the output of a run" in facts["reasons"][1]


def test_a_new_certificate_is_not_held_against_what_an_earlier_one_decided(tmp_path: Path) -> None:
    """The earlier one ended by its errors; the new one has a threshold beyond most of them."""
    out, policy = night_of(tmp_path)
    home, first, labels = str(tmp_path / "home"), certified(policy), labels_of(tmp_path, wrong=15)
    note_night(home, "20261126-1", out, policy, first)
    assert hold_labels(home, labels, policy, first)[0].ended is not None
    second = replace(first, labels_sha256="2" * 64)
    assert hold_labels(home, labels, policy, second)[0].labels == 0
    note_night(home, "20261127-1", out, policy, second)
    assert hold_labels(home, labels, policy, second)[0].labels == 200


def test_tables_of_earlier_nights_that_name_no_certificate_count_for_monitors_from_before_them(tmp_path: Path) -> None:
    out, policy = night_of(tmp_path)
    home, first = str(tmp_path / "home"), certified(policy)
    note_night(home, "20261126-1", out, policy, first)
    hold_labels(home, labels_of(tmp_path, wrong=0, count=10), policy, first)
    # As version 1 left both files.
    folder = tmp_path / "home" / "monitor"
    path = folder / "drawn-20261126-1.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["certificate"]), path)
    state = json.loads((folder / "wealth.json").read_text())
    assert [monitor.pop("reads_unnamed") for monitor in state["monitors"].values()] == [False]
    (folder / "wealth.json").write_text(json.dumps(state))
    labels = labels_of(tmp_path, wrong=0)
    assert hold_labels(home, labels, policy, first)[0].labels == 200
    second = replace(first, labels_sha256="2" * 64)
    # Nor on the second night, when its monitor has begun.
    assert [hold_labels(home, labels, policy, second)[0].labels for _ in range(2)] == [0, 0]


def test_a_monitor_bets_on_a_uniform_sample_of_its_zone_alone(tmp_path: Path) -> None:
    """The pass side draws all up to 0.97; of the zone of the block side a tenth is drawn."""
    text = POLICY.replace("rate: 1.0", "rate: 0.1") + "  pass: {check: bad, rate: 1.0, to: 0.97}\n"
    items = [Made(name=f"i{n}", votes=[(0.95,)]) for n in range(400)]
    out = write_run(tmp_path, ("a.bad",), items, text, shard_items=200)
    policy = load_policy(tmp_path / "policy.yaml")
    assert 20 < note_night(str(tmp_path / "home"), "1", out, policy, certified(policy)) < 70


def test_a_monitor_bets_on_what_lies_in_the_zone_of_its_certificate(tmp_path: Path) -> None:
    """Whatever the policy blocks today; nothing of another stack, or that a list has decided."""
    text = POLICY + "lists: {known: {action: deny, by: attribute, attribute: owner, entries: [ann]}}\n"
    owners = ["ann"] * 5 + ["bob"] * 95
    items = [
        Made(name=f"i{n}", votes=[(0.95 if n < 50 else 0.91,)], attributes={"owner": owner})
        for n, owner in enumerate(owners)
    ]
    out = write_run(tmp_path, ("a.bad",), items, text, shard_items=100)
    policy = load_policy(tmp_path / "policy.yaml")
    made = certified(policy)
    strict = replace(made, certificates=(replace(made.certificates[0], threshold=0.93),))
    assert note_night(str(tmp_path / "a"), "1", out, policy, strict) == 45
    assert note_night(str(tmp_path / "b"), "1", out, policy, replace(strict, stack_fingerprint="other")) == 0
