"""`moderation transparency`: numbers for a transparency report, over several runs. Reads tables alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from moderation import storage
from moderation.errors import UsageError
from moderation.results.certificates import read_certificates
from moderation.results.layout import summary_uri
from moderation.results.reader import StoredRun, open_run
from moderation.results.swept import SweptRecord, read_swept_record
from moderation.review.appeal_outcomes import report_appeals
from moderation.review.restrictions import Automation, FinalVerdict, read_final_verdicts, run_time
from moderation.review.statement_map import StatementMap, read_statement_map
from moderation.review.swept_restrictions import read_swept_verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedRate:
    """What a certificate says. errors of labels were seen; bound: the rate that is not exceeded, at that risk."""

    run: str
    action: str
    labels: int
    errors: int
    bound: float
    risk: float
    expires: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransparencyReport:
    """Numbers over runs. items: rows. restricted: blocked in the end. unknown: blocked by a sweep whose run is gone.
    categories: of these, by category, else by check.

    automation: of these. by_people: items that reviewers decided; overturned: of them, those that the machine had
    blocked or passed otherwise. hours_to_decision: median from the run to the reviewer's answer; None without any.
    """

    runs: tuple[str, ...]
    items: int
    restricted: int
    escalated: int
    unknown: int
    categories: dict[str, int]
    automation: dict[str, int]
    by_people: int
    overturned: int
    hours_to_decision: float | None
    appeals: int
    appeals_open: int
    appeals_upheld: int
    appeals_overturned: int
    certificates: tuple[CertifiedRate, ...]

    @property
    def automated_share(self) -> float | None:
        """The share of restrictions that no person decided; None without any."""
        return self.automation.get(str(Automation.FULLY), 0) / self.restricted if self.restricted else None


@dataclass(slots=True, kw_only=True)
class _RestrictionTally:
    mapping: StatementMap | None
    items: int = 0
    restricted: int = 0
    escalated: int = 0
    by_people: int = 0
    overturned: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    automation: Counter[str] = field(default_factory=Counter)
    hours: list[float] = field(default_factory=list)
    swept: set[tuple[str, str]] = field(default_factory=set)  # run and item: another sweep may block it, too
    unknown: int = 0

    def add_run(self, run: StoredRun) -> None:
        began = run_time(run)
        for final in read_final_verdicts(run):
            self.items += 1
            self._add(final)
            if final.by_people is not None and began is not None and final.decided_at is not None:
                self.hours.append((final.decided_at - began).total_seconds() / 3600)

    def add_sweep(self, home: str, swept: SweptRecord) -> None:
        """What it blocks. Its items are rows of runs, which are counted there, and not here."""
        for one in read_swept_verdicts(home, swept):
            if not isinstance(one.final, FinalVerdict):
                self.unknown += 1
            elif (one.run_id, one.item_id) not in self.swept:
                self.swept.add((one.run_id, one.item_id))
                self._add(one.final)

    def _add(self, final: FinalVerdict) -> None:
        self.escalated += final.escalated
        if final.by_people is not None:
            self.by_people += 1
            self.overturned += final.row["verdict"] in ("block", "pass") and final.row["verdict"] != final.verdict
        if final.is_restricted and not final.escalated:
            self.restricted += 1
            self.categories[self._category(final)] += 1
            self.automation[str(final.automation)] += 1

    def _category(self, final: FinalVerdict) -> str:
        row = final.row
        if self.mapping is not None:
            rule = self.mapping.rule_for(row.get("check"), row.get("reason"), final.words)
            return "without a category" if rule is None else rule.category
        if final.words:
            return final.words[0]
        if row["verdict"] == "pass":  # its reason is why it was passed
            return "a reviewer, without a word"
        return str(row.get("check") or row.get("reason") or "without a reason")


def report_transparency(outs: Sequence[str], mapping_path: str | None = None) -> TransparencyReport:
    """The numbers over several runs and sweeps. mapping_path: of categories; None: they are told by check.

    Raises UsageError where an OUT has no run, or stands twice.
    """
    mapping = None if mapping_path is None else read_statement_map(Path(mapping_path))
    homes = [storage.canonical(out).rstrip("/") for out in outs]
    twice = next((home for home in homes if homes.count(home) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice}: stands twice, and would count twice")
    sweeps = {home: swept for home in homes if (swept := read_swept_record(home)) is not None}
    runs = [open_run(home) for home in homes if home not in sweeps]
    tally = _RestrictionTally(mapping=mapping)
    for run in runs:
        tally.add_run(run)
    for home, swept in sweeps.items():
        tally.add_sweep(home, swept)
    judged = [home for home in homes if home not in sweeps]
    appeals = [report_appeals(home) for home in judged]
    return TransparencyReport(
        runs=tuple(homes),
        items=tally.items,
        restricted=tally.restricted,
        escalated=tally.escalated,
        unknown=tally.unknown,
        categories=dict(tally.categories.most_common()),
        automation=dict(tally.automation.most_common()),
        by_people=tally.by_people,
        overturned=tally.overturned,
        # A decision that was imported may be older than the run.
        hours_to_decision=median(max(0.0, hours) for hours in tally.hours) if tally.hours else None,
        appeals=sum(report.appeals for report in appeals),
        appeals_open=sum(report.open for report in appeals),
        appeals_upheld=sum(report.upheld for report in appeals),
        appeals_overturned=sum(report.overturned for report in appeals),
        certificates=tuple(rate for home in judged for rate in _certified(home)),
    )


def _certified(out: str) -> list[CertifiedRate]:
    """What the certificates of a run's policy say; none where their file is gone."""
    said = _certification(storage.read_optional(summary_uri(out)))
    file = said.get("file")
    issued = read_certificates(str(file)) if file else None
    if issued is None:
        return []
    return [
        CertifiedRate(
            run=out,
            action=certificate.action,
            labels=certificate.labels,
            errors=certificate.errors,
            bound=certificate.bound,
            risk=certificate.risk,
            expires=issued.expires.isoformat(),
        )
        for certificate in issued.certificates
    ]


def _certification(summary: bytes | None) -> dict[str, Any]:
    try:
        facts = json.loads(summary or b"{}")
        said = facts.get("certificates") or {}
        return said if isinstance(said, dict) else {}
    except (ValueError, AttributeError):
        return {}
