"""Names in OUT of what people decide: OUT/decisions/ and OUT/review/."""

from __future__ import annotations

from typing import Final

from moderation import storage

DECISIONS_FOLDER: Final = "decisions"
DECISIONS_HEAD_FILE: Final = "head.json"
REVIEW_FOLDER: Final = "review"
CLAIMS_FILE: Final = "claims.json"
APPEALS_FILE: Final = "appeals.jsonl"


def decisions_folder(out: str) -> str:
    """What reviewers decided."""
    return storage.join(out, DECISIONS_FOLDER)


def decisions_head_uri(out: str) -> str:
    """Which part of the decisions was the last to be acknowledged."""
    return storage.join(out, DECISIONS_FOLDER, DECISIONS_HEAD_FILE)


def decisions_part_uri(out: str, name: str) -> str:
    """A part of the decisions; its name is of `labels.decision_parts`."""
    return storage.join(out, DECISIONS_FOLDER, name)


def claims_uri(out: str) -> str:
    """Which reviewer holds which items."""
    return storage.join(out, REVIEW_FOLDER, CLAIMS_FILE)


def appeals_uri(out: str) -> str:
    """Requests to look again at decided items."""
    return storage.join(out, REVIEW_FOLDER, APPEALS_FILE)
