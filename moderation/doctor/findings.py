"""A finding of the doctor, and how a list of findings is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from moderation.pages.text import escaped, json_text

FindingStatus = Literal["ok", "missing", "wrong", "note"]

_STYLES = {"ok": "green", "note": "yellow", "missing": "red", "wrong": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    status: ok; note (works, with a remark); missing (needed, but absent); wrong (present, but unusable). advice: what
    to do about it, as a command where there is one.
    """

    group: str
    name: str
    status: FindingStatus
    detail: str
    advice: str = ""

    @property
    def stops_a_run(self) -> bool:
        """Whether a run would not start or would fail because of it."""
        return self.status in ("missing", "wrong")


def render_findings(findings: Sequence[Finding]) -> Table:
    """A table for a terminal; text of configurations and errors is shown literally, never read as markup."""
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=26)
    table.add_column(overflow="fold")
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            table.add_row(Text(""), Text(group, style="bold"))
        words = Text(escaped(finding.detail))
        if finding.advice:
            words.append(f"\n-> {escaped(finding.advice)}", style="bold")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), Text(escaped(finding.name)), words)
    return table


def findings_as_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON list of objects."""
    return json_text([asdict(f) for f in findings], indent=1)
