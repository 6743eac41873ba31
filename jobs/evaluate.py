"""`moderation evaluate`: how good the checks and verdicts of finished runs are, by labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.config.load import resolve_config_path
from moderation.pages.text import escaped, percent
from moderation.results.layout import evaluation_folder

from .options import BadOption, LabelsOption, MeansOption, label_words
from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.evaluation.evaluate import Evaluation
    from moderation.evaluation.measures import Rate
    from moderation.evaluation.weighted import Share


def evaluate(
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="Outputs of finished runs.")],
    labels: LabelsOption,
    bad: BadOption = None,
    means: MeansOption = None,
    policy: Annotated[str | None, typer.Option(help="The policy of the runs, where their own is not there.")] = None,
    together: Annotated[bool, typer.Option("--together", help="The runs as one, such as nights.")] = False,
    slice_by: Annotated[
        list[str] | None, typer.Option("--slice", help="Only slices of this attribute; may be repeated.")
    ] = None,
    least_n: Annotated[int, typer.Option(min=1, help="Least labelled items of a slice that is shown.")] = 30,
    precision: Annotated[float, typer.Option(min=0, max=1, help="At which coverage is told.")] = 0.99,
    to: Annotated[str | None, typer.Option(help="Where the page and its JSON go; default: OUT/evaluation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Hold the scores and verdicts of OUT against labels; several OUTs stand beside each other, or --together."""
    path = None if policy is None else str(resolve_config_path(policy))

    from moderation.evaluation.evaluate import evaluate as evaluate_runs  # heavy imports only once the call is right
    from moderation.evaluation.evaluation_page import write_evaluation

    evaluations = evaluate_runs(
        outs,
        labels,
        words=label_words(bad, means),
        policy=path,
        together=together,
        slice_by=slice_by or (),
        least=least_n,
        precision=precision,
    )
    page = write_evaluation(evaluations, labels, to or evaluation_folder(outs[0]))
    if as_json:
        print_json([asdict(evaluation) for evaluation in evaluations])
    else:
        _print(evaluations)
    plain_console(stderr=as_json, soft_wrap=True).print(escaped(page))


def _print(evaluations: Sequence[Evaluation]) -> None:
    console = plain_console()
    for evaluation in evaluations:
        disputed = f", {evaluation.disputed:,} in dispute" if evaluation.disputed else ""
        console.print(
            f"{escaped(evaluation.name)}: {evaluation.rows:,} rows, {evaluation.labelled:,} labelled{disputed}"
        )
        console.print(
            f"  of all rows: automation {_share(evaluation.automation)}, review {_share(evaluation.review)}",
            soft_wrap=True,
        )
        for v in evaluation.verdicts:
            console.print(
                f"  {escaped(v.name)}: precision of block {_share(v.block_precision)}, leak {_share(v.leak)},"
                f" bad that is blocked {_share(v.block_recall)}",
                soft_wrap=True,
            )
        if evaluation.weighted is not None:
            w = evaluation.weighted
            console.print(
                f"  weighted by 1/probability ({w.items:,} labels say as much as {w.effective:,.0f} of one weight):"
                f" precision of block {_estimate(w.block_precision)}, leak {_estimate(w.leak)},"
                f" bad that is blocked {_estimate(w.block_recall)}",
                soft_wrap=True,
            )
        table = Table()
        for name in ("score", "items", "positives", "nulls", "AP", "AUC", "coverage", "calibration error"):
            table.add_column(name, justify="left" if name == "score" else "right")
        for s in evaluation.scores:
            areas = [_number(value) for value in (s.average_precision, s.roc_auc)]
            counts = (f"{s.items:,}", f"{s.true:,}", f"{s.nulls:,}")
            table.add_row(escaped(s.name), *counts, *areas, percent(s.coverage), _number(s.calibration_error))
        console.print(table)


def _share(rate: Rate) -> str:
    return f"{percent(rate.share)} ({percent(rate.low)} to {percent(rate.high)})" if rate.n else "–"


def _estimate(share: Share) -> str:
    if share.share is None:
        return "–"
    ends = "" if share.low is None else f" ({percent(share.low)} to {percent(share.high)})"
    return f"{percent(share.share)}{ends}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
