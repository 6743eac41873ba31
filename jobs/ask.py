"""`moderation ask`: answers a new question from the embeddings that a run kept; reads no pictures, needs no GPU."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.pages.text import escaped

from .options import VariantOption
from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.analysis.ask import Ranking


def ask(
    out: Annotated[str, typer.Argument(help="Output of a run with stack.keep_embeddings.")],
    texts: Annotated[list[str], typer.Argument(help="What is looked for, in words; several are weighed together.")],
    against: Annotated[
        list[str] | None, typer.Option(help="What it is told from; may be repeated. Default: ordinary things.")
    ] = None,
    as_check: Annotated[
        str | None, typer.Option(help="Also write the scores, as columns <variant>.NAME beside the votes.")
    ] = None,
    variant: VariantOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many items to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ranking as JSON.")] = False,
) -> None:
    """Rank the items of OUT by how well their best frame answers a question that was never asked of the pictures."""
    from moderation.analysis.ask import ask as ask_question  # torch only once the call is right
    from moderation.detectors.clip.questions import make_question

    question = make_question(as_check or "question", texts, against or ())
    ranking = ask_question(out, question, limit=limit, keep=as_check is not None, only=variant or ())
    if as_json:
        print_json(asdict(ranking))
    else:
        _print(ranking, out if as_check else None)


def _print(ranking: Ranking, kept: str | None) -> None:
    table = Table(title=f"{ranking.items:,} items, {ranking.frames:,} frames, by {', '.join(ranking.labels)}")
    for name in ("score", "verdict", "frame", "uri"):
        table.add_column(name, justify="right" if name in ("score", "frame") else "left", overflow="fold")
    for ranked in ranking.found:
        at = str(ranked.frame) if ranked.time_s is None else f"{ranked.frame} ({ranked.time_s:.1f} s)"
        table.add_row(f"{ranked.score:.3f}", ranked.verdict or "", at, escaped(ranked.uri))
    console = plain_console()  # names come from strangers
    console.print(table)
    if kept:
        console.print(f"kept as {', '.join(ranking.labels)} in {escaped(kept)}/asks/{ranking.question.name}/")
