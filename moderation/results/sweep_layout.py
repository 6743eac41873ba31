"""Every name of a sweep, and of what nights learn; the others are in `results.layout`.

TO/sweep.json  TO/changes/     of `moderation sweep`: the record, and the verdicts that change; TO is never OUT
OUT/sweeps/  OUT/lists/        in the folder of all nights: what new decisions changed, and which were applied
"""

from __future__ import annotations

from typing import Final

from moderation import storage

SWEEP_FILE: Final = "sweep.json"  # in the folder of a sweep, which is never OUT
CHANGES_FOLDER: Final = "changes"  # in the folder of a sweep: the verdicts that change
SWEEPS_FOLDER: Final = "sweeps"  # in the folder of all nights: what new decisions changed
LISTS_FOLDER: Final = "lists"  # in the folder of all nights: what decisions have taught
SWEPT_FILE: Final = "swept.json"


def swept_decisions_uri(home: str) -> str:
    """Which decisions the sweeps of nights have applied. home: the folder that holds the nights."""
    return storage.join(home, LISTS_FOLDER, SWEPT_FILE)


def night_sweep(home: str, night: str) -> str:
    """What the decisions that a night has learned of changed. home: the folder that holds the nights."""
    return storage.join(home, SWEEPS_FOLDER, night)


def sweeps_folder(home: str) -> str:
    """The sweeps of all nights."""
    return storage.join(home, SWEEPS_FOLDER)


def sweep_uri(to: str) -> str:
    """The record of a sweep."""
    return storage.join(to, SWEEP_FILE)


def changes_uri(to: str, portion: int) -> str:
    """The changed verdicts of a portion of a sweep."""
    return storage.join(to, CHANGES_FOLDER, f"part-{portion:06d}.arrow")


def changes_folder(to: str) -> str:
    """All changed verdicts of a sweep."""
    return storage.join(to, CHANGES_FOLDER)
