"""`moderation certify`: from an audit's labels to thresholds in a policy file, and certificates beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from moderation.errors import UsageError
from moderation.evaluation.audit import AuditRegion, audit_of, drawn_for, regions_of
from moderation.evaluation.calibrate import LEAST, Calibration, CalibrationKind, calibrate_scores
from moderation.evaluation.certify import AuditLabels, Certified, certify
from moderation.evaluation.evaluate import LabelWords, meaning_of
from moderation.evaluation.population import JudgedItem, Population, group_numbers, read_population, score_array
from moderation.evaluation.walks import STARTS, labels_without_error
from moderation.labels.label_files import hash_labels, read_labels
from moderation.labels.meaning import Meaning
from moderation.labels.resolve import Label, resolve_labels
from moderation.policy.certified import Certificate, CertificateSet, certified_hash, not_covered, withdraw
from moderation.policy.model import Policy, load_policy

RULE = "two answers that agree, or an expert; what has neither counts as an error"
RULE_ONE = "one answer is enough; what has none, or is in dispute, counts as an error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is to be certified. block_errors: allowed share of wrong blocks. leak: allowed share of bad items among the
    passed. risk: shared by both sides. days: how long certificates hold. answers: how many an item needs, 2 or 1."""

    block_errors: float = 0.01
    leak: float = 0.005
    risk: float = 0.05
    days: int = 90
    answers: int = 2

    @property
    def rule(self) -> str:
        """How items have to be labelled, in the words of a certificate."""
        return RULE if self.answers > 1 else RULE_ONE

    def is_settled(self, label: Label) -> bool:
        """Whether an item has the answers that it needs."""
        return label.settled if self.answers > 1 else label.words is not None

    def allowed(self, region: AuditRegion) -> float:
        """The allowed rate of errors of a side."""
        return self.block_errors if region.side == "block" else self.leak


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOutcome:
    """The outcome of one side. drawn: groups; unlabelled: those without a label; unsettled: those not agreed on.

    threshold: as in the policy file; None: not certified. decided: the share of the region's drawn groups that it
    decides.
    """

    region: AuditRegion
    allowed: float
    drawn: int
    unlabelled: int
    unsettled: int
    errors: int
    result: Certified
    threshold: float | None
    decided: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The outcome of a certification; nothing is written yet. policy: with the certified thresholds, and without the
    actions that are not certified. withdrawn: these actions."""

    sides: tuple[SideOutcome, ...]
    policy: Policy
    certificates: CertificateSet
    withdrawn: tuple[str, ...]
    policy_path: str
    notes: tuple[str, ...] = ()
    calibrations: tuple[Calibration, ...] = ()


def issue(
    outs: Sequence[str],
    labels_uri: str,
    today: date,
    *,
    claim: Claim | None = None,
    words: LabelWords | None = None,
    policy: str | None = None,
    calibrate: CalibrationKind | None = None,
) -> Issued:
    """Certify both sides of a policy from the audit's labels of runs that it judged.

    Raises UsageError where the policy has no audit, tables do not say what was drawn, or labels cannot be read.
    """
    claim = claim or Claim()
    labels = resolve_labels(read_labels(labels_uri))
    population = read_population(outs, labels, policy)
    audit, regions = audit_of(population.policy), regions_of(population.policy)
    if not population.says_audit:
        raise UsageError(f"{outs[0]}: its tables do not say which items were drawn: run it again with this version")
    meaning = meaning_of(population.policy, labels, words or LabelWords())
    drawn = {region: drawn_for(audit, region, population.items) for region in regions}
    sides = tuple(_certify_side(region, items, meaning, claim) for region, items in drawn.items())
    # As in the file: without the entries of lists that it names by `from`.
    certified, withdrawn = _apply(load_policy(Path(population.policy_path)), sides)
    calibrations, remarks = _calibrate_checks(population, regions, meaning, calibrate)
    return Issued(
        sides=sides,
        policy=certified,
        certificates=CertificateSet(
            policy=certified_hash(certified),
            stack_fingerprint=population.stack_fingerprint,
            salt_sha256=hashlib.sha256(audit.salt.encode()).hexdigest(),
            rates={region.action: region.rate for region in regions},
            issued=today,
            expires=today + timedelta(days=claim.days),
            labels_sha256=hash_labels(labels_uri),
            rule=claim.rule,
            agreement=_agreement(drawn.values()),
            certificates=_certificates(sides),
        ),
        withdrawn=withdrawn,
        policy_path=population.policy_path,
        notes=(*_notes(population, sides, claim), *remarks),
        calibrations=calibrations,
    )


def _calibrate_checks(
    population: Population, regions: Sequence[AuditRegion], meaning: Meaning, kind: CalibrationKind | None
) -> tuple[tuple[Calibration, ...], tuple[str, ...]]:
    """(calibrations of the certified checks, by labels that do not certify; why others are missing)."""
    if kind is None:
        return (), ()
    items = [item for item in population.labelled if not item.audit]
    groups, _ = group_numbers(items)
    checks = dict.fromkeys(region.check for region in regions)
    made = []
    for check in checks:
        truth = np.array([meaning.confirms(_words(item), check) for item in items], np.bool_)
        made.append(calibrate_scores(check, kind, score_array(items, check), truth, groups))
    calibrations = tuple(calibration for calibration in made if calibration is not None)
    remark = f"not every check is calibrated: that takes {LEAST} labels of no audit, right and wrong ones"
    return calibrations, () if len(calibrations) == len(checks) else (remark,)


def _words(item: JudgedItem) -> frozenset[str]:
    assert item.label is not None
    return item.label.words or frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """What a side needs before anyone labels. drawn: groups of its region so far. needed: labels without an error."""

    region: AuditRegion
    allowed: float
    drawn: int
    needed: int


def plan_labels(outs: Sequence[str], claim: Claim, policy: str | None = None) -> tuple[LabelPlan, ...]:
    """How many labels each side of a policy's audit needs, and how many groups were drawn. Raises UsageError."""
    population = read_population(outs, resolve_labels([]), policy, check_labels=False)
    audit = audit_of(population.policy)
    level = claim.risk / 2 / STARTS
    return tuple(
        LabelPlan(
            region=region,
            allowed=claim.allowed(region),
            drawn=len(drawn_for(audit, region, population.items)),
            needed=labels_without_error(claim.allowed(region), level),
        )
        for region in regions_of(population.policy)
    )


def _certify_side(region: AuditRegion, drawn: Sequence[JudgedItem], meaning: Meaning, claim: Claim) -> SideOutcome:
    labels = [item.audit_label for item in drawn]
    errors = np.array([_is_error(region, label, meaning, claim) for label in labels], np.bool_)
    strictness = np.array([region.strictness(item.scores[region.check] or 0.0) for item in drawn], np.float64)
    # Each side has half of the risk, whether or not the other one has an audit.
    audit = AuditLabels(strictness=strictness, errors=errors)
    result = certify(audit, claim.allowed(region), claim.risk / 2)
    threshold = None if result.threshold is None else _policy_threshold(region, result.threshold)
    return SideOutcome(
        region=region,
        allowed=claim.allowed(region),
        drawn=len(drawn),
        unlabelled=labels.count(None),
        unsettled=sum(label is not None and not claim.is_settled(label) for label in labels),
        errors=int(errors.sum()),
        result=result,
        threshold=threshold,
        decided=0.0 if threshold is None else result.labels / len(drawn),
    )


def _is_error(region: AuditRegion, label: Label | None, meaning: Meaning, claim: Claim) -> bool:
    # An item without a settled label counts as an error: leaving it out would select the easy ones.
    if label is None or label.words is None or not claim.is_settled(label):
        return True
    return meaning.is_bad(label.words) is (region.side == "pass")


def _policy_threshold(region: AuditRegion, strictness: float) -> float:
    """A threshold for the policy file, such that its float32 decides exactly the certified items.

    A negative check reviews from its threshold on, so a certified pass ends just below: the next float32.
    """
    score = np.float32(-strictness if region.falls else strictness)
    exact = np.nextafter(score, np.float32(2)) if region.falls else score
    return float(str(exact))  # the shortest decimal that is this float32


def _certificates(sides: Sequence[SideOutcome]) -> tuple[Certificate, ...]:
    return tuple(
        Certificate(
            side=side.region.side,
            check=side.region.check,
            threshold=side.threshold,
            allowed=side.allowed,
            risk=side.result.level * STARTS,
            labels=side.result.labels,
            errors=side.result.errors,
            bound=side.result.bound,
            method=side.result.method,
        )
        for side in sides
        if side.threshold is not None
    )


def _apply(policy: Policy, sides: Sequence[SideOutcome]) -> tuple[Policy, tuple[str, ...]]:
    """(the policy with the certified thresholds and without uncertified actions, these actions)."""
    certified = [side for side in sides if side.threshold is not None]
    tree: dict[str, Any] = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for side in certified:
        _set_threshold(tree["checks"][side.region.check], side)
    with_thresholds = Policy.model_validate(tree)
    withdrawn = not_covered(with_thresholds, {side.region.action for side in certified})
    return withdraw(with_thresholds, withdrawn), withdrawn


def _set_threshold(check: dict[str, Any], side: SideOutcome) -> None:
    threshold = side.threshold
    assert threshold is not None
    if side.region.side == "block":
        check["block"] = threshold
        if check.get("review") is not None:
            check["review"] = min(check["review"], threshold)
    elif side.region.falls:
        check["review"] = threshold
        if check.get("block") is not None:
            # Items over `block` belong to the block side; they never pass.
            check["review"] = min(threshold, check["block"])
    else:
        check["pass"] = threshold
        check["side"] = "positive"  # perhaps an attribute so far, because it was not certified


def _agreement(drawn: Iterable[Sequence[JudgedItem]]) -> float | None:
    labels = {item.item_id: item.audit_label for items in drawn for item in items}
    twice = [label for label in labels.values() if label is not None and label.answers > 1]
    return sum(label.agreed for label in twice) / len(twice) if twice else None


def _notes(population: Population, sides: Sequence[SideOutcome], claim: Claim) -> tuple[str, ...]:
    notes = []
    stray = sum(item.audit_label is not None and not item.audit for item in population.items)
    if stray:
        notes.append(f"{stray:,} labels say `audit` of items that were not drawn: they certify nothing")
    unlabelled, unsettled = sum(s.unlabelled for s in sides), sum(s.unsettled for s in sides)
    if unlabelled:
        notes.append(f"{unlabelled:,} drawn items have no label, and count as errors: label them first")
    if unsettled:
        what = "two answers that agree, or an expert" if claim.answers > 1 else "an answer that is not in dispute"
        notes.append(f"{unsettled:,} labels lack {what}, and count as errors")
    return tuple(notes)
