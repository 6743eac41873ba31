"""What a night looks at besides its items: new labels against certificates, and its scores against a reference.

A failed look does not stop a night; its report says what could not be looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from moderation.config.model import Config
from moderation.errors import ModerationError, one_line
from moderation.evaluation.drift import ScoreDrift, compare_runs, describe_drift
from moderation.evaluation.evaluate import LabelWords
from moderation.evaluation.monitor import MonitorReport, ended_actions, hold_labels, note_night
from moderation.policy.certified import CertificateSet
from moderation.policy.model import Policy
from moderation.results.certificates import certificates_path, read_certificates, write_certificates

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightWatch:
    """What new labels said of the certificates. ended: action -> why, with earlier nights'. notes: what went wrong."""

    reports: tuple[MonitorReport, ...] = ()
    ended: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def begin_watch(home: str, config: Config, policy: Policy) -> NightWatch:
    """Hold new audit labels against the certificates before tonight relies on them. home: the folder of all nights.

    Raises UsageError where the certificates or the monitor's state cannot be read: an alarm must not be lost. Labels
    that cannot be read give a note.
    """
    file = certificates_path(config.policy)
    certificates = read_certificates(file)
    if certificates is None:
        return NightWatch()
    reports: tuple[MonitorReport, ...] = ()
    notes: tuple[str, ...] = ()
    monitor = config.monitor
    if monitor.labels is not None:
        words = LabelWords(bad=monitor.bad, means=monitor.means)
        try:
            reports = hold_labels(home, monitor.labels, policy, certificates, words)
        except (ModerationError, OSError) as error:
            notes = (f"certificates were not held against new labels: {one_line(error, 500)}",)
    ended = ended_actions(home, certificates)
    return NightWatch(reports=reports, ended=ended, notes=(*notes, *_end_in_file(file, certificates, ended)))


def _end_in_file(file: str, certificates: CertificateSet, ended: Mapping[str, str]) -> tuple[str, ...]:
    """Note in the file beside the policy what has ended, for jobs that do not know this folder of nights; the failure
    to do so, as a note."""
    if not ended.keys() - certificates.ended.keys():
        return ()
    try:
        # Another set may have been issued meanwhile; that one has not ended.
        if read_certificates(file) == certificates:
            write_certificates(file, replace(certificates, ended={**certificates.ended, **ended}))
    except (ModerationError, OSError) as error:
        return (f"{file}: does not say that a certificate has ended, so other jobs hold it: {one_line(error, 300)}",)
    return ()


def remember_night(home: str, night: str, out: str, config: Config, policy: Policy) -> None:
    """Keep what a finished night drew, so that later labels can be held against it; on failure, log a warning."""
    try:
        note_night(home, night, out, policy, read_certificates(certificates_path(config.policy)))
    except (ModerationError, OSError) as error:
        _LOG.warning("%s: what it drew was not noted, so its labels will say nothing: %s", out, one_line(error, 500))


def watch_scores(out: str, config: Config) -> tuple[tuple[ScoreDrift, ...], tuple[str, ...]]:
    """(how the scores of OUT differ from the reference's, notes on what could not be compared)."""
    if config.monitor.reference is None:
        return (), ()
    try:
        return compare_runs(config.monitor.reference, out), ()
    except (ModerationError, OSError) as error:
        return (), (f"scores were not compared with {config.monitor.reference}: {one_line(error, 500)}",)


def monitoring_facts(watch: NightWatch, drifts: Sequence[ScoreDrift], notes: Sequence[str]) -> dict[str, Any] | None:
    """For `summary.json`: the certificates, the scores that changed, and in `reasons` what a person must know."""
    changed = [asdict(drift) for drift in drifts if drift.state != "stable"]
    ended = [f"certificate ended: {action}: {reason}" for action, reason in watch.ended.items()]
    reasons = [*ended, *describe_drift(drifts), *watch.notes, *notes]
    if not (watch.reports or drifts or reasons):
        return None
    return {
        "certificates": [asdict(report) for report in watch.reports],
        "scores_compared": len(drifts),
        "scores_changed": changed,
        "reasons": reasons,
    }
