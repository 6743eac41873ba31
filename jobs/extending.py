"""What `moderation backfill --extend` prints: what is scored, and what that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from moderation.config.model import Config
from moderation.pages.text import escaped

from .printing import plain_console, print_error, print_json

if TYPE_CHECKING:
    from moderation.runtime.extend import ExtensionPreview
    from moderation.runtime.resume import RunOutcome


def show_extension(source: str, out: str, settings: Config, limit: int | None, *, as_json: bool) -> None:
    """Print what an extension would do. Exits with 2 where it would not succeed."""
    from moderation.runtime.extend import preview_extension

    plan = preview_extension(source, out, settings, limit=limit)
    if as_json:
        print_json(asdict(plan))
    else:
        _print_plan(plan)
    if plan.problems:
        raise typer.Exit(2)


def _print_plan(plan: ExtensionPreview) -> None:
    console = plain_console(soft_wrap=True)
    scored = {
        "new": ", ".join(plan.added),
        "scored again": ", ".join(f"{name} (version {a} -> {b})" for name, (a, b) in plan.again.items()),
        "run again for what others read": ", ".join(plan.helpers),
        "damaged, scored again": ", ".join(plan.repaired),
        "kept": ", ".join(plan.kept),
    }
    console.print("plan (nothing was started)")
    for what, names in scored.items():
        if names:
            console.print(escaped(f"  {what}: {names}"))
    if plan.added or plan.again or plan.repaired:
        console.print(f"  {plan.items:,} items in {plan.shards:,} shards; {plan.pending_shards:,} shards to score")
    elif not plan.judges:
        console.print("  nothing left to do: OUT has all of these votes and is judged by this policy")
    if plan.judges:
        console.print(f"  then {plan.items:,} items are judged with all votes, as run {plan.run_id}")
    for problem in plan.problems:
        print_error(problem)


def print_extended(summary: Mapping[str, Any]) -> None:
    """What an extension added and which verdicts it moved; nothing for other runs."""
    extended = summary.get("extended")
    if not isinstance(extended, Mapping):
        return
    console = plain_console(soft_wrap=True)
    again = [f"{name} (version {v['before']} -> {v['now']})" for name, v in (extended.get("again") or {}).items()]
    for what, names in (("added", extended.get("added") or []), ("scored again", again)):
        if names:
            console.print(escaped(f"{what}: {', '.join(names)}"))
    for moved, items in sorted((summary.get("moved") or {}).items()):
        before, _, after = moved.partition(":")
        console.print(f"  {before} -> {after}: {items:,}")


def is_scored_only(outcome: RunOutcome) -> bool:
    """Whether the call judged nothing; a slice may have had nothing to score either."""
    judged = "extended" in outcome.summary
    return not judged and (not outcome.nothing_left or bool(outcome.summary.get("slice")))


def print_scored(outcome: RunOutcome) -> None:
    """What a call has scored that did not judge: of one slice, or ended early."""
    summary = outcome.summary
    asked = ", ".join(f"{name} {frames:,}" for name, frames in sorted((summary.get("frames_asked") or {}).items()))
    console = plain_console(soft_wrap=True)
    console.print(f"scored {summary.get('items', 0):,} items; frames by detector: {escaped(asked) or 'none'}")
    errors = ", ".join(f"{code} {items:,}" for code, items in sorted((summary.get("errors") or {}).items()))
    if errors:
        console.print(f"errors: {errors}")
    if outcome.partial:
        console.print("Ended early, as asked; the same command goes on.")
    elif summary.get("slice"):
        console.print("Once all slices are scored, the same command without --slice judges.")


def warn_of_errors(outcome: RunOutcome) -> None:
    """Say that the verdicts stay as they were where too many items could not be read again."""
    if outcome.too_many_errors and not isinstance(outcome.summary.get("extended"), Mapping):
        print_error(
            "so nothing was judged, and the verdicts are as they were. The same command reads again what storage"
            " refused; with a higher runtime.max_error_rate it judges all the same"
        )
