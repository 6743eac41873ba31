"""`moderation train-head`: labelled pictures become a detector over the network of another, or go on with one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from moderation.errors import UsageError

from .head_tables import print_continued, print_trained
from .options import SetOption, load_settings

if TYPE_CHECKING:
    from moderation.config.model import Config
    from moderation.training.heads.batches import FinetuneSettings
    from moderation.training.heads.bundle import HeadOutcome
    from moderation.training.heads.request import HeadRequest

# What a head that goes on has from the one before.
_FRESH_ONLY: Final = (
    "backbone",
    "labels",
    "label_column",
    "group_column",
    "several",
    "blocks",
    "input_px",
    "views",
    "epochs",
    "balance",
    "seed",
    "workers",
)
_CONTINUED_ONLY: Final = ("add", "means", "new_class", "max_forgotten")


def train_head(
    ctx: typer.Context,
    out: Annotated[str, typer.Option(help="Folder or prefix that gets the head, its card and its evaluation.")],
    images: Annotated[
        str | None, typer.Option(help="Folder, prefix, manifest or tar of pictures: whatever `backfill` reads.")
    ] = None,
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
    views: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Of each picture: itself and augmented ones; default: 4, or 16 with --blocks."
        ),
    ] = None,
    input_px: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=4096,
            help="Side that `imagenet` reads, by its own pass; 0: as the stack has it; default: 288 with --blocks.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="At most; stops earlier where it should.")] = 30,
    held_share: Annotated[
        float, typer.Option(help="Share of the groups held back to choose, stop and calibrate.")
    ] = 0.2,
    balance: Annotated[bool, typer.Option("--balance/--as-is", help="Every class counts as much as any other.")] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="BUNDLE", help="Go on with this head; what it remembers is mixed in."),
    ] = None,
    add: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS", help="With --from: labels to learn in addition: a file, or OUT of a reviewed run."
        ),
    ] = None,
    means: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=WORD", help="With --add: a word of the labels that means a class."),
    ] = None,
    new_class: Annotated[
        list[str] | None, typer.Option(help="With --add: a class that the head does not have yet; may be repeated.")
    ] = None,
    max_forgotten: Annotated[
        float, typer.Option(help="With --from: of a class's older pictures, the largest share that may be lost.")
    ] = 0.05,
    replay: Annotated[
        int, typer.Option(min=0, max=50_000, help="Pictures that the head remembers, as embeddings, for --from later.")
    ] = 2000,
    licence: Annotated[str, typer.Option(help="Of the labelled pictures, for the record.")] = "unknown",
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that train together, by Ray; 1: this one, without Ray.")
    ] = 1,
    ray_address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS", help="With --workers: a running cluster, whose nodes reach --images and --cache."
        ),
    ] = None,
    config: Annotated[str, typer.Option(help="Configuration file, or the name of a packaged one.")] = "default.yaml",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps features; default: the cache folder.")] = None,
    set_: SetOption = None,
) -> None:
    """Train a head on labelled pictures: a linear probe, or the last layers too where held-back pictures say so.

    With --from and --add: go on with a head; exit code 1, and nothing replaced, where it would forget too much.
    """
    _check_call(ctx, from_, add, images, replay)
    title = name or re.sub(r"\W+", "_", out.rstrip("/").rsplit("/", 1)[-1].lower()).strip("_")
    if (name or from_ is None) and not re.fullmatch(r"[a-z][a-z0-9_]*", title):
        raise typer.BadParameter(f"{title!r}: small letters, digits and _, a letter first", param_hint="--name")
    settings = load_settings(config, set_)

    if from_ is not None and add is not None:
        from moderation.training.heads.additions import AdditionReading  # torch only once the call is right
        from moderation.training.heads.incremental import ContinueRequest, continue_head

        continued = continue_head(
            settings,
            ContinueRequest(
                base=from_,
                reading=AdditionReading(
                    labels=add, images=images, means=tuple(means or ()), new_classes=tuple(new_class or ())
                ),
                out=out,
                name=name,
                max_forgotten=max_forgotten,
                held_share=held_share,
                replay=replay,
                test=test,
                test_labels=test_labels,
                licence=licence,
                cache=cache,
            ),
        )
        print_continued(continued)
        if continued.outcome is None:
            raise typer.Exit(1)
        return

    from moderation.training.heads.batches import FinetuneSettings
    from moderation.training.heads.labelled import LabelReading
    from moderation.training.heads.request import TUNED_VIEWS, VIEWS, HeadRequest

    request = HeadRequest(
        images=images or "",
        out=out,
        name=title,
        backbone=backbone,
        reading=LabelReading(labels=labels, column=label_column, group_column=group_column, several=several),
        test=test,
        test_labels=test_labels,
        blocks=blocks,
        views=views or (TUNED_VIEWS if blocks else VIEWS),
        held_share=held_share,
        replay=replay,
        licence=licence,
        cache=cache,
        input_px=input_px,
    )
    tuning = FinetuneSettings(epochs=epochs, several=several, balance=balance, seed=seed)
    print_trained(_train(settings, request, tuning, workers, ray_address))


def _train(
    config: Config, request: HeadRequest, tuning: FinetuneSettings, workers: int, address: str | None
) -> HeadOutcome:
    if workers > 1:
        from moderation.runtime.train import train_head_on_ray  # Ray only where it is asked for

        return train_head_on_ray(config, request, tuning, workers=workers, address=address)
    from moderation.training.heads.run import train_head as train

    return train(config, request, tuning)


def _check_call(ctx: typer.Context, from_: str | None, add: str | None, images: str | None, replay: int) -> None:
    """Raises UsageError for options that do not go together."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    if from_ is None:
        wrong = next(iter(given.intersection(_CONTINUED_ONLY)), None)
        if wrong is not None:
            raise UsageError(f"--{wrong.replace('_', '-')} goes with --from BUNDLE, the head to go on with")
        if images is None:
            raise UsageError("say --images PICTURES, or --from BUNDLE --add LABELS to go on with a head")
        return
    if add is None:
        raise UsageError("--from BUNDLE needs --add LABELS, what is to be learned in addition")
    wrong = next(iter(given.intersection(_FRESH_ONLY)), None)
    if wrong is not None:
        raise UsageError(
            f"--{wrong.replace('_', '-')} does not go with --from: the head keeps what it was trained with"
        )
    if replay == 0:
        raise UsageError("--replay 0 with --from: a head that goes on remembers at least one picture of each class")
