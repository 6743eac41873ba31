"""`moderation review`: decisions checked, counted, handed to other programs and taken back; appeals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.pages.text import escaped, percent, short_line

from .printing import counts_text, plain_console, print_error, print_json, print_line

if TYPE_CHECKING:
    from moderation.labels.decided_labels import DecidedLabel
    from moderation.review.appeal_outcomes import AppealReport
    from moderation.review.filters import QueueFilter
    from moderation.review.stats import ReviewerStats, ReviewStats

OutArgument = Annotated[str, typer.Argument(help="Output of a run.")]
FormatOption = Annotated[str, typer.Option("--format", help="label-studio, jsonl or csv.")]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="KEY=VALUE",
        help="verdict, check, kind, error, attribute (NAME=VALUE) or audit; may be repeated.",
    ),
]
_FORMATS = ("label-studio", "jsonl", "csv")
_SHOWN = 10


def review_verify(out: OutArgument) -> None:
    """Check that no decision in OUT was changed, lost or moved since it was made."""
    from moderation.labels.decision_chain import read_chain
    from moderation.results.reader import open_run

    open_run(out)
    chain = read_chain(out)
    decisions = sum(len(part.decisions) for part in chain.parts)
    if not chain.faults:
        print_line(f"{decisions:,} decisions in {len(chain.parts):,} parts: as they were made")
        return
    for fault in chain.faults[:_SHOWN]:
        print_error(escaped(fault))
    if len(chain.faults) > _SHOWN:
        print_error(f"and {len(chain.faults) - _SHOWN:,} more")
    raise typer.Exit(1)


def review_stats(
    out: OutArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Pace, agreement, hidden items and conflicts of a review."""
    from moderation.labels.decision_store import read_decisions
    from moderation.results.reader import open_run
    from moderation.review.stats import measure_review

    open_run(out)
    decisions = read_decisions(out)
    if not decisions:
        raise UsageError(f"{out}: nobody has decided there; `moderation review serve {out}` opens the queue")
    stats = measure_review(decisions)
    if as_json:
        print_json(asdict(stats))
    else:
        _print_stats(stats)


def review_export(
    out: OutArgument,
    to: Annotated[str, typer.Option(help="File that is written.")],
    format_: FormatOption = "jsonl",
    todo: Annotated[bool, typer.Option("--todo", help="What nobody has decided, to be filled in.")] = False,
    filters: FilterOption = None,
    url: Annotated[
        str | None, typer.Option(metavar="FROM=TO", help="Of label-studio: URIs that begin with FROM begin with TO.")
    ] = None,
) -> None:
    """Write decisions, or with --todo items to decide, for another program; `review import` reads them back."""
    _check_format(format_)
    replaced = _parse_url(url, format_)

    from moderation.review.exporting import export_review

    report = export_review(out, to, format_, _parse_filters(filters), todo=todo, url=replaced)
    print_line(f"{report.items:,} items, {report.decisions:,} decisions")
    for file, count in report.files.items():
        print_line(f"{count:,} rows in {file}")


def review_import(
    out: OutArgument,
    file: Annotated[str, typer.Argument(help="File of decisions.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="label-studio, jsonl or csv; default: by the file's ending.")
    ] = None,
    reviewer: Annotated[str | None, typer.Option(help="Pseudonym for rows that name nobody.")] = None,
) -> None:
    """Append the decisions of FILE to those in OUT; the same file again changes nothing."""
    chosen = _format_of(file) if format_ is None else _check_format(format_)

    from moderation.review.importing import import_decisions

    report = import_decisions(out, file, chosen, datetime.now(UTC), reviewer=reviewer)
    known = f", {report.repeated:,} were there" if report.repeated else ""
    blank = f", {report.blank:,} rows without an answer" if report.blank else ""
    print_line(f"{report.written:,} decisions imported{known}{blank}")


def review_appeals(
    out: OutArgument,
    file: Annotated[
        str | None, typer.Argument(help="Appeals: .csv or .jsonl with item_id, text and time; none: only tell.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Take appeals in, and tell what became of them: `review serve` has them as a queue of their own."""
    from moderation.review.appeal_outcomes import report_appeals, take_appeals

    if file is not None:
        added = take_appeals(out, file)
        plain_console(stderr=as_json).print(f"{added:,} new appeals")
    report = report_appeals(out)
    if as_json:
        print_json({**asdict(report), "rules": [asdict(rule) for rule in report.rules]})
    else:
        _print_appeals(report)


def _check_format(name: str) -> str:
    if name not in _FORMATS:
        raise UsageError(f"--format {name!r}: unknown{did_you_mean(name, _FORMATS)}")
    return name


def _format_of(file: str) -> str:
    by_ending = {".json": "label-studio", ".jsonl": "jsonl", ".csv": "csv"}
    format_ = next((name for ending, name in by_ending.items() if file.lower().endswith(ending)), None)
    if format_ is None:
        raise UsageError(f"{file}: say --format, or a file that ends in {', '.join(by_ending)}")
    return format_


def _parse_url(url: str | None, format_: str) -> tuple[str, str] | None:
    if url is None:
        return None
    before, equals, after = url.partition("=")
    if not equals or not before or format_ != "label-studio":
        raise UsageError(f"--url {url!r}: FROM=TO, with --format label-studio")
    return before, after


def _parse_filters(filters: Iterable[str] | None) -> QueueFilter:
    from moderation.review.filters import parse_filter

    texts: dict[str, list[str]] = {}
    for entry in filters or ():
        name, equals, value = entry.partition("=")
        if not equals:
            raise UsageError(f"--filter {entry!r}: expected KEY=VALUE")
        texts.setdefault(name.strip(), []).append(value)
    return parse_filter(texts)


def _print_stats(stats: ReviewStats) -> None:
    console = plain_console()
    undone = f", {stats.undone:,} undone" if stats.undone else ""
    console.print(f"{stats.decisions:,} decisions on {stats.items:,} items{undone}: {counts_text(stats.sources)}")
    table = Table("reviewer", "decisions", "answers", "undone", "per hour", "median look", "hidden items right")
    for one in stats.reviewers:
        table.add_row(*_cells(one))
    console.print(table)
    for pair in stats.pairs:
        names = escaped(" and ".join(pair.reviewers))
        console.print(f"{names}: the same on {pair.agreed:,} of {pair.items:,} items, kappa {_number(pair.kappa)}")
    if len(stats.pairs) > 1:
        console.print(f"all pairs: kappa {_number(stats.kappa)}")
    print_conflicts(stats.conflicts)


def print_conflicts(conflicts: Sequence[DecidedLabel]) -> None:
    """Items on which reviewers differ, the first of them."""
    console = plain_console(soft_wrap=True)
    console.print(f"{len(conflicts):,} items in conflict{':' if conflicts else ''}")
    for label in conflicts[:_SHOWN]:
        said = ", ".join(f"{answer.reviewer} {answer.decision}" for answer in label.answers)
        shown = escaped(short_line(label.holds.uri or label.item_id, 100))
        console.print(f"  {shown}: {escaped(said)}; {label.holds.decision} holds ({label.rule})")
    if len(conflicts) > _SHOWN:
        console.print(f"  and {len(conflicts) - _SHOWN:,} more: `moderation labels --conflicts FILE` lists them")


def _cells(one: ReviewerStats) -> tuple[str, ...]:
    return (
        escaped(one.reviewer),
        f"{one.decisions:,}",
        counts_text(one.answers),
        f"{one.undone:,}",
        "–" if one.per_hour is None else f"{one.per_hour:,.0f}",
        "–" if one.exposure_s is None else f"{one.exposure_s:.1f} s",
        "–" if one.hidden is None else f"{one.hidden.right} of {one.hidden.items}",
    )


def _print_appeals(report: AppealReport) -> None:
    console = plain_console()
    unknown = f", {report.unknown:,} of items that the run does not have" if report.unknown else ""
    console.print(
        f"{report.appeals:,} appeals: {report.open:,} open, {report.upheld:,} upheld, {report.overturned:,} overturned"
        f" ({percent(report.overturn_rate)}){unknown}"
    )
    for rule in report.rules:
        console.print(f"  {escaped(rule.rule)}: {rule.overturned:,} of {rule.decided:,} overturned", soft_wrap=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
