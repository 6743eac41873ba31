"""What is to be certified, and how its certificates share the risk. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moderation.evaluation.audit import AuditRegion
from moderation.labels.resolve import Label

RULE = "two answers that agree, or an expert; what has neither counts as an error"
RULE_ONE = "one answer is enough; what has none, or is in dispute, counts as an error"


def is_settled_by(rule: str, label: Label) -> bool:
    """Whether an item has the answers that the rule of a certificate asks for."""
    return label.words is not None and (label.settled or rule.startswith(RULE_ONE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is to be certified. block_errors: allowed share of wrong blocks. leak: allowed share of bad items among the
    passed. risk: shared by both sides, and by the certificates of a side. days: how long certificates hold. answers:
    how many an item needs, 2 or 1. whole_groups: all items of a group count, and not only one of each.
    """

    block_errors: float = 0.01
    leak: float = 0.005
    risk: float = 0.05
    days: int = 90
    answers: int = 2
    whole_groups: bool = False

    @property
    def rule(self) -> str:
        """How items have to be labelled, in the words of a certificate."""
        rule = RULE if self.answers > 1 else RULE_ONE
        return f"{rule}; groups were labelled whole" if self.whole_groups else rule

    def is_settled(self, label: Label) -> bool:
        """Whether an item has the answers that it needs."""
        return is_settled_by(self.rule, label)

    def allowed(self, region: AuditRegion) -> float:
        """The allowed rate of errors of a side."""
        return self.block_errors if region.side == "block" else self.leak

    def risk_of(self, region: AuditRegion, regions: Sequence[AuditRegion]) -> float:
        """The risk of one certificate: half of all is of each side, whether or not the other one has an audit, and the
        certificates of a side share its half, so that all hold together (union bound)."""
        return self.risk / 2 / sum(other.side == region.side for other in regions)
