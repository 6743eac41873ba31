"""Names in OUT of the plan and of a slice's own files. The other names of OUT are in `results.layout`."""

from __future__ import annotations

from typing import Final

from moderation import storage

PLAN_FILE: Final = "plan.parquet"
PLAN_FOLDER: Final = "plan"  # chunks, until listing ends
SLICES_FOLDER: Final = "slices"
LISTING_FILE: Final = "listing.json"


def plan_uri(home: str) -> str:
    """URI of the finished plan. home: OUT, or the folder of a slice in it."""
    return storage.join(home, PLAN_FILE)


def plan_folder(home: str) -> str:
    """Folder of the plan's chunks, until listing ends."""
    return storage.join(home, PLAN_FOLDER)


def chunk_uri(home: str, index: int) -> str:
    """URI of one chunk of the plan."""
    return storage.join(plan_folder(home), f"chunk-{index:06d}.parquet")


def slices_folder(out: str) -> str:
    """Folder that holds the folders of all slices."""
    return storage.join(out, SLICES_FOLDER)


def listing_uri(home: str) -> str:
    """URI of the record of a slice's listing."""
    return storage.join(home, LISTING_FILE)
