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
    composites: Annotated[int, typer.Option(min=64, max=10_000_000, help="Pictures to make and learn from.")] = 20_000,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Composites a step; on a GPU 64.")] = 8,
    rate: Annotated[
        float, typer.Option(min=1e-6, max=0.1, help="Of learning; with --from a lower one, as 3e-4.")
    ] = 1e-3,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Layers up to stride 4 learn, too: on a GPU; twice the time on a CPU.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, max=256, help="Processes that draw composites: one a core where a GPU learns.")
    ] = 0,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Weights to go on from; `packaged`: those that ship.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    licence: Annotated[str, typer.Option(help="Of the backgrounds, for the card.")] = "unknown",
    config: Annotated[str, typer.Option(help="Configuration file, or the name of a packaged one.")] = "default.yaml",
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps how far a killed run was; default: the cache folder.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Train the detector `watermark` on marks that are drawn and pasted here."""
    settings = load_settings(config, set_)

    from moderation.training.watermark.run import train_watermark as train  # torch only once the call is right
    from moderation.training.watermark.tuning import FROZEN, MarkTuning

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tuning = MarkTuning(
        pictures=composites,
        batch_size=batch_size,
        rate=rate,
        layer_rate=rate,
        frozen=0 if all_layers else FROZEN,
        seed=seed,
    )
    outcome = train(
        settings,
        backgrounds=backgrounds,
        out=out,
        tuning=tuning,
        licence=licence,
        cache=cache,
        start=from_,
        processes=workers,
    )
    console = plain_console()
    console.print(f"held-back composites told apart: {outcome.fit.held_right:.3f}; {outcome.card['seconds']:,} s")
    if outcome.fit.threshold is None:
        console.print("no threshold has a precision of 0.95 on them")
    else:
        console.print(
            f"precision of 0.95 on them from {outcome.fit.threshold:.3f} on, where recall is {outcome.fit.recall:.3f}"
        )
    console.print(
        f"written to {escaped(outcome.uri)} ({outcome.size_bytes:,} bytes)\nsha256: {outcome.sha256}", soft_wrap=True
    )
