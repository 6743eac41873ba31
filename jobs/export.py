"""`moderation export`: a finished run in the formats of other programs."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.config.hints import did_you_mean
from moderation.config.load import resolve_config_path
from moderation.errors import UsageError
from moderation.pages.text import escaped
from moderation.types import Verdict

from .printing import plain_console, print_error, print_line

if TYPE_CHECKING:
    from moderation.results.export.run import ExportReport

_SHOWN_FOLDERS = 5


def export(
    out: Annotated[str, typer.Argument(help="Output of a run; of dsa also of a sweep.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="jsonl, csv, parquet, coco, rekognition, openai, manifest, webdataset, copies or dsa."
        ),
    ],
    to: Annotated[
        str | None, typer.Option(help="File, or folder of webdataset and copies; default: below OUT/export.")
    ] = None,
    verdict: Annotated[str | None, typer.Option(help="Only items with this verdict: pass, review or block.")] = None,
    minus_duplicates: Annotated[
        bool, typer.Option("--minus-duplicates", help="Without the copies that `moderation duplicates` found.")
    ] = False,
    policy: Annotated[
        str | None, typer.Option(help="Of openai: the policy whose thresholds flag, instead of the run's.")
    ] = None,
    mapping: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of dsa: grounds and categories by check; see docs/records.md.")
    ] = None,
    taxonomy: Annotated[
        str | None, typer.Option(help="Of rekognition and openai: another table of labels than the packaged one.")
    ] = None,
) -> None:
    """Write the rows of OUT in another format, or the objects that they are of."""
    if (format_ == "dsa") != (mapping is not None):
        raise UsageError("--format dsa and --mapping FILE go together; docs/records.md has an example")
    if mapping is not None:
        if verdict is not None or minus_duplicates or policy is not None or taxonomy is not None:
            raise UsageError(
                "--format dsa takes --to and --mapping alone: a statement is due for all that is restricted"
            )
        _export_statements(out, mapping, to)
        return
    verdicts = [str(one) for one in Verdict]
    if verdict is not None and verdict not in verdicts:
        raise UsageError(f"--verdict {verdict!r}: must be pass, review or block{did_you_mean(verdict, verdicts)}")
    path = None if policy is None else str(resolve_config_path(policy))

    from moderation.results.export.run import export_run
    from moderation.results.export.selection import RowSelection

    selection = RowSelection(verdict=None if verdict is None else Verdict(verdict), minus_duplicates=minus_duplicates)
    report = export_run(out, format_, to=to, selection=selection, policy=path, taxonomy=taxonomy)
    _print(report)
    if report.failed:
        print_error(f"{report.failed:,} items could not be handed on: see errors.jsonl there")
        raise typer.Exit(3)


def _export_statements(out: str, mapping: str, to: str | None) -> None:
    from moderation.review.statements import export_statements

    report = export_statements(out, mapping, to=to)
    print_line(f"{report.statements:,} statements of reasons, of {report.rows:,} items; {report.to}")
    if report.escalated:
        print_line(f"{report.escalated:,} matches with an illegal list are left to you: see docs/illegal.md")
    for why, count in report.incomplete.items():
        print_error(f"{count:,} without a statement: {why}")
    if report.incomplete:
        print_error(f"see {report.errors}")
        raise typer.Exit(3)


def _print(report: ExportReport) -> None:
    console = plain_console(soft_wrap=True)
    copies = f", {report.copies:,} copies left out" if report.copies else ""
    console.print(f"{report.items:,} of {report.rows:,} items{copies}")
    if report.escalated:
        console.print(f"{report.escalated:,} matches with an illegal list left out: see docs/illegal.md")
    console.print(escaped(report.to))
    if not report.folders:
        return
    if len(report.folders) <= _SHOWN_FOLDERS:
        # Quoted: names of folders come from strangers, and the line is there to be copied into a shell.
        console.print(f"read it with --set {shlex.quote(f'source.allow={json.dumps(list(report.folders))}')}")
    else:
        console.print(f"its objects lie in {len(report.folders):,} folders: allow what holds them by source.allow")
