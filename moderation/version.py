"""The version of this package; every part that a run writes names it."""

__version__ = "0.1.0"

# Of the tables and the plan. 2: votes have role, parent and box. 3: verdicts have unseen and reader.
# 4: verdicts have threshold, severity, label, reason_text, segments and audit. 5: verdicts have review_rank.
SCHEMA_VERSION = "5"
