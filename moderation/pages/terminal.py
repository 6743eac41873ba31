"""What a terminal shows: verdicts in their colours, and how long something takes, no more exactly than it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from moderation.types import Verdict

VERDICT_STYLES: Final[Mapping[str, str]] = {"block": "bold red", "review": "yellow", "pass": "green"}


def verdict_counts(counts: Mapping[str, int]) -> Text:
    """`block 1  review 20  pass 300`, each in its colour."""
    known = [str(verdict) for verdict in Verdict]
    names = [*known, *sorted(set(counts) - set(known))]
    parts = [Text(f"{name} {counts.get(name, 0):,}", style=VERDICT_STYLES.get(name, "")) for name in names]
    return Text("  ").join(parts)


def describe_left(left_s: float) -> str:
    """`about 4 min left`; never more exact than it is."""
    if left_s < 90:
        return "about a minute left" if left_s > 20 else "seconds left"
    minutes = round(left_s / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes / 60:.0f} h left"
