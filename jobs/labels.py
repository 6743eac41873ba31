"""`moderation labels`: what reviewers decided, as one file of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError

from .printing import counts_text, print_line
from .review import print_conflicts

if TYPE_CHECKING:
    from moderation.labels.decided_labels import DecidedLabel

_USES = ("evaluate", "train")


def labels(
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="Outputs of runs that people have reviewed.")],
    to: Annotated[str | None, typer.Option(metavar="FILE", help="Labels: .csv, .jsonl or .parquet.")] = None,
    use: Annotated[
        str,
        typer.Option(
            "--for",
            help="evaluate: for evaluate and certify, a row per answer that counts. train: one row per item, for"
            " train-head and tune-prompts.",
        ),
    ] = "evaluate",
    check: Annotated[
        str | None,
        typer.Option(help="Of train: 1 where the label names this check, or blocks without a word; else 0."),
    ] = None,
    conflicts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Items on which reviewers differ: .csv, .jsonl or .parquet.")
    ] = None,
) -> None:
    """All decisions in OUT as labels: an expert's answer, else what two agree on, else the latest single one.

    Without --to, only say what there is. `evaluate`, `certify`, `train-head` and `tune-prompts` also read an OUT itself
    as --labels.
    """
    _check_call(use, check)

    from moderation.labels.decided_labels import decide_labels
    from moderation.labels.label_files import check_suffix, conflict_rows, merge_decisions, rows_for, write_rows

    for file in filter(None, (to, conflicts)):
        check_suffix(file)
    decided = decide_labels(merge_decisions(outs))
    if not decided:
        raise UsageError(f"{', '.join(outs)}: no decision there says what an item is")
    _print_counts(decided)
    disputed = [label for label in decided if label.is_disputed]
    print_conflicts(disputed)
    if to is not None:
        rows = rows_for(decided, train=use == "train", check=check)
        write_rows(to, rows)
        print_line(f"{len(rows):,} rows in {to}")
        audited = sum(label.is_audit for label in decided)
        if use == "train" and audited:
            print_line(f"without {audited:,} items of the audit: what learns from them can't be certified by them")
    if conflicts is not None:
        write_rows(conflicts, conflict_rows(disputed))
        print_line(f"{len(disputed):,} rows in {conflicts}")


def _check_call(use: str, check: str | None) -> None:
    if use not in _USES:
        raise UsageError(f"--for {use!r}: unknown{did_you_mean(use, _USES)}")
    if check is not None and use != "train":
        raise UsageError("--check goes with --for train")


def _print_counts(decided: Sequence[DecidedLabel]) -> None:
    rules = Counter(str(label.rule) for label in decided)
    answers = Counter(str(label.holds.decision) for label in decided)
    print_line(f"{len(decided):,} labels: {counts_text(answers)} ({counts_text(rules)})")
