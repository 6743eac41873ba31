"""`moderation rejudge`: applies another policy to the votes that a run kept; reads no pictures, needs no GPU."""

from __future__ import annotations

from typing import Annotated

import typer

from moderation.pages.text import escaped

from .options import AsOfOption, parse_day, resolve_policy_path
from .printing import plain_console, print_warnings


def rejudge(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    to: Annotated[str, typer.Option(help="Folder or prefix that gets the new verdicts.")],
    policy: Annotated[
        str | None, typer.Option(help="Policy file, or the name of a packaged one. Default: the one that OUT keeps.")
    ] = None,
    as_of: AsOfOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or tasks at once; default: one per core.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A running cluster, whose nodes reach OUT and TO.")
    ] = None,
) -> None:
    """Judge the votes of OUT by another policy; it may also read questions asked afterwards (`ask --as-check`).

    Running the same command again goes on where the last one ended.
    """
    path = None if policy is None else str(resolve_policy_path(policy))
    day = parse_day(as_of)

    if ray_address:
        from moderation.runtime.rejudge import rejudge_on_cluster  # Ray only where a cluster is named

        rejudged = rejudge_on_cluster(out, path, to, ray_address, as_of=day, workers=workers)
    else:
        from moderation.analysis.rejudge import rejudge as judge_again

        rejudged = judge_again(out, path, to, as_of=day, workers=workers)
    console = plain_console()
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(rejudged.verdicts.items()))
    console.print(f"{rejudged.items:,} items: {counts}")
    if rejudged.asks:
        console.print(f"with the questions asked afterwards: {', '.join(rejudged.asks)}")
    for (before, after), n in sorted(rejudged.moved.items()):
        console.print(f"  {before} -> {after}: {n:,}")
    console.print(escaped(f"written to {to}/verdicts/"), soft_wrap=True)
    print_warnings(rejudged.doubts)
