"""A policy in words, for people: its checks with their definitions, its lists, rules and audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moderation.policy.audit import Audit
from moderation.policy.check import Check, Pool
from moderation.policy.definitions import ClassDefinition, load_definition
from moderation.policy.entries import ListRule
from moderation.policy.model import WITHOUT_ENTRIES, Policy, policy_hash
from moderation.policy.taxonomy import load_taxonomy
from moderation.types import Kind


def policy_as_json(policy: Policy, path: Path) -> dict[str, Any]:
    """The policy as plain data, with its hash and the definitions of its checks; lists as numbers of entries."""
    tree = policy.model_dump(mode="json", by_alias=True, exclude=WITHOUT_ENTRIES)
    for name, rule in policy.lists.items():
        tree["lists"][name]["entries"] = len(rule.entries or ())
    names = sorted({check.definition for check in policy.checks.values() if check.definition is not None})
    definitions = {name: load_definition(name, beside=path.parent).model_dump(mode="json") for name in names}
    return {"hash": policy_hash(policy), "policy": tree, "definitions": definitions}


def describe_policy(policy: Policy, path: Path) -> Iterator[str]:
    """The lines of a page: what decides, in the order of the rules, then the definitions."""
    yield f"{path.name}, hash {policy_hash(policy)[:12]}"
    levels = " < ".join(policy.severities)
    yield f"severities: {levels}; no allow list passes over a check of {policy.severe_levels[0]} or above"
    yield from (f"list {name}: {_list_in_words(rule)}" for name, rule in policy.lists.items())
    sides = ("negative", "positive", "attribute")
    for name, check in sorted(policy.checks.items(), key=lambda named: sides.index(named[1].side)):
        yield from _check_in_words(name, check)
    for name, vouch in policy.vouch.items():
        yield f"vouch {name}: passes where {_flat(vouch.model_dump(mode='json', exclude_defaults=True))}"
    yield f"default: {policy.default}"
    if policy.audit is not None:
        yield from _audit_in_words(policy.audit)
    for definition in dict.fromkeys(check.definition for check in policy.checks.values()):
        if definition is not None:
            yield from ("", *_definition_in_words(definition, load_definition(definition, beside=path.parent)))


def _audit_in_words(audit: Audit) -> Iterator[str]:
    for name, side in audit.sides():
        end = f">= {side.from_}" if side.from_ is not None else f"<= {side.to}"
        yield f"audit, {name}: {side.rate:.2%} of the groups with {side.check} {end}, by `{audit.group}`"


def _check_in_words(name: str, check: Check) -> Iterator[str]:
    given = {"block": check.block, "review": check.review, "pass": check.pass_}
    thresholds = ", ".join(f"{verdict} from {value}" for verdict, value in given.items() if value is not None)
    details = [f"{check.side}", thresholds or "written, never decides"]
    label = check.label or "/".join(load_taxonomy().get(name, ()))
    for title, value in (("severity", check.severity), ("label", label), ("definition", check.definition)):
        if value:
            details.append(f"{title} {value}")
    yield f"check {name}: {'; '.join(details)}"
    yield f"    {check.fuse.method} of {', '.join(check.votes)}; frames: {_pools_in_words(check)}"
    for attribute, values in check.by.items():
        for value, other in values.items():
            instead = other.model_dump(by_alias=True, exclude_none=True)
            yield f"    where {attribute} is {value}: {_flat(instead)}"


def _pools_in_words(check: Check) -> str:
    """`any`; or by kind: `image, album: any; video: top_k_mean, k 3`."""
    kinds: dict[str, list[str]] = {}
    for kind in Kind:
        if kind is not Kind.UNKNOWN:
            kinds.setdefault(_pool_in_words(check.pooling(kind)), []).append(str(kind))
    return "; ".join(pool if len(kinds) == 1 else f"{', '.join(names)}: {pool}" for pool, names in kinds.items())


def _pool_in_words(pool: Pool) -> str:
    given = pool.model_dump(mode="json", exclude_none=True)
    return ", ".join([str(given.pop("method")), *(f"{key} {value}" for key, value in given.items())])


def _list_in_words(rule: ListRule) -> str:
    entries = rule.entries or ()
    by = rule.attribute if rule.by == "attribute" else rule.by
    reach = f" within {rule.distance} bits" if rule.distance is not None else ""
    ends = sum(1 for entry in entries if entry.until is not None)
    verdict = (rule.verdict or "block") if rule.action == "deny" else "pass"
    return f"{rule.action} ({verdict}) by {by}{reach}; {len(entries):,} entries, {ends:,} of them with an end"


def _definition_in_words(name: str, definition: ClassDefinition) -> Iterator[str]:
    yield f"{definition.title} ({name}): {definition.summary}"
    yield from (f"  + {what}" for what in definition.belongs)
    yield from (f"  - {what}" for what in definition.does_not_belong)
    for near in definition.neighbours:
        yield f"  {'+' if near.belongs else '-'} near: {near.what}: {near.because}"
    yield f"  example: {definition.example}"


def _flat(tree: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_flat(value) if isinstance(value, dict) else value}" for key, value in tree.items())
