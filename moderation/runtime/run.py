"""A run: what it reads, how it judges, where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moderation.config.model import Config
from moderation.lists.policy_file import load_whole_policy
from moderation.planning.slices import Slice
from moderation.policy.model import Policy
from moderation.results.record import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Output):
    """One execution over one plan: what it reads, how it judges, where it writes."""

    policy: Policy
    limit: int | None
    part: Slice | None = None


def load_policy_of(config: Config) -> Policy:
    """The policy that a configuration names. Raises UsageError."""
    return load_whole_policy(Path(config.policy))
