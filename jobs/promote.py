"""`moderation promote`: makes a candidate live if it beats the incumbent on the same labelled items."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.errors import UsageError
from moderation.pages.text import escaped
from moderation.results.layout import promotion_folder

from .options import BadOption, BundlesOption, MeansOption, label_words
from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.evaluation.promotion import Judged


def promote(
    store: BundlesOption,
    candidate: Annotated[str | None, typer.Argument(help="OUT of a run with the bundle that is to go live.")] = None,
    against: Annotated[str | None, typer.Option(help="OUT of the incumbent's run over the same items.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="Labels, as for evaluate.")] = None,
    bundle: Annotated[
        str | None, typer.Option(help="The candidate's bundle; default: that of its stack and policy.")
    ] = None,
    limits: Annotated[str | None, typer.Option(help="YAML file of limits; default: see docs/bundles.md.")] = None,
    bad: BadOption = None,
    means: MeansOption = None,
    to: Annotated[str | None, typer.Option(help="Where the page goes; default: CANDIDATE/promotion.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and leave the pointer as it is.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Back to the bundle that was live before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Point STORE to the candidate's bundle if it keeps the limits; exit code 1, and why, if it does not."""
    if rollback:
        _roll_back(store)
        return
    if candidate is None or against is None or labels is None:
        raise UsageError("promote needs CANDIDATE, --against INCUMBENT and --labels FILE; or --rollback")

    # Heavy imports only once the call is right.
    from moderation.evaluation import promotion

    limit_values = promotion.read_limits(limits)
    bundle_hash = promotion.bundle_of(store, candidate, bundle)
    now = datetime.now(UTC)
    words = label_words(bad, means)
    judged = promotion.judge_candidate(candidate, against, labels, now.date(), limits=limit_values, words=words)
    page = promotion.write_judged(judged, to or promotion_folder(candidate))
    if as_json:
        print_json({**asdict(judged), "limits": limit_values.model_dump()})
    else:
        _print(judged)
    console = plain_console(stderr=as_json, soft_wrap=True)
    if (note := promotion.describe_live(store, against)) is not None:
        console.print(f"note: {escaped(note)}", style="yellow")
    console.print(escaped(page))
    if not judged.outcome.passed:
        raise typer.Exit(1)
    if not dry_run:
        promotion.move_pointer(store, bundle_hash, now, judged, page)
        console.print(f"current: {bundle_hash}")


def _roll_back(store: str) -> None:
    from moderation.evaluation.bundle_store import roll_back

    pointer = roll_back(store, datetime.now(UTC))
    plain_console(soft_wrap=True).print(f"current: {pointer.bundle}")


def _print(judged: Judged) -> None:
    console = plain_console(soft_wrap=True)
    for check in judged.outcome.checks:
        style = None if check.passed else "bold red"
        console.print(
            f"{'kept    ' if check.passed else 'NOT KEPT'} {escaped(check.name)}: {escaped(check.reason)}", style=style
        )
