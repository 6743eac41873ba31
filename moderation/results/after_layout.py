"""Names in OUT of what comes after the verdicts; the others are in `results.layout`.

OUT/actions/part-*.arrow                     receipts of what `moderation act` did to objects, appended only
OUT/escalations/part-<shard>.arrow           matches with an illegal list: see `results.escalations`
OUT/escalations/told/                        which parts of them were handed on

Starting over removes none of them: what was done to objects, and what has to be reported, stays known.
"""

from __future__ import annotations

from typing import Final

from moderation import storage

ACTIONS_FOLDER: Final = "actions"
ESCALATIONS_FOLDER: Final = "escalations"
_TOLD_FOLDER: Final = "told"


def actions_folder(out: str) -> str:
    """Receipts of what was done to objects."""
    return storage.join(out, ACTIONS_FOLDER)


def actions_part_uri(out: str, name: str) -> str:
    """A part of the receipts of actions; its name is of `actions.journal`."""
    return storage.join(out, ACTIONS_FOLDER, name)


def escalations_folder(out: str) -> str:
    """Matches with an illegal list."""
    return storage.join(out, ESCALATIONS_FOLDER)


def escalations_told_uri(out: str, name: str) -> str:
    """The receipt that a part of the escalations was handed on."""
    return storage.join(out, ESCALATIONS_FOLDER, _TOLD_FOLDER, f"{name}.json")


def escalations_part_uri(out: str, name: str) -> str:
    """A part of the escalations; its name is of `results.escalations`."""
    return storage.join(out, ESCALATIONS_FOLDER, name)
