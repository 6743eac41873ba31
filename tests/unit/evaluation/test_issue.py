"""`certify` on finished runs: what is certified, what is written, and what counts against the machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml

from moderation.config.load import packaged_configs, validate
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.evaluation.claim import Claim
from moderation.evaluation.issue import issue, plan_labels
from moderation.evaluation.issued_files import check_target, write_issued
from moderation.policy.bind import bind
from moderation.policy.certified import automatic_actions, find_uncertified, withdraw
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy, load_policy, policy_hash
from moderation.results.certificates import certify_policy, read_certificates
from moderation.results.decided import keep_inputs
from moderation.types import ItemVotes, Verdict
from tests.finished_run import Made, write_run

LABELS = ("a.bad",)
TODAY = date(2026, 11, 26)
POLICY = """
default: review
checks:
  bad: {side: negative, votes: [a.bad], block: 0.95, review: 0.4}
  fine: {side: positive, votes: [a.bad], invert: true, pass: 0.95}
audit:
  salt: pepper
  block: {check: bad, rate: 1.0, from: 0.5}
  pass: {check: fine, rate: 1.0, from: 0.5}
"""
LOOSE = Claim(block_errors=0.05, leak=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRun:
    """A run, the path of its labels, and its items' scores."""

    out: str
    labels: Path
    scores: np.ndarray


def make_run(folder: Path, policy: str = POLICY, *, answers: int = 2, count: int = 800, seed: int = 3) -> LabelledRun:
    """Items whose badness steps up at a score of 0.7; each labelled by `answers` reviewers."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count).astype(np.float32)
    bad = rng.random(count) < 1 / (1 + np.exp(-(scores - 0.7) * 80))
    items = [Made(name=f"i{n}", votes=[(float(s),)]) for n, s in enumerate(scores)]
    out = write_run(folder, LABELS, items, policy, shard_items=400)
    rows = [f"i{n},{'bad' if b else 'ok'},audit,r{r}" for n, b in enumerate(bad) for r in range(answers)]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(["item_id,label,source,reviewer", *rows]), encoding="utf-8")
    return LabelledRun(out=out, labels=labels, scores=scores)


def test_both_sides_are_certified_and_the_written_policy_decides_by_the_thresholds(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    issued = issue([run.out], str(run.labels), TODAY, claim=LOOSE)
    thresholds = {side.region.action: side.threshold for side in issued.sides}
    assert all(t is not None for t in thresholds.values())
    assert 0.65 < (thresholds["block:bad"] or 0) < 0.8
    assert (thresholds["pass:fine"] or 0) >= 0.5
    assert issued.withdrawn == ()
    to = str(tmp_path / "certified.yaml")
    file = write_issued(issued, to)
    written, certificates = load_policy(Path(to)), read_certificates(file)
    assert certificates is not None
    assert written.checks["bad"].block == thresholds["block:bad"]
    assert written.audit is not None
    assert find_uncertified(written, certificates, "stack", TODAY) == {}
    # The zone of the certificate is what the policy blocks: no item more, none less.
    blocked = sum(verdict_of(written, float(s)) is Verdict.BLOCK for s in run.scores)
    assert blocked == next(c.labels for c in certificates.certificates if c.side == "block")


def verdict_of(policy: object, score: float) -> Verdict:
    votes = ItemVotes(labels=LABELS, frames=(0,), times_s=(None,), scores=np.array([[score]], np.float32))
    return judge_item(votes, None, bind(policy, LABELS)).verdict  # type: ignore[arg-type] # a Policy


def test_what_is_not_certified_goes_to_review_and_says_how_many_labels_it_needs(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=300)
    issued = issue([run.out], str(run.labels), TODAY)
    assert [side.threshold for side in issued.sides] == [None, None]
    assert all(side.result.more is not None and side.result.more > 200 for side in issued.sides)
    assert issued.withdrawn == ("block:bad", "pass:fine")
    assert automatic_actions(issued.policy) == ()
    write_issued(issued, str(tmp_path / "certified.yaml"))
    written = load_policy(tmp_path / "certified.yaml")
    assert {verdict_of(written, s) for s in (0.0, 0.5, 1.0)} == {Verdict.REVIEW}
    # It goes on to draw the audit, so that the labels it needs can come.
    assert written.audit is not None


def test_an_uncertified_policy_can_be_certified_later(tmp_path: Path) -> None:
    first = make_run(tmp_path / "1", count=100)
    write_issued(issue([first.out], str(first.labels), TODAY), str(tmp_path / "later.yaml"))
    second = make_run(tmp_path / "2", (tmp_path / "later.yaml").read_text(), count=900)
    issued = issue([second.out], str(second.labels), TODAY, claim=LOOSE)
    assert all(side.threshold is not None for side in issued.sides)
    assert automatic_actions(issued.policy) == ("block:bad", "pass:fine")


def test_one_answer_does_not_certify_unless_that_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path, answers=1)
    strict = issue([run.out], str(run.labels), TODAY, claim=LOOSE)
    assert [side.threshold for side in strict.sides] == [None, None]
    assert any("lack two answers" in note for note in strict.notes)
    one = issue([run.out], str(run.labels), TODAY, claim=Claim(block_errors=0.05, leak=0.05, answers=1))
    assert all(side.threshold is not None for side in one.sides)
    assert "one answer is enough" in one.certificates.rule


def test_a_drawn_item_without_a_label_counts_as_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = run.labels.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(tuple(f"i{n}," for n in range(0, 800, 4)))]
    run.labels.write_text("\n".join(kept), encoding="utf-8")
    issued = issue([run.out], str(run.labels), TODAY, claim=LOOSE)
    assert [side.threshold for side in issued.sides] == [None, None]
    assert any("have no label" in note for note in issued.notes)


def test_labels_that_somebody_chose_to_give_certify_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.labels.write_text(run.labels.read_text().replace(",audit,", ",reported,"), encoding="utf-8")
    issued = issue([run.out], str(run.labels), TODAY, claim=LOOSE)
    assert [side.threshold for side in issued.sides] == [None, None]
    assert all(side.unlabelled == side.drawn for side in issued.sides)


def test_labels_that_say_audit_of_items_that_were_not_drawn_certify_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, POLICY.replace("rate: 1.0", "rate: 0.1"))
    issued = issue([run.out], str(run.labels), TODAY, claim=LOOSE)
    assert all(20 < side.drawn < 70 for side in issued.sides)
    assert any("of items that were not drawn" in note for note in issued.notes)


def test_of_a_group_one_item_counts(tmp_path: Path) -> None:
    items = [Made(name=f"i{n}", votes=[(0.99,)], attributes={"group": f"g{n // 4}"}) for n in range(400)]
    out = write_run(tmp_path, LABELS, items, POLICY, shard_items=400)
    labels = tmp_path / "labels.csv"
    rows = [f"i{n},bad,audit,{r}" for n in range(400) for r in "ab"]
    labels.write_text("\n".join(["item_id,label,source,reviewer", *rows]), encoding="utf-8")
    assert issue([out], str(labels), TODAY).sides[0].drawn == 100


def test_an_item_drawn_by_another_sides_rate_is_no_sample_of_this_one(tmp_path: Path) -> None:
    policy = POLICY.replace("check: bad, rate: 1.0", "check: bad, rate: 0.1").replace("from: 0.5}\n", "from: 0.0}\n")
    run = make_run(tmp_path, policy)
    drawn = {side.region.side: side.drawn for side in issue([run.out], str(run.labels), TODAY).sides}
    assert drawn["block"] < 130
    assert drawn["pass"] > 300


def test_a_policy_without_an_audit_cannot_be_certified(tmp_path: Path) -> None:
    run = make_run(tmp_path, POLICY.partition("audit:")[0], count=20)
    with pytest.raises(UsageError, match="the policy has no `audit:`"):
        issue([run.out], str(run.labels), TODAY)


def test_a_pass_by_a_negative_check_is_certified_below_a_score(tmp_path: Path) -> None:
    policy = """
default: pass
checks:
  bad: {side: negative, votes: [a.bad], block: 0.95, review: 0.4}
audit:
  salt: pepper
  pass: {check: bad, rate: 1.0, to: 0.6}
"""
    run = make_run(tmp_path, policy)
    issued = issue([run.out], str(run.labels), TODAY, claim=LOOSE)
    (side,) = issued.sides
    assert side.threshold is not None
    # What was blocked had no audit, so it is reviewed; what passes is what was certified, to the last float.
    assert issued.withdrawn == ("block:bad",)
    passed = sum(verdict_of(issued.policy, float(s)) is Verdict.PASS for s in run.scores)
    assert passed == side.result.labels


@pytest.mark.parametrize("block", ["block: 0.8", "block: 0.99, by: {region: {eu: {block: 0.8}}}"])
@pytest.mark.parametrize("every", [0, 15])
def test_what_a_check_blocks_says_nothing_of_what_passes_by_it(tmp_path: Path, block: str, every: int) -> None:
    """Two of three items are fine and blocked; of those that can pass 6.7% are bad, or none: of all 2.2%."""
    policy = f"""
default: pass
checks:
  bad: {{side: negative, votes: [a.bad], review: 0.4, {block}}}
audit:
  salt: pepper
  pass: {{check: bad, rate: 1.0, to: 1.0}}
"""
    scores = [n / 625 if n < 500 else 0.9 if n % 2 else 1.0 for n in range(1500)]
    items = [Made(name=f"i{n}", votes=[(score,)], attributes={"region": "eu"}) for n, score in enumerate(scores)]
    out = write_run(tmp_path, LABELS, items, policy, shard_items=1500)
    bad = [bool(every) and n < 500 and n % every == 0 for n in range(1500)]
    rows = [f"i{n},{'bad' if b else 'ok'},audit,r{r}" for n, b in enumerate(bad) for r in range(2)]
    (tmp_path / "labels.csv").write_text("\n".join(["item_id,label,source,reviewer", *rows]))
    (side,) = issue([out], str(tmp_path / "labels.csv"), TODAY, claim=LOOSE).sides
    assert (side.threshold is None) is bool(every)
    assert side.threshold is None or side.threshold < 0.81


def test_a_run_that_withdrew_its_default_can_certify_it(tmp_path: Path) -> None:
    """`require_certificate` without any certificate: all is reviewed, and that is no reason never to certify."""
    policy = """
default: pass
require_certificate: true
checks:
  bad: {side: negative, votes: [a.bad], block: 0.99, review: 0.01}
audit:
  salt: pepper
  pass: {check: bad, rate: 1.0, to: 1.0}
"""
    written = validate(Policy, yaml.safe_load(policy), where="policy")
    withdrawn = ("block:bad", "pass:default")
    judged_by = withdraw(written, withdrawn).model_dump_json(by_alias=True, exclude_unset=True)
    run = make_run(tmp_path, judged_by)
    record = tmp_path / "out" / "run.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "identity": {**(told.get("identity") or {}), "withdrawn": withdrawn}}))
    (tmp_path / "policy.yaml").write_text(policy)
    (side,) = issue([run.out], str(run.labels), TODAY, claim=LOOSE).sides
    assert side.threshold is not None and 0.5 < side.threshold < 0.8


def test_required_certificates_take_the_rest_to_review_at_run_time(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    to = tmp_path / "certified.yaml"
    write_issued(issue([run.out], str(run.labels), TODAY, claim=LOOSE), str(to))
    to.write_text(to.read_text() + "require_certificate: true\n", encoding="utf-8")
    policy = load_policy(to)
    effective, certification = certify_policy(policy, str(to), "stack", today=TODAY)
    assert (effective, certification.withdrawn) == (policy, False)
    expired, certification = certify_policy(policy, str(to), "stack", today=date(2027, 6, 1))
    assert certification.withdrawn
    assert {verdict_of(expired, s) for s in (0.0, 0.5, 1.0)} == {Verdict.REVIEW}
    assert automatic_actions(expired) == ()


def test_calibration_takes_the_labels_that_do_not_certify(tmp_path: Path) -> None:
    run = make_run(tmp_path, POLICY.replace("rate: 1.0", "rate: 0.3"))
    for kind in ("isotonic", "temperature"):
        issued = issue([run.out], str(run.labels), TODAY, calibrate=kind)
        assert [c.check for c in issued.calibrations] == ["bad", "fine"]
        assert all(c.labels < 700 for c in issued.calibrations)
        write_issued(issued, str(tmp_path / "p.yaml"))
        knots = json.loads((tmp_path / "p.calibration.json").read_text())["calibrations"][0]["knots"]
        assert knots == sorted(knots)
        if kind == "isotonic":
            assert issued.calibrations[0].after < issued.calibrations[0].before


def test_a_policy_is_written_where_its_lists_lie(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=20)
    policy = load_policy(tmp_path / "policy.yaml")
    check_target(str(tmp_path / "elsewhere" / "p.yaml"), policy, str(tmp_path / "policy.yaml"))
    with pytest.raises(UsageError, match=r"ends with \.yaml"):
        check_target(run.out, policy, str(tmp_path / "policy.yaml"))
    named = {"lists": {"known": {"action": "deny", "by": "content_hash", "from": "known.csv"}}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(yaml.safe_load(POLICY) | named), encoding="utf-8")
    listing = load_policy(tmp_path / "policy.yaml")
    check_target(str(tmp_path / "beside.yaml"), listing, str(tmp_path / "policy.yaml"))
    with pytest.raises(UsageError, match=r"names 'known\.csv', which lies beside it"):
        check_target(str(tmp_path / "elsewhere" / "p.yaml"), listing, str(tmp_path / "policy.yaml"))


def test_a_policy_is_written_where_its_definitions_lie(tmp_path: Path) -> None:
    run = make_run(tmp_path, POLICY.replace("review: 0.4}", "review: 0.4, definition: gore}"), count=20)
    path, elsewhere = str(tmp_path / "policy.yaml"), tmp_path / "elsewhere"
    policy = load_policy(Path(path))
    check_target(str(elsewhere / "p.yaml"), policy, path)  # packaged
    text = (packaged_configs() / "definitions" / "gore.yaml").read_text()
    for folder in (tmp_path, elsewhere):
        (folder / "definitions").mkdir(parents=True)
    (tmp_path / "definitions" / "gore.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"names 'definitions/gore\.yaml', which lies beside it"):
        check_target(str(elsewhere / "p.yaml"), policy, path)
    (elsewhere / "definitions" / "gore.yaml").write_text(text)
    check_target(str(elsewhere / "p.yaml"), policy, path)
    assert issue([run.out], str(run.labels), TODAY).policy.checks["bad"].definition == "gore"


def test_nights_whose_lists_have_grown_are_certified_together(tmp_path: Path) -> None:
    """Entries change every day, and end no certificate; another threshold does."""
    listed = POLICY + "lists: {known: {action: deny, by: content_hash, entries: [HASH]}}\n"
    texts = [listed.replace("HASH", digit * 64) for digit in "ab"] + [
        listed.replace("HASH", "a" * 64).replace("0.4", "0.3")
    ]
    outs = [kept_run(tmp_path / str(number), text) for number, text in enumerate(texts)]
    drawn = [sum(plan.drawn for plan in plan_labels(some, LOOSE)) for some in ([outs[0]], [outs[1]], outs[:2])]
    assert drawn == [10, 10, 20]
    with pytest.raises(UsageError, match="judged by another policy than"):
        plan_labels([outs[0], outs[2]], LOOSE)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (("invert: true, pass", "pass"), True),
        (("0.4", "0.5"), True),
        (("default: review", "default: review  # x"), False),
    ],
)
def test_labels_of_one_policy_certify_no_other(tmp_path: Path, change: tuple[str, str], refused: bool) -> None:
    """The file that the run names was edited after it: its labels say nothing of what that decides."""
    out = kept_run(tmp_path / "run", POLICY)
    labels = tmp_path / "labels.csv"
    labels.write_text("item_id,label,source\nrun-0,bad,audit", encoding="utf-8")
    (tmp_path / "run" / "policy.yaml").write_text(POLICY.replace(*change))
    if refused:
        with pytest.raises(UsageError, match="has changed since"):
            issue([out], str(labels), TODAY)
    else:
        assert issue([out], str(labels), TODAY).withdrawn == ("block:bad", "pass:fine")


def kept_run(folder: Path, policy: str) -> str:
    """A run of ten items that keeps its policy, as runs do."""
    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(policy)
    loaded = load_policy(folder / "policy.yaml")
    items = [Made(name=f"{folder.name}-{n}", votes=[(0.9,)]) for n in range(10)]
    out = write_run(folder, LABELS, items, policy, policy_hash=policy_hash(loaded))
    keep_inputs(out, loaded, Config(policy=str(folder / "policy.yaml")))
    record = json.loads((folder / "out" / "run.json").read_text())
    record["identity"] = {"policy": policy_hash(loaded), "stack": "stack"}
    (folder / "out" / "run.json").write_text(json.dumps(record))
    return out
