"""The words in which reasons are told, one table per language: `configs/texts/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pydantic import Field

from moderation.config.load import read_yaml, resolve_config_path, validate
from moderation.policy.section import PolicySection

REASONS = (
    "negative_block", "negative_review", "context_review", "isolated_review", "null_review", "null_all_review",
    "positive_pass", "vouch_pass", "default_review", "default_pass", "list_block", "list_review", "list_pass",
    "error", "unseen",
)  # fmt: skip


class ReasonTexts(PolicySection):
    """One language. reasons: sentences by rule; where, note: parts of them; the other fields: words for names."""

    reasons: Mapping[str, str] = Field(min_length=len(REASONS))
    where: str
    note: str
    checks: Mapping[str, str]
    errors: Mapping[str, str]
    unseen: Mapping[str, str]


@lru_cache(maxsize=8)
def load_reason_texts(language: str) -> ReasonTexts:
    """The packaged table of a language. Raises UsageError where there is none."""
    path = resolve_config_path(f"texts/{language}.yaml")
    return validate(ReasonTexts, read_yaml(path), where=str(path))
