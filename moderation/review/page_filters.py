"""The filters that the page offers; what they mean is in `filters`."""

from __future__ import annotations

from dataclasses import dataclass

from moderation.policy.model import Policy
from moderation.types import ErrorCode, Kind, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFilter:
    """A filter as a field of a form: a choice of `options`, or text like `example`."""

    name: str
    title: str
    options: tuple[str, ...] = ()
    example: str = ""


def list_filters(policy: Policy) -> tuple[PageFilter, ...]:
    """The fields, in the order of the form."""
    deciding = tuple(name for name, check in policy.checks.items() if check.side != "attribute")
    return (
        PageFilter(name="verdict", title="Verdict", options=tuple(map(str, Verdict))),
        PageFilter(name="check", title="Check", options=deciding),
        PageFilter(name="kind", title="Kind", options=tuple(map(str, Kind))),
        PageFilter(name="error", title="Error", options=("any", *map(str, ErrorCode))),
        PageFilter(name="attribute", title="Attribute", example="source=camera"),
        PageFilter(name="audit", title="Audit", options=("yes", "no")),
        PageFilter(name="appeals", title="Appeals", options=("yes",)),
        PageFilter(name="order", title="Order", options=("rank", "lowest")),
    )
