"""`moderation train-watermark`: makes composites of your backgrounds and trains a detector of marks on them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from moderation.pages.text import escaped

from .options import SetOption, load_settings
from .printing import plain_console


def train_watermark(
    backgrounds: Annotated[
        list[str], typer.Option(help="Folder, prefix, manifest or tar of pictures without marks; may be repeated.")
    ],
    out: Annotated[str, typer.Option(help="Folder or prefix that gets watermark.safetensors and card.json.")],
    composites: Annotated[int, typer.Option(min=64, help="Pictures to make; half of them marked.")] = 4096,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Of each of the two rounds.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1, max=65536, help="Cells a step.")] = 1024,
    tune: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="Composites on which layers are trained, too; 0: the head alone."),
    ] = 0,
    rate: Annotated[
        float, typer.Option(min=1e-6, max=0.1, help="With --tune: rate of learning; with --from a lower one, as 3e-4.")
    ] = 1e-3,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="With --tune: weights to go on with; `packaged`: ours.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    licence: Annotated[str, typer.Option(help="Of the backgrounds, for the card.")] = "unknown",
    config: Annotated[str, typer.Option(help="Configuration file, or the name of a packaged one.")] = "default.yaml",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps features; default: the cache folder.")] = None,
    set_: SetOption = None,
) -> None:
    """Train the detector `watermark` on marks that are drawn and pasted here."""
    settings = load_settings(config, set_)

    from moderation.training.watermark.descent import MarkSettings  # torch only once the call is right
    from moderation.training.watermark.run import train_watermark as train
    from moderation.training.watermark.tuning import MarkTuning

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    outcome = train(
        settings,
        backgrounds=backgrounds,
        out=out,
        composites=composites,
        settings=MarkSettings(epochs=epochs, batch_size=batch_size, seed=seed),
        licence=licence,
        cache=cache,
        tuning=MarkTuning(pictures=tune, rate=rate, layer_rate=rate, seed=seed) if tune else None,
        start=from_,
    )
    console = plain_console()
    last = outcome.rounds[-1]
    console.print(f"held-back composites told apart: {last.held_right:.3f}; {outcome.card['seconds']:,} s")
    if last.threshold is None:
        console.print("no threshold has a precision of 0.95 on them")
    else:
        console.print(f"precision of 0.95 on them from {last.threshold:.3f} on, where recall is {last.recall:.3f}")
    console.print(
        f"written to {escaped(outcome.uri)} ({outcome.size_bytes:,} bytes)\nsha256: {outcome.sha256}", soft_wrap=True
    )
