"""`moderation train-head`: labelled pictures become a detector over the network of another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.pages.text import escaped

from .options import SetOption, load_settings
from .printing import plain_console

if TYPE_CHECKING:
    from moderation.training.heads.bundle import HeadOutcome


def train_head(
    images: Annotated[
        str, typer.Option(help="Folder, prefix, manifest or tar of pictures: whatever `backfill` reads.")
    ],
    out: Annotated[str, typer.Option(help="Folder or prefix that gets the head, its card and its evaluation.")],
    backbone: Annotated[
        str, typer.Option(help="imagenet, image_safety, or clip:VARIANT of the configuration.")
    ] = "imagenet",
    labels: Annotated[
        str | None,
        typer.Option(help="CSV, TSV or JSON lines: the picture's name, and its class. Else an attribute, or folders."),
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column or attribute of the class.")] = "label",
    group_column: Annotated[
        str | None, typer.Option(help="Column or attribute of what must not be split: uploader, album.")
    ] = None,
    several: Annotated[
        bool, typer.Option("--several", help="A picture may be of several classes: `dress|hat`.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="What the detector's columns are called; default: OUT's name.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Other labelled pictures, for the figures alone.")] = None,
    test_labels: Annotated[str | None, typer.Option(help="Labels of those; default: as folders or attributes.")] = None,
    blocks: Annotated[
        int, typer.Option(min=0, max=100, help="Last layers of the backbone trained, too; 0: a linear probe.")
    ] = 0,
    views: Annotated[int, typer.Option(min=1, max=64, help="Of each picture: itself and augmented ones.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="At most; stops earlier where it should.")] = 15,
    held_share: Annotated[
        float, typer.Option(help="Share of the groups held back to choose, stop and calibrate.")
    ] = 0.2,
    balance: Annotated[bool, typer.Option("--balance/--as-is", help="Every class counts as much as any other.")] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    licence: Annotated[str, typer.Option(help="Of the labelled pictures, for the record.")] = "unknown",
    config: Annotated[str, typer.Option(help="Configuration file, or the name of a packaged one.")] = "default.yaml",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps features; default: the cache folder.")] = None,
    set_: SetOption = None,
) -> None:
    """Train a head on labelled pictures: a linear probe, or the last layers too where held-back pictures say so."""
    title = name or re.sub(r"\W+", "_", out.rstrip("/").rsplit("/", 1)[-1].lower()).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", title):
        raise typer.BadParameter(f"{title!r}: small letters, digits and _, a letter first", param_hint="--name")
    settings = load_settings(config, set_)

    from moderation.training.heads.finetune import FinetuneSettings  # torch only once the call is right
    from moderation.training.heads.labelled import LabelReading
    from moderation.training.heads.run import HeadRequest
    from moderation.training.heads.run import train_head as train

    request = HeadRequest(
        images=images,
        out=out,
        name=title,
        backbone=backbone,
        reading=LabelReading(labels=labels, column=label_column, group_column=group_column, several=several),
        test=test,
        test_labels=test_labels,
        blocks=blocks,
        views=views,
        held_share=held_share,
        licence=licence,
        cache=cache,
    )
    _print(train(settings, request, FinetuneSettings(epochs=epochs, several=several, balance=balance, seed=seed)))


def _print(outcome: HeadOutcome) -> None:
    from moderation.training.heads.bundle import stack_entry

    console = plain_console()  # names come from strangers
    data = outcome.card["data"]
    counted = ", ".join(f"{n:,} {escaped(name)}" for name, n in data["classes"].items())
    console.print(f"{data['pictures']:,} labelled pictures ({counted}), {data['groups']:,} groups")
    for uri, why in data["first_failed"]:
        console.print(f"{data['failed']:,} could not be read; one: {escaped(uri)}: {escaped(why)}")
    if outcome.losses:
        console.print(_say_tuning(outcome))
    table = Table("pictures", "method", "number", "accuracy", "mean recall", "calibration error")
    rows = [("held back", outcome.method, outcome.held)]
    rows += [("test", method, quality) for method, quality in (outcome.test or {}).items()]
    for which, method, quality in rows:
        figures = (quality.accuracy, quality.mean_recall, quality.calibration_error)
        table.add_row(which, method, f"{quality.pictures:,}", *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    console.print(
        f"written to {escaped(outcome.out)}; in the configuration, after {outcome.card['backbone']['detector']}:"
    )
    entry = stack_entry(outcome)
    console.print(
        "\n".join(f"  {'- ' if i == 0 else '  '}{k}: {escaped(str(v))}" for i, (k, v) in enumerate(entry.items())),
        soft_wrap=True,
    )


def _say_tuning(outcome: HeadOutcome) -> str:
    held, best, epochs = outcome.card["held_loss"], outcome.card["best_epoch"], len(outcome.losses) - 1
    if best == 0:
        return f"held-back loss: probe {held['probe']:.3f}, no less in {epochs} epochs of training layers; kept: probe"
    return (
        f"held-back loss: probe {held['probe']:.3f}, layers trained {held['tuned']:.3f} (epoch {best} of {epochs}); "
        f"kept: {outcome.method}"
    )
