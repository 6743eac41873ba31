"""What a policy file may say: the YAML form, checked at the boundary; `docs/policy.md` is its reference.

A policy is normalised when it is read (checks and votes sorted by name, shorthands spelt out), so that two files which
mean the same have the same hash, the same columns and the same verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from moderation.config.canonical import canonical_json
from moderation.config.hints import did_you_mean
from moderation.config.load import read_yaml, validate
from moderation.errors import UsageError
from moderation.policy.audit import Audit
from moderation.policy.check import Check, Pool
from moderation.policy.entries import ListRule, entries_digest
from moderation.policy.review_rank import ReviewOrder
from moderation.policy.section import PolicySection, Unseen
from moderation.policy.vouching import Vouch
from moderation.types import Kind

# `exclude` of `model_dump`: a million entries have no place in a record.
WITHOUT_ENTRIES: Final = {"lists": {"__all__": {"entries"}}}
SEVERITIES: Final = ("low", "medium", "high", "critical")


# Keys that later versions added, with their defaults: a policy without them keeps its hash.
_LATER: Final[Mapping[str, object]] = {
    "language": "en",
    "severities": list(SEVERITIES),
    "severe_from": None,
    "lists": {},
    "vouch": {},
    "audit": None,
    "require_certificate": False,
    "review_order": None,
}
_LATER_OF_CHECK: Final[Mapping[str, object]] = {"severity": None, "label": None, "by": {}}


class Policy(PolicySection):
    """The rules and thresholds that turn an item's votes into a verdict."""

    version: Literal[1] = Field(default=1, description="of this file's form")
    default: Literal["review", "pass"] = Field(default="review", description="where no check decides")
    unseen: Unseen = Unseen()
    language: Literal["en", "zh"] = Field(default="en", description="of `reason_text`")
    severities: tuple[str, ...] = Field(default=SEVERITIES, min_length=1, description="levels, the mildest first")
    severe_from: str | None = Field(
        default=None, description="from this level on a check blocks on any frame, and no allow list passes over it; "
        "none: the last level"
    )  # fmt: skip
    taxonomy: str | None = Field(default=None, description="table of label paths, beside this file; none: packaged")
    checks: Mapping[str, Check] = Field(min_length=1)
    lists: Mapping[str, ListRule] = Field(default={}, description="allow- and deny-lists")
    vouch: Mapping[str, Vouch] = Field(default={}, description="positive rules of more than one check")
    audit: Audit | None = None
    review_order: ReviewOrder | None = Field(default=None, description="weights of `review_rank`; none: the defaults")
    require_certificate: bool = Field(
        default=False, description="what no valid certificate covers goes to review; see docs/certificates.md"
    )

    @field_validator("checks", "lists", "vouch", mode="after")
    @classmethod
    def _names_sorted(cls, value: Mapping[str, object]) -> Mapping[str, object]:
        wrong = [name for name in value if not (name.isidentifier() and name.isascii())]
        if wrong:
            # A name becomes a column and a part of `reason`.
            raise ValueError(f"name {wrong[0]!r}: use ASCII letters, digits and _")
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _something_can_stop(self) -> Policy:
        if self.default == "pass" and not any(c.side == "negative" for c in self.checks.values()):
            raise ValueError("`default: pass` without a negative check would pass everything")
        return self

    @model_validator(mode="after")
    def _stops_hide_nothing(self) -> Policy:
        for name, check in self.checks.items():
            if check.stop and self.stops_at(name) is None:
                # Otherwise a higher score could turn a block into a review.
                raise ValueError(
                    f"check {name!r}: `stop: true` needs a `block`, because a check of a higher order can block"
                )
        return self

    @model_validator(mode="after")
    def _severities_are_levels(self) -> Policy:
        if len(set(self.severities)) < len(self.severities):
            raise ValueError("severities: the same level twice")
        given = {"severe_from": self.severe_from}
        given |= {f"check {name!r}": check.severity for name, check in self.checks.items()}
        given |= {f"list {name!r}": rule.severity for name, rule in self.lists.items()}
        for where, level in given.items():
            if level is not None and level not in self.severities:
                hint = did_you_mean(level, self.severities)
                raise ValueError(f"{where}: no severity {level!r}{hint}")
        return self

    @model_validator(mode="after")
    def _severe_checks_block_on_any_frame(self) -> Policy:
        for name, check in self.checks.items():
            if self.is_severe(check) and check.side != "negative":
                raise ValueError(f"check {name!r}: a severity is for negative checks")
            if self.is_severe(check) and any(check.pooling(kind).method != "any" for kind in Kind):
                raise ValueError(
                    f"check {name!r}: of severity {check.severity!r}, it decides by any frame; `pool: any`, or none"
                )
        return self

    @model_validator(mode="after")
    def _vouching_names_checks(self) -> Policy:
        for name, rule in self.vouch.items():
            for key, allowed in (("at_least", "positive"), ("below", "negative")):
                for check in getattr(rule, key):
                    side = self._side_of(check, f"vouch {name!r}, {key}")
                    if side not in (allowed, "attribute"):
                        # Otherwise a higher negative score could make a verdict milder, or a positive one harsher.
                        raise ValueError(f"vouch {name!r}: {check!r} is {side}; `{key}` takes {allowed} and attributes")
        return self

    @model_validator(mode="after")
    def _audit_names_checks(self) -> Policy:
        for name, side in self.audit.sides() if self.audit else ():
            where = f"audit, {name}"
            wanted = "negative" if name == "block" or side.to is not None else "positive"
            found = self._side_of(side.check, where)
            # A positive check that is not certified yet is an attribute, and is drawn all the same.
            if found != wanted and (found, wanted) != ("attribute", "positive"):
                raise ValueError(f"{where}: {side.check!r} is {found}, this side is of a {wanted} check")
            self.checks[side.check].check_audited(side, where)
        return self

    def _side_of(self, check: str, where: str) -> str:
        if check not in self.checks:
            raise ValueError(f"{where}: no check {check!r}{did_you_mean(check, self.checks)}")
        return self.checks[check].side

    @property
    def severe_levels(self) -> tuple[str, ...]:
        """The levels that no allow list passes over."""
        first = self.severities.index(self.severe_from) if self.severe_from is not None else -1
        return self.severities[first:]

    def is_severe(self, check: Check) -> bool:
        """Whether a check blocks on any frame, and no allow list passes over it."""
        return check.severity in self.severe_levels

    @property
    def dated(self) -> bool:
        """Whether rows depend on the day of the run: entries of a list end, or the order of review uses ages."""
        ages = self.review_order is not None and self.review_order.age is not None
        return ages or any(rule.dated for rule in self.lists.values())

    @property
    def goes_by_item(self) -> bool:
        """Whether rows of the same content may differ: by attributes of the items, or by the day of the run."""
        return (
            self.dated
            or any(check.by for check in self.checks.values())
            or any(rule.matched_attribute is not None for rule in self.lists.values())
            or any(rule.declared is not None for rule in self.vouch.values())
            or self.audit is not None
            or (self.review_order is not None and (self.review_order.reach or self.review_order.age) is not None)
        )

    @property
    def attributes_read(self) -> tuple[str, ...]:
        """The attributes of items that may change a verdict or its order, sorted."""
        named = [attribute for check in self.checks.values() for attribute in check.by]
        named += [rule.matched_attribute for rule in self.lists.values() if rule.matched_attribute is not None]
        named += [rule.declared.attribute for rule in self.vouch.values() if rule.declared is not None]
        named += [self.audit.group] if self.audit is not None else []
        order = self.review_order
        named += [term.attribute for term in (order.reach, order.age) if term is not None] if order is not None else []
        return tuple(sorted(set(named)))

    def vouched_for(self) -> frozenset[str]:
        """The checks that positive rules of more than one check name."""
        return frozenset(name for rule in self.vouch.values() for name in (*rule.at_least, *rule.below))

    def votes(self) -> tuple[str, ...]:
        """Every vote that the policy names, sorted."""
        of_checks = {label for check in self.checks.values() for label in check.votes}
        return tuple(sorted(of_checks.union(*(rule.declared_votes() for rule in self.vouch.values()))))

    def stops_at(self, name: str) -> float | None:
        """The score from which a check with `stop` ends the cascade; None where it cannot.

        Its `review` where no later check can block, else its `block`: a check that is not asked must not be harsher.
        """
        check = self.checks[name]
        if not check.stop:
            return None
        if check.review is not None and all(later.block is None for later in self.checks_after(check)):
            return check.review
        return check.block

    def checks_after(self, check: Check) -> list[Check]:
        """The checks of a higher `order`; none where it has no order."""
        if check.order is None:
            return []
        return [other for other in self.checks.values() if other.order is not None and other.order > check.order]


def load_policy(path: Path) -> Policy:
    """A policy from a YAML file, its lists not read (see `moderation.lists`).

    Raises UsageError naming each wrong key and the nearest right one.
    """
    tree = read_yaml(path)
    checks = tree.get("checks")
    if isinstance(checks, dict):
        tree["checks"] = {str(name): _null_key_spelt(check) for name, check in checks.items()}
    return validate(Policy, tree, where=str(path))


def policy_hash(policy: Policy) -> str:
    """sha256 (hex) of what a policy says, with its lists' entries, without what only people read.

    Raises UsageError for a list that was not read.
    """
    tree = policy.model_dump(mode="json", by_alias=True, exclude=WITHOUT_ENTRIES)
    del tree["taxonomy"]
    _drop_unsaid(tree, _LATER)
    for name, check in policy.checks.items():
        _spell_check(tree["checks"][name], check)
    for name, rule in policy.lists.items():
        if rule.entries is None:
            raise UsageError(f"list {name!r} was not read")
        tree["lists"][name]["entries"] = entries_digest(rule.entries)
        del tree["lists"][name]["from"]  # its entries count, not its location
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()


def check_names(policy: Policy) -> tuple[str, ...]:
    """Names of the checks, sorted: the score columns of the verdicts table."""
    return tuple(policy.checks)


def _null_key_spelt(check: object) -> object:
    # YAML reads the key of `null: review` as None; the word is meant.
    if not isinstance(check, dict):
        return check
    return {"null" if key is None else key: value for key, value in check.items()}


def _spell_check(tree: dict[str, Any], check: Check) -> None:
    tree["pool"] = {str(kind): _spelt_pool(check.pooling(kind)) for kind in Kind}
    del tree["definition"]
    del tree["optional"]  # no verdict is another one by it: without it a stack that lacks the vote is refused
    # A policy from before this key had the behaviour of `ignore`.
    if check.isolated == "ignore" or not check.may_be_isolated():
        del tree["isolated"]
    _drop_unsaid(tree, _LATER_OF_CHECK)


def _drop_unsaid(tree: dict[str, Any], unsaid: Mapping[str, object]) -> None:
    for key, value in unsaid.items():
        if tree[key] == value:
            del tree[key]


def _spelt_pool(pool: Pool) -> dict[str, object]:
    return {**pool.model_dump(mode="json"), "gap": pool.gap or 0}
