"""Claims on a lease: one small file each, written by whoever wants or holds it, read by all.

Anybody may write such files: one that is not a well-formed claim is ignored, and so is one that would last longer than
any lease does. A claim ends when its process is known to have ended (on this machine).
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from moderation import storage

# No lease lasts longer: a claim until the year 9999 would keep every night from starting.
MAX_LEASE_S: Final = 3600.0
CLAIMS_FOLDER: Final = "lease"
_TOKEN = re.compile(r"[0-9A-Za-z_-]{1,64}")
_START_TICKS = 19  # field of /proc/PID/stat, counted after the name in brackets
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseClaim:
    """Who wants or holds (`holding`) a lease. started, expires: unix seconds of its host's clock.

    process: the machine's boot and the process's start; empty where unknown.
    """

    token: str
    host: str
    pid: int
    started: float
    expires: float
    holding: bool = False
    process: str = ""


def read_claims(home: str, *, below: bool = False) -> list[LeaseClaim]:
    """All claims on a lease, dead ones too, oldest first. below: also those of leases that lie below this one."""
    top = storage.canonical(storage.join(home, CLAIMS_FOLDER)).rstrip("/") + "/"
    try:
        listed = [info.uri for info in storage.list_objects(top.rstrip("/"))]
    except FileNotFoundError:
        return []
    names = {uri: uri.rsplit("/", 1)[-1] for uri in listed if below or "/" not in uri.removeprefix(top)}
    named = {uri: name.removesuffix(".json") for uri, name in names.items() if name.endswith(".json")}
    claims = (_read_claim(uri, token) for uri, token in named.items() if _TOKEN.fullmatch(token))
    return sorted((c for c in claims if c is not None), key=lambda claim: claim.started)


def write_claim(home: str, claim: LeaseClaim) -> None:
    """Raises FatalError, StorageError."""
    storage.publish(_uri(home, claim), json.dumps(asdict(claim), indent=1).encode())


def withdraw_claim(home: str, claim: LeaseClaim) -> None:
    """Remove a claim, and the folders that it leaves empty."""
    storage.delete_tree(_uri(home, claim))
    storage.delete_empty_folder(storage.join(home, CLAIMS_FOLDER))


def live_claims(claims: list[LeaseClaim]) -> list[LeaseClaim]:
    """Those that have not ended."""
    now_s = time.time()
    return [claim for claim in claims if claim.expires > now_s and not has_ended(claim)]


def find_holder(claims: list[LeaseClaim]) -> LeaseClaim | None:
    """Which of these claims holds the lease now; None where none does."""
    return next((claim for claim in live_claims(claims) if claim.holding), None)


def is_out_of_sight(claim: LeaseClaim) -> bool:
    """Whether nobody here can see if the process of a claim is still there: it runs on another machine."""
    machine = claim.process.rpartition("/")[0]
    return not machine or machine != _machine()


def describe(claim: LeaseClaim) -> str:
    """A claim in words."""
    return f"process {claim.pid} on {claim.host}, since {_clock(claim.started)}, until {_clock(claim.expires)}"


def this_process() -> str:
    """This boot of this machine, and the start of this process; empty where the kernel does not tell."""
    machine, start = _machine(), _process_start(os.getpid())
    return f"{machine}/{start}" if machine and start else ""


def has_ended(claim: LeaseClaim) -> bool:
    """Whether the process of a claim is seen to be gone: it was one of this machine."""
    machine, _, start = claim.process.rpartition("/")
    return bool(machine) and machine == _machine() and _process_start(claim.pid) != start


def _machine() -> str:
    """The machine's boot, and the PID namespace: processes in it see each other."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        return f"{boot}/{namespace}"
    return ""


def _process_start(pid: int) -> str:
    """When a process of this machine started, by the kernel's clock; empty where it is gone."""
    with suppress(OSError, IndexError):
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if facts[0] in "ZX" else facts[_START_TICKS]
    return ""


def _read_claim(uri: str, token: str) -> LeaseClaim | None:
    data = storage.read_optional(uri)
    claim = None if data is None else _parse(data)
    # A claim is deleted by its token: one that states another than its file's name could have any file deleted.
    if claim is None or claim.token != token:
        if data is not None:
            _LOG.warning("%s: not readable as a claim on a lease; it counts as none", uri)
        return None
    if claim.expires > time.time() + 2 * MAX_LEASE_S:
        _LOG.warning("%s: would last longer than any lease does; it counts as none", uri)
        return None
    return claim


def _parse(data: bytes) -> LeaseClaim | None:
    try:
        record = json.loads(data)
        claim = LeaseClaim(**{f.name: record[f.name] for f in fields(LeaseClaim) if f.name in record})
        return claim if _is_sound(claim) else None
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _is_sound(claim: LeaseClaim) -> bool:
    texts = isinstance(claim.token, str) and isinstance(claim.host, str) and isinstance(claim.process, str)
    times = (claim.started, claim.expires)
    if not texts or type(claim.pid) is not int or not isinstance(claim.holding, bool):
        return False
    # Unix times that `datetime` can hold.
    return all(type(t) in (int, float) and math.isfinite(t) and 0 <= t < 2**36 for t in times)


def _uri(home: str, claim: LeaseClaim) -> str:
    return storage.join(home, CLAIMS_FOLDER, f"{claim.token}.json")


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
