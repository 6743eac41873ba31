"""`moderation why`: why an item has its verdict, in words."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from moderation.pages.terminal import VERDICT_STYLES
from moderation.pages.text import plain

from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.analysis.what_if import WhatIf
    from moderation.analysis.why import ExplainedCheck, ItemExplanation

_MAX_CHECKS = 12


def why(
    out: Annotated[str, typer.Argument(help="Output of a run; of a nightly job one night, OUT/<night>.")],
    item: Annotated[str, typer.Argument(help="An item's id, the start of it, its URI, or the end of that.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON, with every vote.")] = False,
) -> None:
    """Say why ITEM has its verdict: rule, check, threshold, evidence, and what would have changed it."""
    from moderation.analysis.why import explain_item  # Arrow only once the call is right

    explained = explain_item(out, item)
    if as_json:
        changes = [asdict(change) | {"distance": change.distance} for change in explained.changes]
        print_json(asdict(explained) | {"differs": explained.differs, "changes": changes})
    else:
        _print(explained, plain_console(soft_wrap=True))


def _print(explained: ItemExplanation, console: Console) -> None:
    console.print(plain(explained.uri), style="bold")
    frames = f"{explained.frames_scored:,} of {explained.frames_total:,} frames scored"
    console.print(f"{explained.kind}, {frames}, id {plain(explained.item_id)}")
    verdict = explained.verdict or "no verdict"
    console.print(Text.assemble((verdict, VERDICT_STYLES.get(verdict, "")), f"  {plain(explained.reason or '')}"))
    console.print(plain(explained.sentence))
    if explained.error_detail:
        console.print(f"{explained.error_code}: {plain(explained.error_detail)}")
    if explained.confidence is not None:
        console.print(f"confidence {explained.confidence:.2f} of 1")
    _print_evidence(explained, console)
    _print_checks(explained.checks, console)
    _print_changes(explained, console)


def _print_evidence(explained: ItemExplanation, console: Console) -> None:
    if not explained.evidence:
        return
    console.print("\nIt rests on", style="bold")
    for vote in explained.evidence:
        where = "" if vote["frame"] is None else f"  frame {vote['frame']}"
        when = "" if vote["time_s"] is None else f" at {vote['time_s']:.1f} s"
        box = "" if not vote["box"] else "  in " + ", ".join(f"{side:.2f}" for side in vote["box"])
        score = "–" if vote["score"] is None else f"{vote['score']:.3f}"
        console.print(f"  {vote['detector']}.{vote['label']}  {score}{where}{when}{box}")


def _print_checks(checks: tuple[ExplainedCheck, ...], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("check", "score", "thresholds", "side"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    deciding = [check for check in checks if check.thresholds]
    for check in deciding[:_MAX_CHECKS]:
        limits = "  ".join(f"{name} {value:g}" for name, value in check.thresholds.items())
        score = "–" if check.score is None else f"{check.score:.3f}"
        table.add_row(check.name, score, limits, check.side)
    console.print()
    console.print(table)
    if left := len(checks) - len(deciding[:_MAX_CHECKS]):
        console.print(f"and {left} more: --json has all")


def _print_changes(explained: ItemExplanation, console: Console) -> None:
    if explained.differs and explained.judged_again is not None:
        verdict, reason = explained.judged_again
        console.print(
            f"\nJudged again by its votes and the policy that OUT keeps it is {verdict} ({plain(reason)}): not what is"
            " stored. Another version judged it, or it took over another item's verdict.",
            style="yellow",
        )
    if explained.judged_again is None:
        return
    console.print("\nWhat would have changed it", style="bold")
    for change in explained.changes:
        console.print(f"  {_sentence(change)}")
    if not explained.changes:
        console.print("  No threshold of a single check.")


def _sentence(change: WhatIf) -> str:
    below = change.score < change.threshold
    there = "at least" if below else "less than"
    other = "at most" if below else "over"
    return (
        f"{change.verdict}, had `{change.check}` scored {there} {change.threshold:.4g} ({change.distance:.3f}"
        f" {'more' if below else 'less'}), or were its `{change.name}` {other} {change.score:.4g}"
    )
