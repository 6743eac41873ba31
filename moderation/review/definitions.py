"""Class definitions for reviewers: as OUT kept them when it was judged, else the packaged ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from moderation import storage
from moderation.config.load import validate
from moderation.errors import UsageError
from moderation.policy.definitions import ClassDefinition, load_definition
from moderation.policy.model import Policy
from moderation.results.decided import read_index
from moderation.results.layout import decided_uri

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReason:
    """A reason that a reviewer may give: a negative check, by its number on the page."""

    name: str
    title: str
    summary: str = ""


def read_definitions(out: str, policy: Policy) -> dict[str, ClassDefinition]:
    """Check -> its definition, for the checks that have one. Raises StorageError."""
    index = read_index(out) or {}
    kept = index.get("definitions")
    kept = kept if isinstance(kept, dict) else {}
    definitions = {}
    for name, check in policy.checks.items():
        if check.definition is None:
            continue
        try:
            definitions[name] = _read_kept(out, kept.get(name)) or load_definition(check.definition)
        except UsageError as error:
            # A run can be reviewed without: its policy may name a file that has gone since.
            _LOG.warning("no definition of %s: %s", name, error)
    return definitions


def _read_kept(out: str, file: object) -> ClassDefinition | None:
    # The name is a hash and a suffix; anything else is not ours.
    if not isinstance(file, str) or "/" in file or file.startswith("."):
        return None
    data = storage.read_optional(decided_uri(out, file))
    if data is None:
        return None
    try:
        tree: Any = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{decided_uri(out, file)}: not readable") from error
    return validate(ClassDefinition, tree if isinstance(tree, dict) else {}, where=decided_uri(out, file))


def list_reasons(policy: Policy, definitions: Mapping[str, ClassDefinition]) -> tuple[BlockReason, ...]:
    """The negative checks, those with a definition first, each once by its title; severe ones before milder ones."""
    rank = {level: place for place, level in enumerate(policy.severities)}
    negative = [(name, check) for name, check in policy.checks.items() if check.side == "negative"]
    negative.sort(key=lambda pair: (-rank.get(pair[1].severity or "", -1), pair[0]))
    reasons: dict[str, BlockReason] = {}
    for name, check in negative:
        definition = definitions.get(name)
        title = name.replace("_", " ") if definition is None else definition.title
        # Two checks may ask for the same class; a reviewer answers once, by the more severe one.
        reasons.setdefault(
            check.definition or name,
            BlockReason(name=name, title=title, summary="" if definition is None else definition.summary),
        )
    return tuple(reasons.values())
