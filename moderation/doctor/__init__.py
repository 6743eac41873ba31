"""Is everything here that a run needs, and what to do about what is not."""

from moderation.doctor.diagnosis import diagnose
from moderation.doctor.findings import Finding, FindingStatus, findings_as_json, render_findings

__all__ = ["Finding", "FindingStatus", "diagnose", "findings_as_json", "render_findings"]
