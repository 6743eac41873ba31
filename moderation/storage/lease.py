"""A lease on a ledger or an OUT: one job at a time; the lease of a dead job ends by itself.

    HOME/lease/<token>.json   who wants or holds the lease, and until when

Each job writes a claim of its own, then lists all claims. A job that sees no other live claim holds the lease; one
that sees another withdraws. Of two that start at once, the one that lists last sees both claims, so they never both
hold the lease, however long a write takes. A store need not refuse to overwrite (few do), but its listings have to show
what was written before (local files, S3, GCS and Azure do). A holder renews its claim every third of the lease, and
gives up when it finds another holder. Hosts' clocks have to agree to a fraction of the lease.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from moderation import storage
from moderation.errors import FatalError, one_line
from moderation.storage.claims import (
    CLAIMS_FOLDER,
    MAX_LEASE_S,
    LeaseClaim,
    describe,
    find_holder,
    is_out_of_sight,
    live_claims,
    read_claims,
    this_process,
    withdraw_claim,
    write_claim,
)

__all__ = [
    "LEASE_S",
    "MAX_LEASE_S",
    "MIN_LEASE_S",
    "Lease",
    "LeaseClaim",
    "LeaseHeldError",
    "hold_lease",
    "read_claims",
]

LEASE_S = 120.0
MIN_LEASE_S = 1.0
# Jobs that start at the same moment all withdraw, and try again after waits of different lengths.
_MAX_ATTEMPTS = 6
_WAIT_S = 0.5
# A claim is renewed every third of its lease, so a live holder shows it within 40 s. A longer lease (`--lease-s`)
# is not waited for.
_MAX_WAIT_S = LEASE_S + 5
_POLL_S = 2.0
_LOG = logging.getLogger(__name__)


class LeaseHeldError(FatalError):
    """Somebody else holds the lease; nothing was started."""


class Lease:
    """A lease that is held, and renewed by a thread until it is released."""

    def __init__(self, home: str, claim: LeaseClaim, lease_s: float, on_lost: Callable[[], None]) -> None:
        self._home = home
        self._claim = claim
        self._lease_s = lease_s
        self._on_lost = on_lost
        self._lost = ""
        self._released = threading.Event()
        # A daemon: storage that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises FatalError when the lease was lost."""
        if self._lost:
            raise FatalError(f"the lease on {self._home} was lost: {self._lost}")

    def release(self) -> None:
        """Stop renewing and remove the claim."""
        self._released.set()
        self._thread.join(timeout=self._lease_s)
        withdraw_claim(self._home, self._claim)

    def _renew(self) -> None:
        claim = self._claim
        while not self._released.wait(self._lease_s / 3) and not self._lost:
            claim, why_lost = self._renew_once(claim)
            if why_lost and not self._released.is_set():
                self._lost = why_lost
                self._on_lost()

    def _renew_once(self, claim: LeaseClaim) -> tuple[LeaseClaim, str]:
        """The claim as it is now, and why the lease is lost ("" while it is held)."""
        try:
            return self._extend(claim)
        except (OSError, storage.StorageError, FatalError) as error:
            # Storage may come back before the lease ends.
            return claim, f"it can't be renewed: {one_line(error)}" if time.time() >= claim.expires else ""

    def _extend(self, claim: LeaseClaim) -> tuple[LeaseClaim, str]:
        # A process that was suspended or starved past its lease asks again like a new one.
        ended = time.time() >= claim.expires
        renewed = replace(claim, holding=not ended, expires=time.time() + self._lease_s)
        write_claim(self._home, renewed)
        others = [c for c in live_claims(read_claims(self._home)) if c.token != claim.token]
        # A job that does not hold yet will see our claim, unless it came while our lease was over.
        taken = [c for c in others if c.holding or ended]
        if taken:
            return renewed, f"taken by {describe(taken[0])}"
        if ended:
            write_claim(self._home, replace(renewed, holding=True))
        return renewed, ""


@contextmanager
def hold_lease(
    home: str,
    lease_s: float = LEASE_S,
    on_lost: Callable[[], None] = lambda: None,
    *,
    job: str = "nightly job",
    above: str | None = None,
    wait: bool = False,
) -> Iterator[Lease]:
    """Hold the lease on a ledger or an OUT for the length of a block. on_lost: called by another thread.

    Leases below `home` exclude this one. job: what to call a holder. above: a lease that excludes this one, too.
    wait: where a holder on another machine may have died, wait until it renews its claim or the claim ends, so that
    the retry of a killed job is not refused because of itself.
    Raises LeaseHeldError naming the holder, FatalError where the claim can't be written, StorageError.
    """
    lease_s = min(max(lease_s, MIN_LEASE_S), MAX_LEASE_S)
    was_there = storage.scheme_of(home) != "file" or storage.is_folder(home)
    lease = Lease(home, _acquire(home, lease_s, job, above, wait=wait), lease_s, on_lost)
    try:
        yield lease
    finally:
        lease.release()
        # A refused job leaves no folder where there was none.
        for folder in () if was_there else (storage.join(home, CLAIMS_FOLDER), home):
            storage.delete_empty_folder(folder)


def _acquire(home: str, lease_s: float, job: str, above: str | None, *, wait: bool) -> LeaseClaim:
    alive: list[LeaseClaim] = []
    for attempt in range(_MAX_ATTEMPTS):
        claim = _new_claim(lease_s)
        write_claim(home, claim)
        try:
            own = read_claims(home)
            alive = live_claims(_rivals(home, claim, above))
            if not alive:
                return _take(home, claim, own, lease_s)
        except BaseException:
            withdraw_claim(home, claim)
            raise
        withdraw_claim(home, claim)
        holder = find_holder(alive)
        if holder is None:
            time.sleep(random.uniform(0, _WAIT_S * 2**attempt))
        elif not wait or not _has_died(home, claim, above, holder):
            raise LeaseHeldError(_describe_held(home, job, holder))
    raise LeaseHeldError(f"{home}: other {job}s are starting: {describe(alive[0])}. Nothing was started")


def _take(home: str, claim: LeaseClaim, own: list[LeaseClaim], lease_s: float) -> LeaseClaim:
    """Make a claim that of the holder, and remove the other ones of this lease, which have ended."""
    held = replace(claim, holding=True, expires=time.time() + lease_s)
    write_claim(home, held)
    for dead in own:
        if dead.token != claim.token:
            withdraw_claim(home, dead)
    return held


def _new_claim(lease_s: float) -> LeaseClaim:
    now = time.time()
    return LeaseClaim(
        token=f"{random.SystemRandom().getrandbits(64):016x}",
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now,
        expires=now + lease_s,
        process=this_process(),
    )


def _rivals(home: str, claim: LeaseClaim, above: str | None) -> list[LeaseClaim]:
    """All claims that exclude this one."""
    others = read_claims(home, below=True) + ([] if above is None else read_claims(above))
    return [other for other in others if other.token != claim.token]


def _has_died(home: str, claim: LeaseClaim, above: str | None, holder: LeaseClaim) -> bool:
    """Wait until a holder gives its lease up, lets it end, or renews it. False: it is alive, or its lease ends late."""
    left_s = holder.expires - time.time()
    if not is_out_of_sight(holder) or left_s > _MAX_WAIT_S:
        return False
    _LOG.warning("%s: waiting for at most %.0f s, because its holder may have died: %s", home, left_s, describe(holder))
    while (left_s := holder.expires - time.time()) > 0:
        time.sleep(min(left_s + 0.05, _POLL_S))
        now = next((other for other in _rivals(home, claim, above) if other.token == holder.token), None)
        if now is None:
            return True
        if now.expires > holder.expires:
            return False
    return True


def _describe_held(home: str, job: str, holder: LeaseClaim) -> str:
    left_s = max(0, round(holder.expires - time.time()))
    return (
        f"{home}: another {job} holds the lease: {describe(holder)}"
        f" (ends in {left_s} s unless it is renewed). Nothing was started"
    )
