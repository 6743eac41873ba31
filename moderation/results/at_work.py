"""Whether a job is at work on a run, by the lease that it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from moderation.errors import ModerationError
from moderation.results.layout import run_of_extension
from moderation.storage.claims import describe, find_holder, has_ended, read_claims
from moderation.storage.lease import LEASE_S

# A run that is just ending has given up its lease after its state was read.
_ENDING_S: Final = 10.0


def find_job(out: str, records: Iterable[Mapping[str, Any] | None], *, running: bool) -> tuple[str | None, float]:
    """Who holds the lease on the run in OUT, in words, and after how many seconds without a commit it counts as dead.

    Clocks of hosts differ: what was committed just now tells more than a lease that seems to have ended. Reads only.
    records: of the run and its slices. running: whether one of them says so; else nobody is looked for.
    """
    record = next((record for record in records if record is not None), {})
    if not running or record.get("votes_of"):
        return None, math.inf  # a rejudge takes no lease
    try:
        claims = read_claims(_home_of_lease(out, record), below=True)
    except (ModerationError, OSError):
        return None, math.inf  # whoever asks may not read it
    holder = find_holder(claims)
    if holder is not None:
        return describe(holder), math.inf
    if not claims:
        return None, _ENDING_S
    return None, 0.0 if any(map(has_ended, claims)) else LEASE_S


def _home_of_lease(out: str, record: Mapping[str, Any]) -> str:
    """A night is led by the lease on its ledger, an extension by that of its run."""
    identity = record.get("identity")
    ledger = identity.get("ledger") if isinstance(identity, Mapping) else None
    return ledger if isinstance(ledger, str) else run_of_extension(out) or out
