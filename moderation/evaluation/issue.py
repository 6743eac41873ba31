"""`moderation certify`: from an audit's labels to thresholds in a policy file, and certificates beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from moderation import storage
from moderation.errors import UsageError
from moderation.evaluation.audit import AuditRegion, audit_of, drawn_for, regions_of, split_region
from moderation.evaluation.calibrate import LEAST, Calibration, CalibrationKind, calibrate_scores
from moderation.evaluation.certified_policy import apply_certified
from moderation.evaluation.certified_side import Blocks, SideOutcome, all_or_none, block_thresholds, certify_side
from moderation.evaluation.certify import needed_without_error
from moderation.evaluation.claim import Claim
from moderation.evaluation.evaluate import LabelWords, meaning_of
from moderation.evaluation.population import JudgedItem, Population, group_numbers, read_population, score_array
from moderation.evaluation.walks import STARTS, labels_without_error
from moderation.evaluation.wealth import MAX_GROUP
from moderation.labels.label_files import hash_labels, read_labels
from moderation.labels.meaning import Meaning
from moderation.labels.resolve import resolve_labels
from moderation.policy.audit import Audit
from moderation.policy.certified import Certificate, CertificateSet, certified_hash
from moderation.policy.model import Policy, load_policy
from moderation.results.layout import DECIDED_FOLDER


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
    audit = audit_of(population.policy)
    regions, pooled = _cut_regions(population, claim)
    if not population.says_audit:
        raise UsageError(f"{outs[0]}: its tables do not say which items were drawn: run it again with this version")
    meaning = meaning_of(population.policy, labels, words or LabelWords())
    most = MAX_GROUP if claim.whole_groups else 1
    drawn = {region: drawn_for(audit, region, population.items, most) for region in regions}
    file = _read_file(population)
    sides = _certify_sides(audit, drawn, meaning, claim, block_thresholds(file))
    certified, withdrawn = apply_certified(file, sides, [one for one, _ in pooled])
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
        notes=(*_notes(population, sides, claim), *_pooled_notes(pooled, claim, regions), *remarks),
        calibrations=calibrations,
    )


def _read_file(population: Population) -> Policy:
    """The policy as in its file: without the entries of lists that it names by `from`.

    Raises UsageError where the file says something else by now: nobody has labelled what that decides.
    """
    policy = load_policy(Path(population.policy_path))
    if certified_hash(policy) != certified_hash(population.written):
        kept = storage.join(population.outs[0], DECIDED_FOLDER)
        raise UsageError(
            f"{population.policy_path}: has changed since {population.outs[0]} was judged, so its labels say nothing of"
            f" it; name the file that the run had by --policy, {kept} keeps a copy"
        )
    return policy


def _certify_sides(
    audit: Audit, drawn: Mapping[AuditRegion, Sequence[JudgedItem]], meaning: Meaning, claim: Claim, blocks: Blocks
) -> tuple[SideOutcome, ...]:
    """Those that block first: what they block does not pass. blocks: of the policy."""
    regions, sides = tuple(drawn), tuple[SideOutcome, ...]()
    for which in ("block", "pass"):
        own = [
            certify_side(audit, region, items, meaning, claim, claim.risk_of(region, regions), blocks)
            for region, items in drawn.items()
            if region.side == which
        ]
        sides += all_or_none(own)
        blocks = _with_certified(blocks, sides)
    return sides


def _with_certified(blocks: Blocks, sides: Iterable[SideOutcome]) -> Blocks:
    merged = dict(blocks)
    for side in sides:
        key = (side.region.check, side.region.attribute, side.region.value)
        if side.region.side == "block" and side.threshold is not None:
            # A value's own `block` reviews from the old threshold on where the certified one is higher.
            old = merged.get(key, 1.0) if side.region.attribute is not None else 1.0
            merged[key] = min(old, side.threshold)
    return merged


Pooled = Sequence[tuple[AuditRegion, int]]


def _cut_regions(population: Population, claim: Claim) -> tuple[tuple[AuditRegion, ...], Pooled]:
    """(the regions to certify, thresholds by attribute of which too few groups are drawn, with their number)."""
    policy, whole = population.policy, regions_of(population.policy)
    regions: list[AuditRegion] = []
    pooled: list[tuple[AuditRegion, int]] = []
    # As many certificates a side as there could be: the number decides how many labels each needs.
    possible = [one for region in whole for one in split_region(policy, region, (), 0).regions]
    for region in whole:
        least = labels_without_error(claim.allowed(region), claim.risk_of(region, possible) / STARTS)
        strata = split_region(policy, region, population.items, least)
        regions += strata.regions
        pooled += strata.pooled
    return tuple(regions), pooled


def _pooled_notes(pooled: Pooled, claim: Claim, regions: Sequence[AuditRegion]) -> list[str]:
    return [
        f"{region.name}: {count:,} groups are drawn, too few for a threshold of its own (at least"
        f" {labels_without_error(claim.allowed(region), claim.risk_of(region, regions) / STARTS):,}): the check's own"
        " threshold decides them, and is certified over them, too"
        for region, count in pooled
    ]


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
    remark = f"not every check is calibrated: that takes {LEAST} labels of no audit, right and wrong ones, of 5 groups"
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
    regions, _ = _cut_regions(population, claim)
    return tuple(
        LabelPlan(
            region=region,
            allowed=claim.allowed(region),
            drawn=len(drawn_for(audit, region, population.items)),
            needed=needed_without_error(
                claim.allowed(region), claim.risk_of(region, regions) / STARTS, grouped=claim.whole_groups
            ),
        )
        for region in regions
    )


def _certificates(sides: Sequence[SideOutcome]) -> tuple[Certificate, ...]:
    return tuple(
        Certificate(
            side=side.region.side,
            check=side.region.check,
            threshold=side.threshold,
            allowed=side.allowed,
            risk=side.risk,
            labels=side.result.labels,
            errors=side.result.errors,
            bound=side.result.bound,
            method=side.result.method,
            attribute=side.region.attribute,
            value=side.region.value,
        )
        for side in sides
        if side.threshold is not None
    )


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
