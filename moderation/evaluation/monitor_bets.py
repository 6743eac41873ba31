"""The bets of a certificate's monitor: its drawn rows and their labels to wealth, one bet a group. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moderation.evaluation.audit import item_order
from moderation.evaluation.certified_side import weigh_labels
from moderation.evaluation.claim import is_settled_by
from moderation.evaluation.wealth import MAX_GROUP, MonitorWealth, bet_on
from moderation.labels.meaning import Meaning
from moderation.labels.resolve import Label, LabelTable, find_label
from moderation.policy.certified import Certificate

# A row of what a night drew, and its label where that has the answers that it needs.
DrawnLabel = tuple[Mapping[str, Any], Label | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateMonitor:
    """One certificate's monitor. groups: hashes of the groups that it has bet on; each counts once.

    reads_unnamed: whether rows that name no certificate may be its own; monitors from before rows named one do not say.
    """

    wealth: MonitorWealth
    groups: tuple[str, ...] = ()
    reads_unnamed: bool = True


def settled_label(row: Mapping[str, Any], labels: LabelTable, rule: str) -> Label | None:
    """The label of a drawn row, where it has the answers that the rule of its certificate asks for."""
    label = find_label(labels.audit, row)
    return label if label is not None and is_settled_by(rule, label) else None


def bet_on_labels(
    before: CertificateMonitor, drawn: Iterable[DrawnLabel], certificate: Certificate, meaning: Meaning
) -> CertificateMonitor:
    """One bet per group, as the certificate counts it: on its first item with a settled label, or on the whole group.

    Raises UsageError where only some labels say with which probability they were drawn.
    """
    whole = certificate.method == "grouped betting"
    # What was bet on needs no weight any more: its labels may be from before labels had one.
    known = frozenset(before.groups)
    new = {group: own for group, own in _by_group(drawn).items() if _digest(group) not in known}
    chosen = {group: _labels_that_count(own, whole=whole) for group, own in new.items()}
    weights = weigh_labels(certificate.name, [label for own in chosen.values() for label in own])
    left = itertools.repeat(1.0) if weights is None else iter(weights.tolist())
    wealth, groups = before.wealth, dict.fromkeys(before.groups)
    for group, own in chosen.items():
        own_weights = list(itertools.islice(left, len(own)))
        if own:
            groups[_digest(group)] = None
            errors = [meaning.is_bad(label.words or frozenset()) is (certificate.side == "pass") for label in own]
            wealth = bet_on(wealth, errors, own_weights, certificate.allowed, whole=whole)
    return replace(before, wealth=wealth, groups=tuple(groups))


def _digest(group: str) -> str:
    return hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _by_group(drawn: Iterable[DrawnLabel]) -> dict[str, list[DrawnLabel]]:
    by_group: dict[str, list[DrawnLabel]] = {}
    for row, label in drawn:
        by_group.setdefault(row["group"], []).append((row, label))
    return by_group


def _labels_that_count(group: Sequence[DrawnLabel], *, whole: bool) -> list[Label]:
    """The first label; or, of a whole group, those of all items that count, once every one has its label."""
    if not whole:
        return [label for _, label in group if label is not None][:1]
    of_item = {str(row["item_id"]): label for row, label in group}
    labels = [of_item[item_id] for item_id in sorted(of_item, key=item_order)[:MAX_GROUP]]
    return [label for label in labels if label is not None] if None not in labels else []
