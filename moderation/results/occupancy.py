"""The lease on OUT: one job at a time writes there; slices of one OUT may run at the same time.

OUT/lease/<token>.json                     of a job that has all of OUT: a backfill, `--fresh`, a repair, a merge
OUT/lease/slices/3-of-8/lease/<token>.json  of one slice
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moderation import storage
from moderation.planning.slices import Slice
from moderation.storage.claims import CLAIMS_FOLDER
from moderation.storage.lease import LEASE_S, Lease, hold_lease

_SLICES = "slices"


@contextmanager
def occupy(
    out: str, part: Slice | None = None, on_lost: Callable[[], None] = lambda: None, *, wait: bool = False
) -> Iterator[Lease]:
    """Hold the lease on OUT, or on a slice of it, for the length of a block. on_lost: called by another thread.

    wait: as in `hold_lease`.
    Raises LeaseHeldError naming the job that writes there, FatalError where OUT cannot be written, StorageError.
    """
    out = storage.canonical(out).rstrip("/")
    folder = storage.join(out, CLAIMS_FOLDER, _SLICES)
    home = out if part is None else storage.join(folder, f"{part.index}-of-{part.count}")
    try:
        with hold_lease(home, LEASE_S, on_lost, job="job", above=None if part is None else out, wait=wait) as lease:
            yield lease
    finally:
        if part is not None:
            for left in (home, folder, storage.join(out, CLAIMS_FOLDER)):
                storage.delete_empty_folder(left)
