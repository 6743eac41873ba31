"""`moderation explain`: which part of a picture a verdict rests on, as rows, overlays and a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.pages.text import escaped, plain
from moderation.types import Verdict

from .options import SetOption
from .printing import plain_console, print_error

if TYPE_CHECKING:
    from moderation.explain.summary import RegionGroup
    from moderation.results.explanations import Explanation

_SHOWN_GROUPS = 12
_MUCH = 0.05  # number formats move a score by a hundredth


def explain(
    out: Annotated[str, typer.Argument(help="Output of a run; of a nightly job one night, OUT/<night>.")],
    item: Annotated[
        list[str] | None,
        typer.Option("--item", metavar="ITEM", help="An item's id, the start of it, its URI or its end; repeatable."),
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Or the first items with this verdict: review, block, pass.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, max=10_000, help="With --verdict: how many; 50 by default.")] = None,
    method: Annotated[
        str,
        typer.Option(help="occlusion, gradient, both; or gradcam, legrad, guided, deconvolution."),
    ] = "occlusion",
    vote: Annotated[
        str | None, typer.Option(metavar="DETECTOR.LABEL", help="Explain this vote instead of the deciding one.")
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Also group the responsible regions by what they show.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(help="Folder or prefix of the explanations; default: OUT/explanations.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Say which part of the deciding frame each verdict rests on; OUT's pictures are fetched again."""
    _check_choice(item, verdict, top)

    from moderation.explain.deciding import choose_by_verdict, choose_items, read_targets
    from moderation.explain.page import write_page
    from moderation.explain.run import Explainer
    from moderation.results.reader import open_run

    run = open_run(out)
    explainer = Explainer(run, method=method, overrides=overrides or (), to=to)
    chosen = choose_items(run, item) if item else choose_by_verdict(run, Verdict(str(verdict)), top or 50)
    explained = []
    for one in explainer.explain(read_targets(run, chosen, vote)):
        explained.append(one)
        _print(one.explanation)
    console = plain_console(soft_wrap=True)
    console.print(escaped(write_page(run, explainer.to)))
    if summary:
        from moderation.explain.summary import write_summary

        page, groups = write_summary(run, explainer.to, explained)
        _print_groups(groups)
        console.print(escaped(page))
    failed = sum(one.explanation.error_code is not None for one in explained)
    if failed == len(explained):
        print_error("nothing could be explained: the rows there say why")
        raise typer.Exit(3)


def _check_choice(item: list[str] | None, verdict: str | None, top: int | None) -> None:
    if bool(item) == (verdict is not None):
        raise UsageError("say which items: --item ITEM (repeatable), or --verdict review --top 50")
    if top is not None and verdict is None:
        raise UsageError("--top goes with --verdict")
    if verdict is not None and verdict not in set(Verdict):
        words = [str(one) for one in Verdict]
        raise UsageError(f"--verdict {verdict!r}: must be review, block or pass{did_you_mean(verdict, words)}")


def _print(one: Explanation) -> None:
    from moderation.explain.page import describe_region

    console = plain_console(soft_wrap=True)
    console.print(plain(one.uri), style="bold")
    if one.error_code is not None or one.score is None:
        console.print(f"  {one.error_code}: {plain(one.error_detail or '')}", style="yellow")
        return
    when = "" if one.time_s is None else f" at {one.time_s:.1f} s"
    verdict = one.verdict or "no verdict"
    console.print(f"  {verdict}, {plain(one.vote)} {one.score:.3f}{_stored(one, one.score)}, frame {one.frame}{when}")
    region = f"  {plain(one.method)}: {describe_region(one.box)}"
    if one.fall is not None and one.alone is not None:
        region += f"; the score is {one.score - one.fall:.3f} with it covered, {one.alone:.3f} of it alone"
    console.print(region)


def _stored(one: Explanation, score: float) -> str:
    if one.stored_score is None or abs(score - one.stored_score) <= _MUCH:
        return ""
    return f" (the run stored {one.stored_score:.3f}: another version or machine scored it)"


def _print_groups(groups: list[RegionGroup]) -> None:
    console = plain_console(soft_wrap=True)
    console.print("\nWhat the responsible regions show", style="bold")
    for group in groups[:_SHOWN_GROUPS]:
        console.print(
            f"  {group.regions:>5,}  {group.share:>4.0%}  {plain(group.vote)}: {plain(group.name)}"
            f" ({'falls' if group.drop >= 0 else 'rises'} by {abs(group.drop):.3f} when covered)"
        )
    if not groups:
        console.print("  nothing stands out in any of them")
