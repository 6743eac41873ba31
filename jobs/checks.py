"""`moderation checks`: how the scores of a run's checks are distributed, and where its variants disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.config.load import resolve_config_path
from moderation.errors import UsageError
from moderation.pages.text import escaped
from moderation.results.layout import checks_folder

from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.analysis.checks import CheckDescription


def checks(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    plot: Annotated[bool, typer.Option("--plot", help="Write figures and a page; needs the extra `plots`.")] = False,
    to: Annotated[str | None, typer.Option(help="Where the figures go; default: OUT/checks.")] = None,
    format_: Annotated[str, typer.Option("--format", help="Of the figures: png or svg.")] = "png",
    policy: Annotated[str | None, typer.Option(help="Another policy than the run's.")] = None,
    check: Annotated[list[str] | None, typer.Option(help="Only this check; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Show, for each check, every variant's scores, the fused one, the thresholds, and where variants disagree."""
    if format_ not in ("png", "svg"):
        raise UsageError(f"--format {format_!r}: png or svg")
    path = None if policy is None else str(resolve_config_path(policy, kind="policies"))

    from moderation.analysis.checks import describe_checks  # torch only once the call is right

    described = describe_checks(out, path, check or ())
    if as_json:
        print_json([asdict(c) for c in described])
    else:
        _print(described)
    if plot:
        from moderation.analysis.check_pages import write_check_pages

        page = write_check_pages(described, out, to or checks_folder(out), format_)
        plain_console(stderr=as_json).print(escaped(f"figures beside {page}"), soft_wrap=True)


def _print(described: Sequence[CheckDescription]) -> None:
    table = Table()
    for name in ("check", "votes", "frames", "median", "95%", "at the threshold", "disagree"):
        table.add_column(name, justify="left" if name in ("check", "votes") else "right")
    for check in described:
        fused = check.fused
        over = ", ".join(f"{name} {share:.1%}" for name, share in check.at_least.items())
        apart = [p.apart for p in check.pairs if p.apart is not None]
        cells = [f"{q:.2f}" if (q := fused.quantile(share)) is not None else "–" for share in (0.5, 0.95)]
        worst = f"{max(apart):.1%}" if apart else ""
        table.add_row(check.name, str(len(check.votes)), f"{fused.total - fused.nulls:,}", *cells, over, worst)
    plain_console().print(table)
