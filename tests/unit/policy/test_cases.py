"""A table of cases holds a policy to what it should decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.policy.cases import TestedCase, load_cases, run_cases
from moderation.policy.model import load_policy

POLICY = """
checks:
  bad: {side: negative, votes: [a.bad], block: 0.9, review: 0.5, pool: {method: run, length: 2}}
  fine: {side: positive, votes: [a.fine], pass: 0.6}
lists:
  people: {action: deny, by: person, entries: [Mallory], verdict: review}
  old: {action: deny, by: pdq, distance: 4, entries: [{value: "%s", until: 2026-11-30}]}
audit: {salt: s, block: {check: bad, rate: 1.0, from: 0.8}}
""" % ("0" * 64)
CASES = """
votes: {a.bad: 0.1, a.fine: 0.9}
as_of: 2026-11-26
cases:
  - {name: plain, verdict: pass, reason: "positive:fine:pass", audit: false}
  - {name: bad, votes: {a.bad: 0.95}, verdict: block, audit: true}
  - {name: nobody looked, votes: {a.bad: null}, verdict: review, reason: "null:bad:review"}
  - {name: a flash, kind: video, frames: [{votes: {a.bad: 0.95}, time_s: 0}, {time_s: 1}], verdict: review,
     reason: "isolated:bad:review"}
  - {name: a face, frames: [{people: [Mallory]}], verdict: review, reason: "list:people:review"}
  - {name: known, pdq: "%s", verdict: block}
  - {name: broken, frames: [], error: corrupt, verdict: review, reason: "error:corrupt"}
  - {name: another track, unseen: [track], verdict: review}
""" % ("0" * 64)


def run(tmp_path: Path, cases: str = CASES, policy: str = POLICY) -> list[TestedCase]:
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "cases.yaml").write_text(cases)
    return run_cases(load_policy(tmp_path / "policy.yaml"), load_cases(tmp_path / "cases.yaml"))


def test_cases_that_a_policy_decides_so_agree(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert [(case.name, case.got) for case in found if not case.agrees] == []
    assert len(found) == 8


def test_a_case_that_is_decided_otherwise_says_what_was_wanted_and_what_came(tmp_path: Path) -> None:
    milder = POLICY.replace("block: 0.9", "block: 0.97").replace("from: 0.8", "from: 0.96")
    case, flash = [case for case in run(tmp_path, policy=milder) if not case.agrees]
    assert (flash.name, flash.got) == ("a flash", "pass positive:fine:pass")
    assert case.name == "bad"
    assert (case.wanted, case.got) == ("block audit", "review no audit (negative:bad:review)")
    assert case.reason_text


def test_the_day_of_the_cases_ends_lists(tmp_path: Path) -> None:
    late = [case.name for case in run(tmp_path, CASES.replace("2026-11-26", "2026-12-01")) if not case.agrees]
    assert late == ["known"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{a.bad: 0.95}, verdict", "{a.bda: 0.95}, verdict"), "case 'bad': the policy reads no vote 'a.bda'; did you"),
        (("verdict: pass", "verdict: passed"), "cases.0.verdict"),
        (("verdict: pass,", "verdit: pass,"), "did you mean 'verdict'"),
        (("kind: video, frames", "kind: video, votes: {}, frames"), "has `votes` and `frames`"),
        (("cases:", "casses:"), "did you mean 'cases'"),
    ],
)
def test_each_mistake_in_a_table_of_cases_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path, CASES.replace(*change))


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file of cases"):
        load_cases(tmp_path / "cases.yaml")
