"""What `moderation train-head` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from moderation.pages.text import escaped

from .printing import plain_console

if TYPE_CHECKING:
    from moderation.training.heads.bundle import HeadOutcome
    from moderation.training.heads.forgetting import ClassChange
    from moderation.training.heads.incremental import ContinuedHead


def print_continued(continued: ContinuedHead) -> None:
    """What was gained and forgotten, by class, and the head, or why it was refused."""
    console = plain_console(soft_wrap=True)
    notes = {"corrected": continued.corrected, "in dispute": continued.disputed, "without a picture": continued.unused}
    rest = "".join(f", {count:,} {what}" for what, count in notes.items() if count)
    console.print(f"{continued.remembered:,} remembered pictures, {continued.added:,} added{rest}")
    for uri, why in list(continued.failed.items())[:1]:
        console.print(f"{len(continued.failed):,} could not be read; one: {escaped(uri)}: {escaped(why)}")
    change = continued.change
    for title, classes in (("older", change.old), ("added", change.added), ("test", change.test)):
        if any(each.pictures for each in classes):
            console.print(_change_table(title, classes))
    if continued.outcome is None:
        for reason in change.refused:
            console.print(f"NOT KEPT {escaped(reason)}", style="bold red")
        console.print(
            f"refused: no head was written; the comparison is {escaped(continued.change_uri)}. Look at the added"
            " labels of these classes, add more labels of them, or allow more by --max-forgotten"
        )
        return
    print_trained(continued.outcome)


def _change_table(title: str, classes: Sequence[ClassChange]) -> Table:
    table = Table(f"class, {title} pictures", "pictures", "right before", "right now", "gained", "lost")
    for each in (each for each in classes if each.pictures):
        before = "new" if each.before is None else f"{each.before:,}"
        table.add_row(
            escaped(each.name), f"{each.pictures:,}", before, f"{each.after:,}", f"{each.gained:,}", f"{each.lost:,}"
        )
    return table


def print_trained(outcome: HeadOutcome) -> None:
    """What was learned from, how good it is, and how it is used."""
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
