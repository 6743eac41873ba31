"""Names of the plan in OUT, and of what each slice keeps for itself. The other names of OUT are in `results.layout`."""

from __future__ import annotations

from typing import Final

from moderation import storage

PLAN_FILE: Final = "plan.parquet"
PLAN_FOLDER: Final = "plan"  # chunks, while listing goes on
SLICES_FOLDER: Final = "slices"
LISTING_FILE: Final = "listing.json"


def plan_uri(home: str) -> str:
    """The finished plan. home: OUT, or the folder of a slice in it."""
    return storage.join(home, PLAN_FILE)


def plan_folder(home: str) -> str:
    """The chunks of a plan while listing goes on."""
    return storage.join(home, PLAN_FOLDER)


def chunk_uri(home: str, index: int) -> str:
    """One chunk of the plan."""
    return storage.join(plan_folder(home), f"chunk-{index:06d}.parquet")


def slices_folder(out: str) -> str:
    """The folders of all slices."""
    return storage.join(out, SLICES_FOLDER)


def listing_uri(home: str) -> str:
    """What the listing of a slice saw."""
    return storage.join(home, LISTING_FILE)
