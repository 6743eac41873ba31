"""`moderation review serve`: the page on which reviewers decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moderation.pages.text import escaped

from .printing import counts_text, plain_console

if TYPE_CHECKING:
    from moderation.review.access import Reviewer

_LOOPBACK = "127.0.0.1"


def review_serve(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to bind. Beyond this machine only behind a proxy that speaks TLS.")
    ] = _LOOPBACK,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="What a proxy before it serves the page as, for the links.")
    ] = None,
    reviewer: Annotated[
        list[str] | None, typer.Option(help="Pseudonym of a reviewer, who gets a link; may be repeated.")
    ] = None,
    expert: Annotated[
        list[str] | None, typer.Option(help="Pseudonym of an expert, whose answer settles; may be repeated.")
    ] = None,
    second_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the items that get a second opinion.")
    ] = 0.05,
    hidden_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of items with a known answer, to measure reviewers.")
    ] = 0.015,
    severe_in_row: Annotated[int, typer.Option(min=1, help="Severe items that may follow each other.")] = 3,
    claim_min: Annotated[
        float, typer.Option(min=0.1, max=1440, help="Minutes for which items are held for a reviewer.")
    ] = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Open the review, say what waits, and end.")] = False,
) -> None:
    """Serve a page on which reviewers decide the items of OUT; it prints one link per reviewer. Ctrl-C ends it.

    Decisions are in OUT/decisions/ before the page is told that they were taken. With MODERATION_REVIEW_SECRET set, the
    links stay good over a restart.
    """
    import_review_packages()
    from moderation.review.access import Reviewer
    from moderation.review.serve import count_waiting, serve_review
    from moderation.review.settings import ReviewSettings

    people = [Reviewer(name=name) for name in reviewer or ([] if expert else ["reviewer-1"])]
    people += [Reviewer(name=name, expert=True) for name in expert or []]
    settings = ReviewSettings(
        second_share=second_share,
        hidden_share=hidden_share,
        severe_in_row=severe_in_row,
        claim_s=60 * claim_min,
        experts=frozenset(expert or []),
    )
    console = plain_console(soft_wrap=True)
    if dry_run:
        waiting = count_waiting(out, people, settings)
        console.print(f"{sum(waiting.values()):,} items wait{': ' if waiting else ''}{counts_text(waiting)}")
        return
    if host not in (_LOOPBACK, "localhost", "::1") and not public_url:
        console.print("warning: this is no TLS server: beyond this machine, put a proxy that speaks TLS before it")

    def announce(who: Reviewer, link: str) -> None:
        console.print(escaped(f"{who.name}{' (expert)' if who.expert else ''}: {link}"))

    serve_review(out, people, settings, host=host, port=port, announce=announce, public_url=public_url)
    console.print("ended; every decision that was taken is in OUT/decisions/")


def import_review_packages() -> None:
    """Raises UsageError naming the command that installs what is missing."""
    from moderation.config.installing import install_command
    from moderation.errors import UsageError

    try:
        import starlette
        import uvicorn  # noqa: F401 - only whether they are there
    except ImportError as error:
        raise UsageError(f"the reviewers' page needs optional packages: {install_command('review')}") from error
    del starlette
