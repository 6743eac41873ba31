"""The region of a certificate holds what its check decides, and nothing that something else decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moderation.evaluation.audit import audit_of, drawn_for, regions_of
from moderation.evaluation.certified_policy import apply_certified
from moderation.evaluation.certified_side import SideOutcome, certify_side
from moderation.evaluation.certify import Certified
from moderation.evaluation.claim import Claim
from moderation.evaluation.evaluate import LabelWords, meaning_of
from moderation.evaluation.population import read_population
from moderation.labels.label_files import read_labels
from moderation.labels.resolve import resolve_labels
from moderation.policy.bind import bind
from moderation.policy.certified import not_covered
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy
from moderation.types import ItemFacts, ItemVotes, Kind, Verdict
from tests.finished_run import Made, write_run

LABELS = ("a.bad", "a.odd", "a.fine")
CHECKS = """
checks:
  bad: {side: negative, votes: [a.bad], block: 0.9, review: 0.3}
  odd: {side: negative, votes: [a.odd], review: 0.5}
  fine: {side: positive, votes: [a.fine], pass: 0.8}
lists: {known: {action: deny, by: attribute, attribute: owner, entries: [ann]}}
audit:
  salt: pepper
  block: {check: bad, rate: 1.0, from: 0.8}
  pass: {check: bad, rate: 1.0, to: 0.6}
"""
ITEMS = [
    Made(name="passed", votes=[(0.1, 0.1, 0.9)]),
    Made(name="neither", votes=[(0.1, 0.1, 0.1)]),
    Made(name="band", votes=[(0.4, 0.1, 0.9)]),
    Made(name="band, not fine", votes=[(0.4, 0.1, 0.1)]),
    Made(name="band, odd too", votes=[(0.5, 0.51, 0.9)]),
    Made(name="odd", votes=[(0.1, 0.7, 0.9)]),
    Made(name="band, odd not asked", votes=[(0.4, None, 0.9)]),
    Made(name="blocked", votes=[(0.95, 0.1, 0.1)]),
    Made(name="listed", votes=[(0.95, 0.1, 0.1)], attributes={"owner": "ann"}),
]


def drawn(folder: Path, default: str) -> dict[str, set[str]]:
    """Side -> the names of what was drawn for it."""
    out = write_run(folder, LABELS, ITEMS, f"default: {default}\n{CHECKS}", shard_items=20)
    population = read_population([out], resolve_labels([]), check_labels=False)
    assert population.policy.audit is not None
    audit = population.policy.audit
    return {
        region.side: {item.item_id for item in drawn_for(audit, region, population.items)}
        for region in regions_of(population.policy)
    }


@pytest.mark.parametrize(
    ("default", "may_pass"),
    [("review", {"passed", "band"}), ("pass", {"passed", "neither", "band", "band, not fine"})],
)
def test_the_pass_side_holds_what_passes_where_its_check_alone_objects(
    tmp_path: Path, default: str, may_pass: set[str]
) -> None:
    assert drawn(tmp_path, default)["pass"] == may_pass


VOUCHING = CHECKS.replace(
    "odd: {side: negative, votes: [a.odd], review: 0.5}", "odd: {side: attribute, votes: [a.odd]}"
)
VOUCHED = [
    Made(name="vouched", votes=[(0.1, 0.9, 0.1)]),
    Made(name="default", votes=[(0.1, 0.1, 0.1)]),
    Made(name="band", votes=[(0.4, 0.9, 0.1)]),
    Made(name="band, not vouched", votes=[(0.4, 0.1, 0.1)]),
    Made(name="band, two frames", votes=[(0.4, 0.9, 0.1), (0.1, 0.9, 0.1)], kind=Kind.VIDEO),
]


@pytest.mark.parametrize(
    ("rule", "sure", "unsure"),
    [
        ("{at_least: {odd: 0.8}}", {"vouched", "band"}, {"band, two frames"}),
        ("{at_least: {odd: 0.8}, below: {bad: 0.3}}", {"vouched"}, set()),
    ],
)
def test_a_positive_rule_approves_what_it_holds_of_and_nothing_else(
    tmp_path: Path, rule: str, sure: set[str], unsure: set[str]
) -> None:
    """Fine items that never pass would hide the bad ones among those that do."""
    out = write_run(tmp_path, LABELS, VOUCHED, f"{VOUCHING}vouch: {{odd: {rule}}}\n", shard_items=20)
    words = ["item_id,label,source,reviewer", *(f'"{made.name}",ok,audit,{r}' for made in VOUCHED for r in "ab")]
    (tmp_path / "labels.csv").write_text("\n".join(words))
    labels = resolve_labels(read_labels(str(tmp_path / "labels.csv")))
    population = read_population([out], labels)
    region = regions_of(population.policy)[1]
    audit = audit_of(population.policy)
    drawn = drawn_for(audit, region, population.items)
    assert {item.item_id for item in drawn} == sure | unsure
    meaning = meaning_of(population.policy, labels, LabelWords())
    # What perhaps passes is an error, whatever its label.
    assert certify_side(audit, region, drawn, meaning, Claim(), 0.025).errors == len(unsure)


def test_what_a_positive_check_cannot_pass_is_in_no_region_of_it(tmp_path: Path) -> None:
    """It is over the threshold and has a frame without a score: fine ones would hide the bad ones that pass."""
    text = CHECKS.replace("pass: 0.8}", "pass: 0.8, null: ignore}").replace(
        "bad, rate: 1.0, to: 0.6", "fine, rate: 1.0, from: 0.1"
    )
    frames: dict[str, list[tuple[float, float, float | None]]] = {
        "passes": [(0.1, 0.1, 0.9)] * 2,
        "would pass": [(0.1, 0.1, 0.5)] * 2,
        "lacks a vote": [(0.1, 0.1, 0.9), (0.1, 0.1, None)],
    }
    items = [Made(name=name, votes=votes, kind=Kind.VIDEO) for name, votes in frames.items()]
    population = read_population(
        [write_run(tmp_path, LABELS, items, text, shard_items=20)], resolve_labels([]), check_labels=False
    )
    region = regions_of(population.policy)[1]
    drawn = drawn_for(audit_of(population.policy), region, population.items)
    assert {item.item_id for item in drawn} == {"passes", "would pass"}


def test_the_block_side_holds_nothing_that_a_list_has_decided(tmp_path: Path) -> None:
    assert drawn(tmp_path, "review")["block"] == {"blocked"}


@pytest.mark.parametrize("by", [{}, {"by": {"region": {"eu": {"block": 0.5}}}}])
def test_what_a_raised_threshold_no_longer_blocks_is_reviewed(by: dict[str, Any]) -> None:
    """It lay in no region of the pass side, which is certified by another check."""
    bad = {"side": "negative", "votes": ["a.bad"], "block": 0.6, **by}
    odd = {"side": "negative", "votes": ["a.bad"], "review": 1.0}
    audit = {
        "salt": "s",
        "block": {"check": "bad", "from": 0.0, "rate": 1},
        "pass": {"check": "odd", "to": 1.0, "rate": 1},
    }
    policy = Policy.model_validate({"default": "pass", "checks": {"bad": bad, "odd": odd}, "audit": audit})
    block, passing = regions_of(policy)
    certified = Certified(threshold=0.8, labels=9, errors=0, bound=0.01, level=0.01, method="binomial", more=None)
    regions = [(block, 0.8), (passing, 1.0)]
    regions += [(replace(block, attribute="region", value="eu"), 0.8)] if by else []
    sides = [
        SideOutcome(
            region=region, allowed=0.01, risk=0.01, drawn=9, unlabelled=0, unsettled=0, errors=0, result=certified,
            threshold=threshold, decided=1.0,
        )
        for region, threshold in regions
    ]  # fmt: skip
    raised, withdrawn = apply_certified(policy, sides, [])
    assert withdrawn == ()
    bound = bind(raised, ("a.bad",))

    def verdict(score: float, where: str) -> Verdict:
        scores = np.array([[score]], np.float32)
        votes = ItemVotes(labels=("a.bad",), frames=(0,), times_s=(None,), scores=scores)
        return judge_item(votes, None, bound, None, ItemFacts(item_id="i", attributes={"region": where})).verdict

    assert verdict(0.7, "us") is Verdict.REVIEW
    assert verdict(0.85, "us") is Verdict.BLOCK
    assert verdict(0.55, "us") is Verdict.PASS
    assert not by or verdict(0.55, "eu") is Verdict.REVIEW


@pytest.mark.parametrize(("null", "uncovered"), [("review", ()), ("ignore", ("pass:default",))])
def test_a_pass_certificate_covers_no_item_that_its_check_has_not_scored(null: str, uncovered: tuple[str, ...]) -> None:
    check = {"side": "negative", "votes": ["a.bad"], "review": 0.6, "null": null}
    policy = Policy.model_validate({"default": "pass", "checks": {"bad": check}})
    assert not_covered(policy, {"pass:bad"}) == uncovered
