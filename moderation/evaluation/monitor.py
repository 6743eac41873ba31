"""The monitor: tests each certificate against new audit labels, night by night; an alarm ends the certificate.

    HOME/monitor/drawn-<night>.parquet   audited items that a night decided by itself; their labels count
    HOME/monitor/wealth.json             the wealth of each certificate's monitor so far

Any-time valid: labels may be looked at every night, and of the certificates that hold at most one in twenty ever ends.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from moderation import storage
from moderation.errors import UsageError, one_line
from moderation.evaluation.audit import audit_of, group_of, values_with
from moderation.evaluation.evaluate import LabelWords, meaning_of
from moderation.evaluation.monitor_bets import CertificateMonitor, bet_on_labels, settled_label
from moderation.evaluation.population import JudgedItem, read_population
from moderation.evaluation.wealth import ALARM, MonitorWealth
from moderation.labels.label_files import read_labels
from moderation.labels.resolve import resolve_labels
from moderation.policy.audit import audit_value
from moderation.policy.certified import Certificate, CertificateSet
from moderation.policy.matching import attribute_values
from moderation.policy.model import Policy
from moderation.results.layout import monitor_uri

DRAWN_SCHEMA: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("content_hash", pa.string()),
        ("group", pa.string()),
        ("action", pa.string()),
        # Of the certificate that decided; null in tables of version 1.
        ("certificate", pa.string()),
    ],
    metadata={"moderation.table": "drawn", "moderation.schema_version": "2"},
)
WEALTH_FILE: Final = "wealth.json"
_NIGHTS: Final = 400  # the newest, which are kept
_MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorState:
    """The content of `wealth.json`. nights: those that drew something, in order. monitors: certificate key -> monitor.

    ended: certificate key -> why.
    """

    nights: tuple[str, ...] = ()
    monitors: Mapping[str, CertificateMonitor] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)


_STATE = TypeAdapter(MonitorState)


def certificate_key(certificates: CertificateSet, action: str) -> str:
    """A certificate's key: its name, the day of its issue, and the hash of its labels."""
    return f"{action}@{certificates.issued}/{certificates.labels_sha256[:12]}"


def ended_actions(home: str, certificates: CertificateSet | None) -> dict[str, str]:
    """Certificates that this monitor has ended: action -> why. Raises UsageError."""
    if certificates is None:
        return {}
    ended = read_state(home).ended
    actions = {c.name: certificate_key(certificates, c.name) for c in certificates.certificates}
    return {action: ended[key] for action, key in actions.items() if key in ended}


def read_state(home: str) -> MonitorState:
    """The monitor's state; empty where there is none. Raises UsageError where the file is not one of a monitor."""
    uri = monitor_uri(home, WEALTH_FILE)
    data = storage.read_optional(uri)
    if data is None:
        return MonitorState()
    try:
        return _STATE.validate_json(data)
    except ValueError as error:
        # No fresh start here: that would take back an alarm.
        raise UsageError(f"{uri}: not readable as that of a monitor: {one_line(error, 200)}") from error


def note_night(home: str, night: str, out: str, policy: Policy, certificates: CertificateSet | None) -> int:
    """Keep the audited items of a finished night that certificates cover; returns how many there are."""
    if certificates is None or policy.audit is None:
        return 0
    rows = list(_drawn_rows(out, policy, certificates))
    if rows:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=DRAWN_SCHEMA), sink, compression="zstd")
        storage.publish(monitor_uri(home, f"drawn-{night}.parquet"), sink.getvalue())
        state = read_state(home)
        if night not in state.nights:
            _write_state(home, replace(state, nights=(*state.nights, night)[-_NIGHTS:]))
    return len(rows)


def _drawn_rows(out: str, policy: Policy, certificates: CertificateSet) -> Iterator[dict[str, Any]]:
    population = read_population([out], resolve_labels([]), check_labels=False)
    if population.stack_fingerprint != certificates.stack_fingerprint:
        return  # scores of another stack say nothing of these certificates
    audit = audit_of(policy)
    rates = {f"{side}:{given.check}": given.rate for side, given in audit.sides()}
    for item in population.items:
        group = group_of(audit, item)
        u = audit_value(audit.salt, group) if item.audit else 1.0
        for certificate in certificates.certificates:
            # What only another side's higher rate has drawn is no uniform sample of this one.
            if u < rates.get(certificate.action, 0.0) and decides(policy, certificate, item):
                yield {
                    "item_id": item.item_id,
                    "uri": item.uri,
                    "content_hash": item.content_hash,
                    "group": group,
                    "action": certificate.name,
                    "certificate": certificate_key(certificates, certificate.name),
                }


def decides(policy: Policy, certificate: Certificate, item: JudgedItem) -> bool:
    """Whether a certificate covers the decision on an item: its score is beyond the certified threshold, and no list
    decided. Another check may have decided, too: the zone of a certificate holds such items as well."""
    if not _is_of(policy, certificate, item) or item.verdict != certificate.side:
        return False
    stage, _, rest = item.reason.partition(":")
    if certificate.side == "block":
        return stage == "negative"
    if policy.checks[certificate.check].side == "negative":
        return stage != "list"
    return stage == "positive" and rest.partition(":")[0] == certificate.check


def _is_of(policy: Policy, certificate: Certificate, item: JudgedItem) -> bool:
    """Whether an item's attributes select the threshold that a certificate is of, and its score is beyond it."""
    check, score = policy.checks[certificate.check], item.scores[certificate.check]
    falls = certificate.side == "pass" and check.side == "negative"
    fits = [
        (a, v)
        for a, v in values_with(check, "review" if falls else certificate.side)
        if v in attribute_values(item.attributes.get(a))
    ]
    named = (certificate.attribute, certificate.value) in fits if certificate.attribute is not None else not fits
    if not named or score is None:
        return False
    over = bool(np.float32(score) >= np.float32(certificate.threshold))
    return over is not falls


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorReport:
    """What a night's labels said of one certificate. wealth: the highest so far; ended: why it no longer holds."""

    action: str
    labels: int
    errors: int
    new: int
    wealth: float
    ended: str | None


def hold_labels(
    home: str,
    labels_uri: str,
    policy: Policy,
    certificates: CertificateSet,
    words: LabelWords | None = None,
) -> tuple[MonitorReport, ...]:
    """Bet on the settled audit label of every drawn group without a bet; returns a report for each certificate.

    Raises UsageError.
    """
    state = read_state(home)
    labels = resolve_labels(read_labels(labels_uri))
    meaning = meaning_of(policy, labels, words or LabelWords())
    drawn = list(_read_drawn(home, state.nights))
    monitors, ended, reports, refused = dict(state.monitors), dict(state.ended), [], []
    for certificate in certificates.certificates:
        key = certificate_key(certificates, certificate.name)
        before = monitors.get(key)
        if before is None or (before.reads_unnamed and certificate.method != "binomial"):
            # Of those from before rows named a certificate, labels were not weighed, and groups not bet on whole.
            before = CertificateMonitor(wealth=MonitorWealth(), reads_unnamed=False)
        # What an earlier certificate let the machine decide says nothing of this one. Tables of version 1 do not tell;
        # they count for monitors that began when there were no others.
        keys = (key, None) if before.reads_unnamed else (key,)
        own = (row for row in drawn if row["action"] == certificate.name and row["certificate"] in keys)
        labelled = ((row, settled_label(row, labels, certificates.rule)) for row in own)
        try:
            monitors[key] = bet_on_labels(before, labelled, certificate, meaning)
        except UsageError as error:
            refused.append(str(error))  # the other certificates are held against theirs all the same
            continue
        wealth = monitors[key].wealth
        if wealth.alarmed and key not in ended:
            ended[key] = _alarm_text(certificate, wealth)
        reports.append(_report(certificate, wealth, wealth.labels - before.wealth.labels, ended.get(key)))
    _write_state(home, replace(state, monitors=monitors, ended=ended))
    if refused:
        raise UsageError("\n".join(refused))
    return tuple(reports)


def _alarm_text(certificate: Certificate, wealth: MonitorWealth) -> str:
    return (
        f"the monitor ended it: {wealth.errors:,} of {wealth.labels:,} new audit labels are errors,"
        f" {certificate.allowed:.2%} are allowed"
    )


def _report(certificate: Certificate, wealth: MonitorWealth, new: int, ended: str | None) -> MonitorReport:
    return MonitorReport(
        action=certificate.name,
        labels=wealth.labels,
        errors=wealth.errors,
        new=new,
        wealth=min(wealth.highest, ALARM),
        ended=ended,
    )


def _read_drawn(home: str, nights: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Drawn rows, by night and then by group: an order that does not depend on labels."""
    for night in nights:
        data = storage.read_optional(monitor_uri(home, f"drawn-{night}.parquet"))
        if data is None or len(data) > _MAX_BYTES:
            continue
        rows = pq.read_table(io.BytesIO(data), schema=DRAWN_SCHEMA).to_pylist()
        yield from sorted(rows, key=lambda row: (str(row["group"]), str(row["item_id"])))


def _write_state(home: str, state: MonitorState) -> None:
    storage.publish(monitor_uri(home, WEALTH_FILE), json.dumps(asdict(state), indent=1, sort_keys=True).encode())
