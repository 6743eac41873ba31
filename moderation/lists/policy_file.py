"""A policy file with all that it names: lists are read, label paths and definitions looked up, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.lists.read import read_entries
from moderation.policy.definitions import definition_path
from moderation.policy.entries import ListRule, normalised
from moderation.policy.model import Policy, load_policy
from moderation.policy.taxonomy import load_taxonomy


def load_whole_policy(path: Path) -> Policy:
    """A policy from a YAML file with the entries of its lists, so that other machines need no file.

    A list that is named without a scheme lies beside the policy file. Raises UsageError naming what is wrong: a key, a
    list, a label or a definition, with the nearest right one.
    """
    policy = load_policy(path)
    for name, check in policy.checks.items():
        if check.definition is not None:
            definition_path(check.definition, beside=path.parent, where=f"{path}: checks.{name}.definition")
    problems = list(_wrong_labels(policy, path))
    if problems:
        raise UsageError("\n".join(problems))
    lists = {name: _with_entries(rule, f"{path}: lists.{name}", path.parent) for name, rule in policy.lists.items()}
    return policy.model_copy(update={"lists": lists}) if lists else policy


def _wrong_labels(policy: Policy, path: Path) -> Iterator[str]:
    paths = label_paths(policy, path.parent)
    for name, check in policy.checks.items():
        if check.label is not None and check.label not in paths:
            hint = did_you_mean(check.label, paths, otherwise="see the table of `taxonomy`", cutoff=0.5)
            yield f"{path}: checks.{name}.label: {check.label!r} is not in the taxonomy{hint}"


def label_paths(policy: Policy, beside: Path) -> list[str]:
    """Every label path of the policy's taxonomy (`Violence/Weapons`) and all their parents, sorted."""
    table = beside / policy.taxonomy if policy.taxonomy is not None else None
    if table is not None and not table.is_file():
        raise UsageError(f"{table}: no such taxonomy")
    levels = load_taxonomy(None if table is None else str(table)).values()
    return sorted({"/".join(path[:depth]) for path in levels for depth in range(1, len(path) + 1)})


def _with_entries(rule: ListRule, where: str, beside: Path) -> ListRule:
    if rule.from_ is None:
        return rule
    if rule.entries is not None:
        raise UsageError(f"{where}: has `from` and `entries`; one of them")
    uri = rule.from_ if "://" in rule.from_ else str(beside / rule.from_)
    try:
        entries = normalised(read_entries(storage.canonical(uri), rule.action, rule.by), rule.by)
    except ValueError as error:
        raise UsageError(f"{where}: {uri}: {error}") from error
    # The path as it was written, so that the record does not depend on where the file lies.
    return rule.model_copy(update={"entries": entries})
