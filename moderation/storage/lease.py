"""A lease on a ledger: one nightly job at a time; the lease of a dead job ends by itself.

    LEDGER/lease/<token>.json   who wants or holds the lease, and until when

Each job writes a claim of its own, then lists all claims. A job that sees no other live claim holds the lease; one
that sees another withdraws. Of two at the same moment, the one that lists last sees both claims: never do both hold the
lease, however long a write takes. A store need not refuse to overwrite (few do), but a listing has to show what was
written before it (local files, S3, GCS and Azure do). A holder renews its claim every third of the lease, and gives up
when it finds another holder. Hosts' clocks have to agree to a fraction of the lease.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from moderation import storage
from moderation.errors import FatalError, one_line

LEASE_S = 120.0
MIN_LEASE_S = 1.0
# Jobs that start in the same moment all withdraw, and come back after waits of different lengths.
_MAX_ATTEMPTS = 6
_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseClaim:
    """Who wants or holds (`holding`) a lease. started, expires: unix seconds of its host's clock."""

    token: str
    host: str
    pid: int
    started: float
    expires: float
    holding: bool = False


class LeaseHeldError(FatalError):
    """Somebody else holds the lease; nothing was started."""


class Lease:
    """A lease that is held, and renewed by a thread until it is released."""

    def __init__(self, ledger: str, claim: LeaseClaim, lease_s: float, on_lost: Callable[[], None]) -> None:
        self._ledger = ledger
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
            raise FatalError(f"the lease on {self._ledger} was lost: {self._lost}")

    def release(self) -> None:
        """Stop renewing and remove the claim."""
        self._released.set()
        self._thread.join(timeout=self._lease_s)
        _withdraw(self._ledger, self._claim)

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
            return claim, f"it can't be renewed: {_one_line(error)}" if time.time() >= claim.expires else ""

    def _extend(self, claim: LeaseClaim) -> tuple[LeaseClaim, str]:
        # A process that was stopped for long, or starved, asks again as if it came anew.
        ended = time.time() >= claim.expires
        renewed = replace(claim, holding=not ended, expires=time.time() + self._lease_s)
        _write(self._ledger, renewed)
        others = [c for c in _alive(read_claims(self._ledger)) if c.token != claim.token]
        # A job that only asks will see our claim; one that came while our lease was over may not have seen it.
        taken = [c for c in others if c.holding or ended]
        if taken:
            return renewed, f"taken by {describe(taken[0])}"
        if ended:
            _write(self._ledger, replace(renewed, holding=True))
        return renewed, ""


@contextmanager
def hold_lease(ledger: str, lease_s: float = LEASE_S, on_lost: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Hold the lease on a ledger for the length of a block. on_lost: called by another thread.

    Raises LeaseHeldError naming the holder, FatalError where the ledger can't be written, StorageError.
    """
    lease_s = max(lease_s, MIN_LEASE_S)
    lease = Lease(ledger, _acquire(ledger, lease_s), lease_s, on_lost)
    try:
        yield lease
    finally:
        lease.release()


def read_claims(ledger: str) -> list[LeaseClaim]:
    """All claims on a ledger, dead ones too, oldest first. What can't be read as a claim counts as none."""
    try:
        listed = [info.uri for info in storage.list_objects(storage.join(ledger, "lease"))]
    except FileNotFoundError:
        return []
    names = {uri: uri.rsplit("/", 1)[-1] for uri in listed}
    named = [uri for uri, name in names.items() if name.endswith(".json") and not name.startswith(".")]
    claims = (_decode(storage.read_optional(uri)) for uri in named)
    return sorted((c for c in claims if c is not None), key=lambda claim: claim.started)


def describe(claim: LeaseClaim) -> str:
    """A claim in words."""
    return f"process {claim.pid} on {claim.host}, since {_clock(claim.started)}, until {_clock(claim.expires)}"


def _acquire(ledger: str, lease_s: float) -> LeaseClaim:
    for attempt in range(_MAX_ATTEMPTS):
        now = time.time()
        token = f"{random.SystemRandom().getrandbits(64):016x}"
        claim = LeaseClaim(token=token, host=socket.gethostname(), pid=os.getpid(), started=now, expires=now + lease_s)
        _write(ledger, claim)
        try:
            others = [other for other in read_claims(ledger) if other.token != token]
            alive = _alive(others)
            if not alive:
                claim = replace(claim, holding=True, expires=time.time() + lease_s)
                _write(ledger, claim)
                for dead in others:
                    _withdraw(ledger, dead)
                return claim
        except BaseException:
            _withdraw(ledger, claim)
            raise
        _withdraw(ledger, claim)
        holder = next((other for other in alive if other.holding), None)
        if holder is not None:
            left_s = max(0, round(holder.expires - time.time()))
            raise LeaseHeldError(
                f"{ledger}: another nightly job holds the lease: {describe(holder)}"
                f" (ends in {left_s} s unless it is renewed). Nothing was started"
            )
        time.sleep(random.uniform(0, _WAIT_S * 2**attempt))
    raise LeaseHeldError(f"{ledger}: other nightly jobs are starting: {describe(alive[0])}. Nothing was started")


def _alive(claims: list[LeaseClaim]) -> list[LeaseClaim]:
    now = time.time()
    return [claim for claim in claims if claim.expires > now]


def _uri(ledger: str, claim: LeaseClaim) -> str:
    return storage.join(ledger, "lease", f"{claim.token}.json")


def _write(ledger: str, claim: LeaseClaim) -> None:
    storage.publish(_uri(ledger, claim), json.dumps(asdict(claim), indent=1).encode())


def _withdraw(ledger: str, claim: LeaseClaim) -> None:
    storage.delete_tree(_uri(ledger, claim))


def _decode(data: bytes | None) -> LeaseClaim | None:
    if data is None:
        return None
    try:
        return LeaseClaim(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _one_line(error: Exception) -> str:
    return one_line(error)
