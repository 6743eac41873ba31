"""The version of this package; every part that a run writes names it."""

__version__ = "0.1.0"

# Of the tables and the plan. 2: votes have role, parent and box.
SCHEMA_VERSION = "2"
