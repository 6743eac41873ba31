"""`moderation mine`: the hard examples of finished runs, as a manifest to label or to train on."""

from __future__ import annotations

from typing import Annotated

import typer

from moderation.config.load import resolve_config_path

from .options import BadOption, MeansOption
from .printing import counts_text, print_line


def mine(
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="Outputs of finished runs.")],
    to: Annotated[str, typer.Option(metavar="FILE.jsonl", help="Manifest that is written.")],
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labels as for evaluate, or an OUT: for mistakes.")
    ] = None,
    most: Annotated[int, typer.Option("--count", min=1, max=100_000, help="How many items at most.")] = 200,
    near: Annotated[float, typer.Option(min=0.0001, max=0.5, help="How close to a threshold is close.")] = 0.05,
    bad: BadOption = None,
    means: MeansOption = None,
    policy: Annotated[str | None, typer.Option(help="The policy of the runs, where their own is not there.")] = None,
) -> None:
    """Find confident mistakes (by --labels), items whose detectors differ, and scores near a threshold.

    Near-copies are left out, and so is the audit. The manifest is a SOURCE of any job (--set source.type=manifest), and
    `--labels` of train-head where its items have a label.
    """
    path = None if policy is None else str(resolve_config_path(policy, kind="policies"))

    from moderation.analysis.mine import MiningWish
    from moderation.analysis.mine import mine as mine_runs

    wish = MiningWish(count=most, near=near, labels=labels, bad=tuple(bad or ()), means=tuple(means or ()), policy=path)
    mined = mine_runs(outs, to, wish)
    print_line(f"{mined.items:,} items ({counts_text(mined.kinds)}), {mined.labelled:,} with a label")
    print_line(to)
