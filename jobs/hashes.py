"""`moderation hashes`: lists of known pictures, and which of them a finished run holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .printing import print_json, print_line

_AS_JSON = typer.Option("--json", help="Print the result as JSON.")


def hashes_build(
    lists: Annotated[list[str], typer.Argument(help="Lists to read: paths or URIs, all of one form.")],
    out: Annotated[str, typer.Option("--out", help="The file to write.")],
    exchange: Annotated[
        str, typer.Option(help="Their form: csv (with a header), hex, vpdq (one file per video), threatexchange.")
    ] = "csv",
    label: Annotated[str, typer.Option(help="What entries without a label of their own are called.")] = "known",
    illegal: Annotated[
        bool, typer.Option("--illegal", help="Matches are escalated and never shown; see docs/illegal.md.")
    ] = False,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Make the file that the detector `known` reads of lists of PDQ hashes. A bad line is refused by its number."""
    from moderation.analysis.known_hashes import build_list  # imports torch: only once the call is right

    built = build_list(lists, out, exchange=exchange, label=label, is_illegal=illegal)
    if as_json:
        print_json(asdict(built))
        return
    left_out = {"repeated": built.repeated, "of other types": built.skipped}
    remarks = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
    remark = f" ({remarks} left out)" if remarks else ""
    print_line(f"{built.entries:,} hashes, {len(built.labels):,} labels{remark}")
    if built.is_illegal:
        print_line("an illegal list: matches are escalated, and nothing of them is kept or shown")
    print_line(f"options: {{list: {built.uri}, sha256: {built.sha256}}}")


def hashes_match(
    out: Annotated[str, typer.Argument(help="Output of a run with the detector `pdq`.")],
    known: Annotated[str, typer.Option("--list", help="The list, as `moderation hashes build` wrote it.")],
    sha256: Annotated[str, typer.Option(help="Of the list; `moderation hashes build` prints it.")],
    distance: Annotated[int, typer.Option(min=0, max=47, help="Bits of 256 that a copy may differ in.")] = 31,
    quality: Annotated[int, typer.Option(min=0, max=100, help="Of a hash, from which it says something.")] = 50,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Hold the hashes that a run kept against a list: no pictures are read. Writes OUT/known.parquet."""
    from moderation.analysis.known_hashes import match_run

    matched = match_run(out, known, sha256, distance=distance, quality=quality)
    if as_json:
        print_json(asdict(matched))
        return
    print_line(f"{matched.items_matched:,} of {matched.items:,} items match; {matched.uri}")
