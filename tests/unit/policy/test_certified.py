"""When certificates hold, and what is left of a policy without them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.policy.bind import bind
from moderation.policy.certified import (
    Certificate,
    CertificateSet,
    automatic_actions,
    certified_hash,
    find_uncertified,
    withdraw,
)
from moderation.policy.judge import judge, judge_item
from moderation.policy.model import Policy, load_policy
from moderation.results.certificates import (
    certificates_path,
    certify_policy,
    describe_certification,
    read_certificates,
    write_certificates,
)
from moderation.types import ItemFacts, ItemVotes, Judgement, Seen, Verdict
from tests.drawn_policies import LABELS as DRAWN_LABELS
from tests.drawn_policies import TODAY as DRAWN_TODAY
from tests.drawn_policies import full_policies, item_facts, rows, seens, votes_of

POLICY = """
default: pass
checks:
  bad: {side: negative, votes: [a.bad], block: 0.9, review: 0.5}
  worse: {side: negative, votes: [a.worse], block: 0.8, order: 1, stop: true}
  fine: {side: positive, votes: [a.fine], pass: 0.9}
"""
LABELS = ("a.bad", "a.worse", "a.fine")
TODAY = date(2026, 11, 26)


def policy_in(folder: Path, text: str = POLICY) -> Policy:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def certificates(policy: Policy, *certified: tuple[str, str]) -> CertificateSet:
    def make(side: str, check: str) -> Certificate:
        return Certificate(
            side=side,  # type: ignore[arg-type] # a word of the test
            check=check,
            threshold=0.9,
            allowed=0.01,
            risk=0.025,
            labels=1000,
            errors=0,
            bound=0.005,
            method="binomial",
        )

    return CertificateSet(
        policy=certified_hash(policy),
        stack_fingerprint="stack",
        salt_sha256="0" * 64,
        rates={"block": 0.1},
        issued=TODAY,
        expires=date(2027, 2, 1),
        labels_sha256="1" * 64,
        rule="two answers that agree",
        agreement=0.98,
        certificates=tuple(make(*one) for one in certified),
    )


def test_what_a_policy_decides_by_itself_is_told(tmp_path: Path) -> None:
    assert automatic_actions(policy_in(tmp_path)) == ("block:bad", "block:worse", "pass:default", "pass:fine")


def test_without_a_certificate_nothing_is_covered(tmp_path: Path) -> None:
    found = find_uncertified(policy_in(tmp_path), None, "stack", TODAY)
    assert set(found) == {"block:bad", "block:worse", "pass:default", "pass:fine"}


def test_a_certificate_covers_its_action_and_a_pass_by_a_negative_check_covers_all_passes(tmp_path: Path) -> None:
    policy = policy_in(tmp_path)
    held = certificates(policy, ("block", "bad"), ("pass", "bad"))
    assert find_uncertified(policy, held, "stack", TODAY) == {"block:worse": "it was not certified"}
    positive = certificates(policy, ("pass", "fine"))
    assert "pass:default" in find_uncertified(policy, positive, "stack", TODAY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy": "other"}, "the policy has changed"),
        ({"stack_fingerprint": "other"}, "the stack has changed"),
        ({"expires": date(2026, 11, 25)}, "expired on 2026-11-25"),
    ],
)
def test_a_certificate_ends_with_its_policy_its_stack_and_its_date(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    policy = policy_in(tmp_path)
    held = replace(certificates(policy, ("block", "bad")), **change)  # type: ignore[arg-type] # a field and its value
    found = find_uncertified(policy, held, "stack", TODAY)
    assert len(found) == 4
    assert all(reason in why for why in found.values())


def test_a_monitor_ends_one_certificate_and_leaves_the_others(tmp_path: Path) -> None:
    policy = policy_in(tmp_path)
    held = certificates(policy, ("block", "bad"), ("block", "worse"), ("pass", "bad"))
    assert find_uncertified(policy, held, "stack", TODAY, {"block:bad": "alarm"}) == {"block:bad": "alarm"}
    found = find_uncertified(policy, replace(held, ended={"pass:bad": "alarm"}), "stack", TODAY)
    assert found == {"pass:default": "alarm", "pass:fine": "alarm"}


@given(
    st.lists(st.floats(0, 1, width=32) | st.none(), min_size=3, max_size=3),
    st.sets(st.sampled_from(["block:bad", "block:worse", "pass:fine", "pass:default"])),
)
def test_without_an_action_its_items_go_to_review_and_no_verdict_is_milder_or_new(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], actions: set[str]
) -> None:
    policy = policy_in(tmp_path_factory.getbasetemp())
    votes = ItemVotes(
        labels=LABELS,
        frames=(0,),
        times_s=(None,),
        scores=np.array([[np.nan if s is None else s for s in scores]], np.float32),
    )
    before = judge(bind(policy, LABELS), votes)
    after = judge(bind(withdraw(policy, actions), LABELS), votes)
    assert after.verdict in (before.verdict, Verdict.REVIEW)
    if {"block:bad", "block:worse", "pass:fine", "pass:default"} <= actions:
        assert after.verdict is Verdict.REVIEW


def test_certificates_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    held = certificates(policy_in(tmp_path), ("block", "bad"), ("pass", "bad"))
    file = certificates_path(str(tmp_path / "policy.yaml"))
    assert file == str(tmp_path / "policy.certificates.json")
    assert read_certificates(file) is None
    write_certificates(file, held)
    assert read_certificates(file) == held


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "certificates": [{}]}'])
def test_a_file_that_is_none_of_certificates_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.certificates.json").write_text(text)
    with pytest.raises(UsageError, match="not readable as certificates"):
        read_certificates(str(tmp_path / "policy.certificates.json"))


def test_a_run_without_certificates_is_told_so_and_decides_all_the_same(tmp_path: Path) -> None:
    policy = policy_in(tmp_path)
    effective, certification = certify_policy(policy, str(tmp_path / "policy.yaml"), "stack", today=TODAY)
    assert effective == policy
    said = describe_certification(certification.as_json())
    assert len(said) == 1
    assert "not certified: block:bad, block:worse, pass:default, pass:fine (there is no certificate)" in said[0]
    write_certificates(certification.file, certificates(policy, ("block", "bad"), ("block", "worse"), ("pass", "bad")))
    _, certified = certify_policy(policy, str(tmp_path / "policy.yaml"), "stack", today=TODAY)
    assert describe_certification(certified.as_json()) == []


def test_nulls_of_a_check_that_may_no_longer_pass_still_send_items_to_review(tmp_path: Path) -> None:
    policy = policy_in(
        tmp_path,
        """
checks:
  sure: {side: positive, votes: [a.fine, a.worse], pass: 0.5}
  fine: {side: positive, votes: [a.fine], pass: 0.5}
""",
    )
    votes = ItemVotes(labels=LABELS, frames=(0,), times_s=(None,), scores=np.array([[0, np.nan, 0.9]], np.float32))
    reasons = [judge(bind(p, LABELS), votes).reason for p in (policy, withdraw(policy, ["pass:sure"]))]
    assert reasons == ["null:sure:review"] * 2


@settings(max_examples=150, deadline=None)
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), data=st.data())
def test_of_any_policy_what_is_withdrawn_goes_to_review_and_nothing_else_becomes_milder(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, data: Any
) -> None:
    actions = automatic_actions(policy)
    chosen = data.draw(st.sets(st.sampled_from(actions))) if actions else set()

    def judged(of: Policy) -> Judgement:
        return judge_item(votes_of(scores), None, bind(of, DRAWN_LABELS, as_of=DRAWN_TODAY), seen, facts)

    before, after = judged(policy), judged(withdraw(policy, chosen))
    assert after.verdict in (before.verdict, Verdict.REVIEW)
    assert set(automatic_actions(withdraw(policy, actions))) <= {"pass:default"} - set(actions)
    # What people listed is theirs to decide, certified or not.
    alone = judged(withdraw(policy, actions))
    assert alone.verdict is Verdict.REVIEW or alone.reason.startswith("list:")
    assert after.audit == before.audit
