"""`moderation duplicates`: copies within a finished run, and of what earlier runs have judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError

from .printing import print_json, print_line

if TYPE_CHECKING:
    from moderation.analysis.duplicates import Report
    from moderation.analysis.grouped import Written


def duplicates(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    ledger: Annotated[str | None, typer.Option(help="Also look among what this ledger has judged.")] = None,
    distance: Annotated[int, typer.Option(help="Bits of 256 that the hashes of copies may differ in, to 47.")] = 31,
    quality: Annotated[int, typer.Option(help="Of a hash, 0 to 100, from which it says something.")] = 50,
    embedding: Annotated[
        str | None, typer.Option(help="A detector whose kept embeddings find what hashes miss, such as imagenet.")
    ] = None,
    similarity: Annotated[float, typer.Option(help="Least cosine of such a pair.")] = 0.85,
    confirm: Annotated[int, typer.Option(help="Bits that its hashes may differ in.")] = 90,
    write: Annotated[bool, typer.Option("--write", help="Also write OUT/verdicts_grouped/.")] = False,
    members: Annotated[
        str, typer.Option(help="With --write. alone: verdicts as they are; inherit: the head's where it is harsher.")
    ] = "alone",
    previews: Annotated[
        bool,
        typer.Option("--previews", help="Small pictures on the page, blurred until chosen; reads the items again."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Group the copies of OUT round the largest picture of each. Writes OUT/duplicates.parquet and OUT/duplicates/."""
    from moderation.analysis.duplicates import Nearness, find_duplicates  # imports torch: only once the call is right
    from moderation.analysis.duplicates_page import write_duplicates_page
    from moderation.analysis.grouped import MEMBERS, write_grouped

    _check_members(members, MEMBERS, write=write)
    nearness = Nearness(distance=distance, quality=quality, embedding=embedding, similarity=similarity, confirm=confirm)
    report = find_duplicates(out, nearness, ledger=ledger)
    page = write_duplicates_page(report, out, previews=previews)
    written = write_grouped(out, members="inherit" if members == "inherit" else "alone") if write else None
    if as_json:
        print_json({**asdict(report), "page": page, "written": asdict(written) if written else None})
    else:
        _print(report, page, written)


def _check_members(members: str, choices: Sequence[str], *, write: bool) -> None:
    if members not in choices:
        hint = did_you_mean(members, choices, cutoff=0.0)
        raise UsageError(f"--members {members!r}: must be {' or '.join(choices)}{hint}")
    if members != "alone" and not write:
        raise UsageError("--members says what --write writes: add --write")


def _print(report: Report, page: str, written: Written | None) -> None:
    counts = ", ".join(f"{count:,} by {relation}" for relation, count in report.relations.items()) or "none"
    print_line(f"{report.groups:,} groups among {report.items + report.earlier:,} items: {counts}")
    if report.unread:
        print_line(f"{report.unread:,} earlier items were compared by content alone: their parts are gone")
    print_line(report.uri)
    print_line(page)
    if written:
        print_line(f"{written.uri}: {written.grouped:,} rows in groups, {written.inherited:,} verdicts inherited")
