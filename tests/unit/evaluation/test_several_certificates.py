"""Several certificates a side: of several checks, and of thresholds by attribute; weighted and grouped labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.errors import UsageError
from moderation.evaluation.audit import AuditRegion, regions_of, split_region
from moderation.evaluation.certified_policy import apply_certified
from moderation.evaluation.certified_side import SideOutcome, certify_side
from moderation.evaluation.certify import Certified
from moderation.evaluation.claim import Claim
from moderation.evaluation.evaluate import evaluate
from moderation.evaluation.issue import Issued, issue, plan_labels
from moderation.evaluation.issued_files import write_issued
from moderation.evaluation.monitor import note_night
from moderation.evaluation.population import JudgedItem
from moderation.evaluation.walks import labels_without_error
from moderation.labels.meaning import make_meaning
from moderation.labels.resolve import Label
from moderation.policy.audit import Audit
from moderation.policy.bind import bind
from moderation.policy.certified import find_uncertified
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy, load_policy
from moderation.results.certificates import read_certificates
from moderation.types import ItemFacts, ItemVotes, Verdict
from tests.finished_run import Made, write_run

TODAY = date(2026, 11, 26)
LABELS = ("a.gore", "a.nude")
LOOSE = Claim(block_errors=0.05, leak=0.05)
PLAIN_ITEM = JudgedItem(
    item_id="", uri="", content_hash=None, kind="image", verdict="pass", reason="default:pass", scores={}, frames=1,
    may_pass=True, attributes={}, group_id=None, audit=True, label=None, audit_label=None,
)  # fmt: skip
RESULT = Certified(threshold=0.5, labels=9, errors=0, bound=0.01, level=0.01, method="exact", more=None)
TWO = """
default: review
checks:
  gore: {side: negative, votes: [a.gore], block: 0.95, review: 0.4}
  nude: {side: negative, votes: [a.nude], block: 0.95, review: 0.4}
audit:
  salt: pepper
  block:
    - {check: gore, rate: 1.0, from: 0.5}
    - {check: nude, rate: 1.0, from: 0.5}
"""
BY = """
default: review
checks:
  gore:
    side: negative
    votes: [a.gore]
    block: 0.95
    review: 0.4
    by: {region: {strict: {block: 0.9}, rare: {block: 0.8}}}
  fine: {side: positive, votes: [a.gore], invert: true, pass: 0.95}
audit:
  salt: pepper
  block: {check: gore, rate: 1.0, from: 0.5}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledWorld:
    """A run and its labels. scores: float32 [N,2]; regions: of each item."""

    folder: Path
    out: str
    labels: str
    scores: np.ndarray
    regions: Sequence[str]

    def issue(self, claim: Claim = LOOSE) -> Issued:
        return issue([self.out], self.labels, TODAY, claim=claim)

    def write(self, issued: Issued) -> Policy:
        write_issued(issued, str(self.folder / "certified.yaml"))
        return load_policy(self.folder / "certified.yaml")


def make(
    folder: Path,
    policy: str,
    *,
    count: int = 900,
    region: Callable[[int], str] = lambda n: "",
    edge: Mapping[str, float] | None = None,
    group: Callable[[int], str] = lambda n: "",
    probability: Callable[[int, float], str] | None = None,
    nude_is_wrong: bool = False,
) -> LabelledWorld:
    """Items that are bad from a score on: 0.7, or that of their region."""
    rng = np.random.default_rng(5)
    scores = rng.random((count, 2)).astype(np.float32)
    regions = [region(n) for n in range(count)]
    edges = np.array([(edge or {}).get(r, 0.7) for r in regions])
    bad = scores[:, 0] > edges
    bad |= (rng.random(count) < 0.5) if nude_is_wrong else scores[:, 1] > 0.8
    items = []
    for n in range(count):
        attributes = {k: v for k, v in (("region", regions[n]), ("group", group(n))) if v}
        items.append(Made(name=f"i{n}", votes=[tuple(map(float, scores[n]))], attributes=attributes))
    out = write_run(folder, LABELS, items, policy, shard_items=450)
    head = "item_id,label,source,reviewer" + ("" if probability is None else ",probability")
    tail = ["" if probability is None else f",{probability(n, float(scores[n, 0]))}" for n in range(count)]
    rows = [f"i{n},{'bad' if bad[n] else 'ok'},audit,r{r}{tail[n]}" for n in range(count) for r in "ab"]
    (folder / "labels.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    return LabelledWorld(folder=folder, out=out, labels=str(folder / "labels.csv"), scores=scores, regions=regions)


def verdicts(policy: Policy, world: LabelledWorld) -> list[Verdict]:
    bound = bind(policy, LABELS)
    facts = [
        ItemFacts(item_id=f"i{n}", attributes={"region": region} if region else {})
        for n, region in enumerate(world.regions)
    ]
    votes = [ItemVotes(labels=LABELS, frames=(0,), times_s=(None,), scores=row[None]) for row in world.scores]
    return [judge_item(v, None, bound, None, f).verdict for v, f in zip(votes, facts, strict=True)]


def test_two_checks_of_a_side_share_its_risk(tmp_path: Path) -> None:
    world = make(tmp_path, TWO)
    issued = world.issue()
    assert [(side.region.name, side.threshold is not None) for side in issued.sides] == [
        ("block:gore", True), ("block:nude", True),
    ]  # fmt: skip
    assert [c.risk for c in issued.certificates.certificates] == [pytest.approx(0.0125)] * 2
    written, certificates = world.write(issued), read_certificates(str(tmp_path / "certified.certificates.json"))
    assert certificates is not None
    assert find_uncertified(written, certificates, "stack", TODAY) == {}
    blocked = sum(v is Verdict.BLOCK for v in verdicts(written, world))
    zones = [side.result.labels for side in issued.sides]
    assert max(zones) < blocked <= sum(zones)


def test_one_check_that_is_not_certified_does_not_hold_back_the_other(tmp_path: Path) -> None:
    world = make(tmp_path, TWO, nude_is_wrong=True)
    issued = world.issue(Claim(block_errors=0.1))
    states = {side.region.name: side.threshold is not None for side in issued.sides}
    assert states == {"block:gore": True, "block:nude": False}
    assert issued.withdrawn == ("block:nude",)
    assert world.write(issued).checks["nude"].block is None


def test_more_certificates_need_more_labels_each(tmp_path: Path) -> None:
    one = make(
        tmp_path / "1", BY.replace("    by: {region: {strict: {block: 0.9}, rare: {block: 0.8}}}\n", ""), count=20
    )
    two = make(tmp_path / "2", TWO, count=20)
    assert [plan.needed for plan in plan_labels([one.out], Claim())] == [505]
    assert [plan.needed for plan in plan_labels([two.out], Claim())] == [574, 574]
    assert labels_without_error(0.01, 0.05 / 2 / 2 / 4) == 574


def test_thresholds_by_attribute_have_certificates_of_their_own(tmp_path: Path) -> None:
    def region(n: int) -> str:
        return "rare" if n % 90 == 0 else "strict" if n % 2 else ""

    world = make(tmp_path, BY, count=1600, region=region, edge={"strict": 0.55, "rare": 0.55})
    issued = world.issue()
    thresholds = {side.region.name: side.threshold or 0.0 for side in issued.sides}
    assert set(thresholds) == {"block:gore", "block:gore (region = strict)"}
    assert 0.5 <= thresholds["block:gore (region = strict)"] < 0.6 < thresholds["block:gore"] < 0.75
    assert any("block:gore (region = rare): " in note and "too few" in note for note in issued.notes)
    written = world.write(issued)
    assert set(written.checks["gore"].by["region"]) == {"strict"}
    certificates = read_certificates(str(tmp_path / "certified.certificates.json"))
    assert certificates is not None
    assert find_uncertified(written, certificates, "stack", TODAY) == {}
    # What the policy blocks is what the zones hold: each item in one of them, none more.
    blocked = [n for n, v in enumerate(verdicts(written, world)) if v is Verdict.BLOCK]
    assert len(blocked) == sum(side.result.labels for side in issued.sides)
    ended = {"block:gore (region = strict)": "an alarm"}
    assert find_uncertified(written, certificates, "stack", TODAY, ended) == {"block:gore": "an alarm"}


def test_a_value_that_is_not_certified_holds_back_the_check(tmp_path: Path) -> None:
    world = make(tmp_path, BY, count=1600, region=lambda n: "strict" if n % 2 else "", edge={"strict": 1.1})
    issued = world.issue()
    assert {side.region.name: side.threshold for side in issued.sides} == {
        "block:gore": None, "block:gore (region = strict)": None,
    }  # fmt: skip
    assert issued.sides[0].held_back is not None
    assert "block:gore" in issued.withdrawn
    # `nude` alone was certified of nothing: nothing blocks by itself.
    assert Verdict.BLOCK not in verdicts(world.write(issued), world)


def test_an_item_with_two_values_counts_in_both_zones(tmp_path: Path) -> None:
    both = BY.replace("rare: {block: 0.8}", "other: {block: 0.8}")
    world = make(tmp_path, both, count=1600, region=lambda n: ("strict", "other", '["strict", "other"]')[n % 3])
    issued = world.issue()
    names = {side.region.name: side for side in issued.sides}
    strict, other = names["block:gore (region = strict)"], names["block:gore (region = other)"]
    assert strict.drawn > 0 and other.drawn > 0
    drawn = sum(float(s) >= 0.5 for s in world.scores[:, 0])
    assert strict.drawn + other.drawn >= drawn  # those with both are in each


def test_monitors_bet_on_each_certificate_by_the_items_that_it_decides(tmp_path: Path) -> None:
    world = make(tmp_path, BY, count=1600, region=lambda n: "strict" if n % 2 else "", edge={"strict": 0.55})
    policy = world.write(world.issue())
    certificates = read_certificates(str(tmp_path / "certified.certificates.json"))
    assert certificates is not None
    items = [
        Made(name=f"n{n}", votes=[(0.99, 0.0)], attributes={"region": "strict"} if n % 2 else {}) for n in range(10)
    ]
    night = write_run(tmp_path / "night", LABELS, items, (tmp_path / "certified.yaml").read_text())
    assert note_night(str(tmp_path / "home"), "1", night, policy, certificates) == 10


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({"block": [{"check": "a", "rate": 1, "from": 0.5}] * 2}, "'a' stands twice"),
        ({"pass": [{"check": c, "rate": 1, "to": 0.5} for c in "ab"]}, "one is enough"),
        ({"block": []}, "needs `block`, `pass`, or both"),
    ],
)
def test_sides_that_mean_nothing_are_refused(sides: Mapping[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Audit.model_validate({"salt": "s", **sides})


def test_weighted_labels_certify_by_betting(tmp_path: Path) -> None:
    # Half of the items were labelled with a probability of 0.5, all others surely.
    one = BY.replace("    by: {region: {strict: {block: 0.9}, rare: {block: 0.8}}}\n", "")
    world = make(tmp_path, one, count=3000, probability=lambda n, score: "0.5" if n % 2 else "1")
    (side,) = [side for side in world.issue().sides if side.region.side == "block"]
    assert side.threshold is not None
    assert side.result.method == "betting"
    lines = Path(world.labels).read_text().splitlines()
    high = next(n for n in range(1, 100, 2) if world.scores[n, 0] >= 0.5)
    lines = [line.rpartition(",")[0] + "," if line.startswith(f"i{high},") else line for line in lines]
    Path(world.labels).write_text("\n".join(lines))
    for call in (world.issue, lambda: evaluate([world.out], world.labels)):
        with pytest.raises(UsageError, match="have no `probability`"):
            call()


def test_groups_that_were_labelled_whole_count_whole(tmp_path: Path) -> None:
    one = BY.replace("    by: {region: {strict: {block: 0.9}, rare: {block: 0.8}}}\n", "")
    world = make(tmp_path, one, count=2400, group=lambda n: f"g{n // 3}")
    single = world.issue().sides[0]
    whole = world.issue(Claim(block_errors=0.05, whole_groups=True)).sides[0]
    assert whole.drawn > 1.5 * single.drawn
    assert whole.result.method == "grouped betting"
    # Bets on sums of groups of 3 within bounds of groups of 20 are small: these labels are a few too few.
    assert whole.threshold is None and (whole.result.more or 0) >= 1
    assert "groups were labelled whole" in world.issue(Claim(block_errors=0.05, whole_groups=True)).certificates.rule


@pytest.mark.parametrize(("bad", "certified"), [(0.25, False), (0.02, True)])
def test_a_missing_label_lifts_no_neighbour_of_its_group(bad: float, certified: bool) -> None:
    """Half of the groups are sure, with a label missing in each; of the others one in ten is labelled.

    Of all items 10/11 x `bad` pass wrongly; with the weight of the missing label the sure ones outweighed the others.
    """
    rng = np.random.default_rng(0)
    region = AuditRegion(side="pass", check="c", rate=1.0, negative=True, start=None, stop=1.0)
    audit = Audit.model_validate({"salt": "s", "group": "group", "pass": {"check": "c", "to": 1.0, "rate": 1.0}})

    def made(number: int, group: str, label: Label | None) -> JudgedItem:
        return replace(
            PLAIN_ITEM, item_id=str(number), scores={"c": float(rng.random())}, attributes={"group": group},
            label=label, audit_label=label,
        )  # fmt: skip

    def label(word: str, probability: float) -> Label:
        words = frozenset({word})
        return Label(words=words, answers=2, agreed=True, settled=True, probability=probability)

    sure = [made(20 * g + k, f"a{g}", label("ok", 1.0) if k else None) for g in range(300) for k in range(20)]
    rare = [
        made(9000 + 20 * g + k, f"b{g}", label("bad" if rng.random() < bad else "ok", 0.1))
        for g in range(300)
        for k in range(20)
    ]
    meaning = make_meaning({"c": "negative"}, ("bad", "ok"))
    outcome = certify_side(audit, region, sure + rare, meaning, Claim(leak=0.2, whole_groups=True), 0.025)
    assert (outcome.threshold is not None) is certified


@pytest.mark.parametrize("wrong", [0, 20])
def test_what_only_a_part_of_a_picture_would_block_certifies_no_block(wrong: int) -> None:
    """It was reviewed: that people call it bad says nothing of what is blocked, of which one in `wrong` is fine."""
    region = AuditRegion(side="block", check="c", rate=1.0, negative=True, start=0.5, stop=None)
    audit = Audit.model_validate({"salt": "s", "block": {"check": "c", "from": 0.5, "rate": 1.0}})

    def made(number: int, reason: str, verdict: str, word: str) -> JudgedItem:
        label = Label(words=frozenset({word}), answers=2, agreed=True, settled=True)
        score = float(np.float32(0.8 + number % 1000 / 5000))
        return replace(
            PLAIN_ITEM, item_id=str(number), scores={"c": score}, reason=reason, verdict=verdict, audit_label=label
        )

    blocked = [made(n, "negative:c:block", "block", "ok" if wrong and n % wrong == 0 else "bad") for n in range(1000)]
    by_part = [made(n, "context:c:review", "review", "bad") for n in range(1000, 8000)]
    meaning = make_meaning({"c": "negative"}, ("bad", "ok"))
    outcome = certify_side(audit, region, blocked + by_part, meaning, Claim(), 0.025, {("c", None, None): 0.8})
    assert (outcome.threshold is None) is bool(wrong)
    assert wrong or ((outcome.threshold or 0) >= 0.8 and 800 < outcome.result.labels <= 1000)


@pytest.mark.parametrize(
    ("by", "side", "threshold"),
    [
        ({"strict": {"block": 0.6}}, "pass", 0.8),
        ({"loose": {"review": 0.7}}, "block", 0.6),
        ({"loose": {"block": 0.95, "review": 0.7}}, "block", 0.6),
    ],
)
def test_a_certified_threshold_keeps_the_policy_whole_beside_values_of_an_attribute(
    by: Mapping[str, object], side: str, threshold: float
) -> None:
    check = {"side": "negative", "votes": ["d.x"], "block": 0.9, "review": 0.5, "by": {"region": by}}
    sides = {"block": {"check": "c", "from": 0.0, "rate": 0.5}, "pass": {"check": "c", "to": 1.0, "rate": 0.5}}
    audit = {"salt": "s", **sides}
    policy = Policy.model_validate({"default": "pass", "checks": {"c": check}, "audit": audit})
    region = next(region for region in regions_of(policy) if region.side == side)
    split = split_region(policy, region, (), 0)
    outcomes = [
        SideOutcome(
            region=each, allowed=0.01, risk=0.01, drawn=9, unlabelled=0, unsettled=0, errors=0,
            result=RESULT, threshold=threshold, decided=1.0,
        )
        for each in split.regions
    ]  # fmt: skip
    certified, _ = apply_certified(policy, outcomes, [each for each, _ in split.pooled])
    own = certified.checks["c"]
    for values in own.by.values():
        for value in values.values():
            block, review = value.block or own.block, value.review or own.review
            assert block is None or review is None or review <= block


def test_weighted_measures_undo_the_sampling(tmp_path: Path) -> None:
    """Of items under 0.4 one in ten is labelled: plain counts see too few of them, weighted ones do not."""
    one = BY.replace("    by: {region: {strict: {block: 0.9}, rare: {block: 0.8}}}\n", "")
    world = make(tmp_path, one, count=4000, probability=lambda n, score: "0.1" if score < 0.4 else "1")
    (everything,) = evaluate([world.out], world.labels)
    lines = Path(world.labels).read_text().splitlines()
    numbers = [int(line.split(",")[0][1:]) for line in lines[1:]]
    kept = [x for x, n in zip(lines[1:], numbers, strict=True) if world.scores[n, 0] >= 0.4 or n % 10 == 0]
    Path(world.labels).write_text("\n".join([lines[0], *kept]))
    (sampled,) = evaluate([world.out], world.labels)
    assert sampled.weighted is not None
    true, plain = everything.verdicts[0], sampled.verdicts[0]
    for name in ("automation", "wrong", "review", "block_recall"):
        share = getattr(true, name).share
        assert abs(getattr(sampled.weighted, name).share - share) < abs(getattr(plain, name).share - share)
    assert 0 < sampled.weighted.effective < sampled.labelled
    low, high = sampled.weighted.leak.low, sampled.weighted.leak.high
    assert low is not None and high is not None and low <= (true.leak.share or 0) <= high


@pytest.mark.parametrize("cell", ["0", "-1", "1.5", "nan", "x"])
def test_a_probability_that_is_none_is_named(tmp_path: Path, cell: str) -> None:
    world = make(tmp_path, TWO, count=4, probability=lambda n, score: cell)
    with pytest.raises(UsageError, match=r"line 2: `probability` is '.*', not a number over 0 and at most 1"):
        evaluate([world.out], world.labels)


def test_the_command_says_how_risk_is_shared(tmp_path: Path) -> None:
    world = make(tmp_path, TWO)
    said = CliRunner().invoke(
        app, ["certify", world.out, "--labels", world.labels, "--dry-run", "--block-errors", "0.05"]
    )
    assert said.exit_code == 0, said.output
    assert "2 thresholds of block share its risk: each is wrong with a probability of at most 1.25%" in said.output


def test_the_command_asks_for_missing_labels_before_it_says_that_no_number_helps(tmp_path: Path) -> None:
    world = make(tmp_path, TWO, count=60)
    lines = Path(world.labels).read_text().splitlines()
    Path(world.labels).write_text("\n".join(lines[:20]))
    said = CliRunner().invoke(app, ["certify", world.out, "--labels", world.labels, "--dry-run"]).output
    assert "drawn items have no settled label, and count as errors: label these first" in said
    assert "no number" not in said
