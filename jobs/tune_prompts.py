"""`moderation tune-prompts`: improves a check by a few labelled pictures; the networks stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.pages.text import escaped

from .options import SetOption, VariantOption, load_settings
from .printing import plain_console

if TYPE_CHECKING:
    from moderation.training.prompts.run import TuningOutcome


def tune_prompts(
    images: Annotated[
        str, typer.Option(help="Folder, prefix, manifest or tar of pictures: whatever `backfill` reads.")
    ],
    labels: Annotated[str, typer.Option(help="CSV, TSV or JSON lines: the picture's name, and its class.")],
    check: Annotated[str, typer.Option(help="Question of the configuration whose words are tuned.")],
    out: Annotated[str, typer.Option(help="File to write (.safetensors); a question's `embeddings:`.")],
    config: Annotated[str, typer.Option(help="Configuration file, or the name of a packaged one.")] = "clip.yaml",
    shots: Annotated[
        str, typer.Option(help="Learn from so many pictures a class (10), or a share of them (40%).")
    ] = "100%",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    epochs: Annotated[int, typer.Option(min=0, max=10_000, help="At most; stops earlier where it should.")] = 120,
    context_tokens: Annotated[
        int, typer.Option(min=0, help="Learn so many vectors before the words (CoOp), not class embeddings.")
    ] = 0,
    together: Annotated[
        bool, typer.Option("--together/--apart", help="Variants learn on their fused answer, or each on its own.")
    ] = True,
    curve: Annotated[
        str, typer.Option(help="Numbers of shots to measure with; empty: only what is written.")
    ] = "1,4,10,20,40,100%",
    report: Annotated[str | None, typer.Option(help="File that gets the report as JSON.")] = None,
    label_column: Annotated[str, typer.Option(help="Column of the class.")] = "label",
    rule: Annotated[
        list[str] | None, typer.Option(help="Classes from ratings: 'offensive: moral_mean < 2.5'; may be repeated.")
    ] = None,
    variant: VariantOption = None,
    licence: Annotated[str, typer.Option(help="Of the labelled pictures, for the record.")] = "unknown",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps embeddings; default: the cache folder.")] = None,
    set_: SetOption = None,
) -> None:
    """Learn what stands for the words of CHECK from labelled pictures, and say what it gained."""
    settings = load_settings(config, set_)

    from moderation import storage
    from moderation.training.prompts.curve import parse_shots
    from moderation.training.prompts.labelled import parse_rule
    from moderation.training.prompts.run import tune_prompts as tune  # torch only once the call is right
    from moderation.training.prompts.spaces import Settings

    wanted = parse_shots(shots)
    if len(wanted) != 1:
        raise typer.BadParameter("one number, or one share", param_hint="--shots")
    outcome = tune(
        settings,
        images=images,
        labels=labels,
        check=check,
        out=out,
        settings=Settings(epochs=epochs, folds=folds, seed=seed, together=together),
        shots=None if wanted[0] == 1.0 and shots.strip().endswith("%") else wanted[0],
        curve=parse_shots(curve),
        context_tokens=context_tokens,
        column=label_column,
        rules=[parse_rule(text) for text in rule or ()],
        only=variant or (),
        licence=licence,
        cache=cache,
    )
    if report:
        storage.publish(report, outcome.as_json().encode())
    _print(outcome)


def _print(outcome: TuningOutcome) -> None:
    data = outcome.data
    counted = ", ".join(f"{n:,} {name}" for name, n in data.classes.items())
    console = plain_console()  # names come from strangers
    if not console.is_terminal:
        console.width = 60 + 16 * len(outcome.names)  # a log has no edge to fold at
    console.print(f"{data.pictures:,} labelled pictures ({counted}); {data.computed:,} embedded now")
    if data.failed:
        uri, why = next(iter(data.failed.items()))
        console.print(f"{len(data.failed):,} could not be read; the first: {escaped(uri)}: {escaped(why)}")
    table = Table(title=f"{outcome.check}, cross-validated: every picture judged by what has not seen it")
    heads = ("method", "variant", "shots", "accuracy", "auc", *(f"{n} p/r" for n in outcome.names))
    for name in heads:
        table.add_column(name, justify="left" if name in ("method", "variant") else "right")
    for point in outcome.points:
        q = point.quality
        spread = "" if q.spread is None else f" ±{q.spread * 100:.1f}"
        pairs = [f"{_percent(p)}/{_percent(r)}" for p, r in zip(q.precision, q.recall, strict=True)]
        table.add_row(
            point.method, point.variant, point.shots, f"{q.accuracy * 100:.1f}{spread}", _percent(q.auc), *pairs
        )
    console.print(table)
    console.print("in the configuration, beside the words of the question:")
    console.print(f"  embeddings: {escaped(_locator(outcome.uri))}\n  sha256: {outcome.sha256}", soft_wrap=True)


def _locator(uri: str) -> str:
    return uri if "://" in uri else f"file://{Path(uri).absolute()}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f}"
