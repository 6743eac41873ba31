"""Checks that this machine has all that a run needs, and says how to get what is missing."""

from moderation.doctor.diagnosis import diagnose
from moderation.doctor.findings import Finding, FindingStatus, findings_as_json, render_findings

__all__ = ["Finding", "FindingStatus", "diagnose", "findings_as_json", "render_findings"]
