"""What the doctor says of one thing, and how a list of it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

FindingStatus = Literal["ok", "missing", "wrong", "note"]

_STYLES = {"ok": "green", "note": "yellow", "missing": "red", "wrong": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    status: ok; note (works, but you should know); missing (needed, and not there); wrong (there, and not as it must
    be). advice: what to do about it, where something is to be done: the command.
    """

    group: str
    name: str
    status: FindingStatus
    detail: str
    advice: str = ""

    @property
    def stops_a_run(self) -> bool:
        """Whether a run would not start, or not succeed, with it."""
        return self.status in ("missing", "wrong")


def render_findings(findings: Sequence[Finding]) -> Table:
    """A table for a terminal; text of configurations and of errors is shown as it is, never read as markup."""
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=26)
    table.add_column(overflow="fold")
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            table.add_row(Text(""), Text(group, style="bold"))
        words = Text(finding.detail)
        if finding.advice:
            words.append(f"\n-> {finding.advice}", style="bold")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), Text(finding.name), words)
    return table


def findings_as_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON list of objects."""
    return json.dumps([asdict(f) for f in findings], indent=1, ensure_ascii=False)
