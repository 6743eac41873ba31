"""Certificates of a policy: what they say, when they hold, and a policy without what none of them covers. Pure.

An action is what the machine does by itself: `block:explicit` (a check blocks), `pass:sfw` (a positive check passes),
`pass:vouch:plain_person`, `pass:default`. A pass certificate of a negative check covers every pass, because nothing
passes over that check's threshold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from moderation.config.load import validate
from moderation.policy.model import Policy, policy_hash

CertifiedSide = Literal["block", "pass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The statement that a threshold keeps a rate.

    Of the items that `side` decides by `check` at `threshold`, a share of at most `allowed` is wrong; the statement
    fails with a probability of at most `risk`. labels, errors: groups in the zone, and the wrong ones among them.
    bound: exact upper bound. attribute, value: of a threshold by attribute; without them, the check's own, of items
    that none of these is for. An action holds while all of its certificates do.
    """

    side: CertifiedSide
    check: str
    threshold: float
    allowed: float
    risk: float
    labels: int
    errors: int
    bound: float
    method: str
    attribute: str | None = None
    value: str | None = None

    @property
    def action(self) -> str:
        """What it covers: `block:explicit`."""
        return f"{self.side}:{self.check}"

    @property
    def name(self) -> str:
        """Its name among those of its action: `block:explicit`, `block:explicit (region = strict)`."""
        return region_name(self.action, self.attribute, self.value)


def region_name(action: str, attribute: str | None, value: str | None) -> str:
    """An action by one threshold of several."""
    return action if attribute is None else f"{action} ({attribute} = {value})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSet:
    """The certificates of one policy and one stack, from one audit; they lie in a file beside the policy.

    policy: its `certified_hash`. salt_sha256: of the audit's salt. rates: side -> share of the groups that was drawn.
    issued, expires: days. labels_sha256: of the file of labels. rule: how items were labelled. agreement: among the
    items with two answers or more, the share on which all agreed; None where there are none.
    ended: action -> why its certificate no longer holds.
    """

    policy: str
    stack_fingerprint: str
    salt_sha256: str
    rates: Mapping[str, float]
    issued: date
    expires: date
    labels_sha256: str
    rule: str
    agreement: float | None
    certificates: tuple[Certificate, ...]
    ended: Mapping[str, str] = field(default_factory=dict)


def certified_hash(policy: Policy) -> str:
    """The hash that a certificate names. It leaves out `require_certificate`, the order of review, and list entries,
    which are decisions of people and change every day: changing these ends no certificate."""
    lists = {name: rule.model_copy(update={"entries": ()}) for name, rule in policy.lists.items()}
    return policy_hash(policy.model_copy(update={"require_certificate": False, "review_order": None, "lists": lists}))


def automatic_actions(policy: Policy) -> tuple[str, ...]:
    """What a policy lets the machine do by itself, sorted."""
    return tuple(sorted(_actions(policy)))


def _actions(policy: Policy) -> Iterator[str]:
    for name, check in policy.checks.items():
        if check.block is not None:
            yield f"block:{name}"
        if check.pass_ is not None:
            yield f"pass:{name}"
    yield from (f"pass:vouch:{name}" for name in policy.vouch)
    if policy.default == "pass":
        yield "pass:default"


def find_uncertified(
    policy: Policy,
    certificates: CertificateSet | None,
    stack_fingerprint: str,
    today: date,
    ended: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The actions that no certificate covers today, and why.

    ended: certificates that a monitor has ended, besides those that the file says: action -> why.
    """
    actions = automatic_actions(policy)
    if certificates is None:
        return dict.fromkeys(actions, "there is no certificate")
    broken = _broken(policy, certificates, stack_fingerprint, today)
    if broken is not None:
        return dict.fromkeys(actions, broken)
    over = {**certificates.ended, **(ended or {})}
    over |= {c.action: over[c.name] for c in certificates.certificates if c.name in over}
    held = {c.action for c in certificates.certificates if c.action not in over}
    return {action: _why_ended(action, over) for action in not_covered(policy, held)}


def not_covered(policy: Policy, held: Collection[str]) -> tuple[str, ...]:
    """What a policy does by itself that none of these certificates covers. held: their actions."""
    # Nothing passes over a negative check's threshold, whichever rule lets it pass, or without its score.
    all_passes = any(
        f"pass:{name}" in held
        for name, check in policy.checks.items()
        if check.side == "negative" and check.null_is_review
    )
    return tuple(
        action
        for action in automatic_actions(policy)
        if action not in held and not (all_passes and action.startswith("pass:"))
    )


def _broken(policy: Policy, certificates: CertificateSet, stack_fingerprint: str, today: date) -> str | None:
    """Why none of the certificates holds; None where they may hold."""
    if certificates.policy != certified_hash(policy):
        return "the policy has changed since it was certified"
    if certificates.stack_fingerprint != stack_fingerprint:
        return "the stack has changed since it was certified"
    if today > certificates.expires:
        return f"the certificates expired on {certificates.expires}"
    unknown = next((c.check for c in certificates.certificates if c.check not in policy.checks), None)
    return None if unknown is None else f"a certificate is of a check {unknown!r} that the policy does not have"


def _why_ended(action: str, ended: Mapping[str, str]) -> str:
    if action in ended:
        return ended[action]
    passes = [reason for name, reason in ended.items() if name.startswith("pass:")]
    return passes[0] if action.startswith("pass:") and passes else "it was not certified"


def withdraw(policy: Policy, actions: Collection[str]) -> Policy:
    """The policy without these actions: what they decided goes to review.

    A check that blocked reviews from its lowest threshold on; a positive check becomes an attribute whose
    nulls still mean what they meant; the default becomes review.
    """
    if not actions:
        return policy
    tree: dict[str, Any] = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if "pass:default" in actions:
        tree["default"] = "review"
    # With `default: pass` only the nulls of a positive check decide, and they must still send items to review.
    reviews = tree.get("default", "review") == "review"
    for name, check in policy.checks.items():
        if f"block:{name}" in actions:
            _stop_blocking(tree["checks"][name], check.review, check.block)
        if f"pass:{name}" in actions and reviews:
            _stop_passing(tree["checks"][name], pooled=check.pool is not None)
    for name in list(tree.get("vouch", ())):
        if f"pass:vouch:{name}" in actions:
            del tree["vouch"][name]
    return validate(Policy, tree, where="the policy without what is not certified")


def _stop_blocking(check: dict[str, Any], review: float | None, block: float | None) -> None:
    del check["block"]
    check["review"] = block if review is None else review
    # `stop` and `isolated` need a `block`; without one any frame is reviewed from `review` on.
    for key in ("stop", "isolated"):
        check.pop(key, None)
    for values in check.get("by", {}).values():
        for value, other in list(values.items()):
            _stop_blocking_by(values, value, other)


def _stop_blocking_by(values: dict[str, Any], value: str, other: dict[str, Any]) -> None:
    block = other.pop("block", None)
    if block is not None:
        other.setdefault("review", block)
    if not other:
        del values[value]


def _stop_passing(check: dict[str, Any], *, pooled: bool) -> None:
    check["side"] = "attribute"
    for key in ("pass", "by", "order"):
        check.pop(key, None)
    # What its nulls sent to review is not to pass by another check.
    if check.pop("null", "review") == "review":
        check["null"] = "review"
    if not pooled:
        check["pool"] = "all"  # the default of a positive check, so that its scores stay the same
