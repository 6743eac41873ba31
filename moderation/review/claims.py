"""Claims: which reviewer holds which items, and until when; so that two never get the same one.

One server holds them in memory and writes OUT/review/claims.json whenever one is made, so that a server that is started
again knows who holds what.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.results.review_layout import claims_uri
from moderation.review.items import Stage

_MAX_BYTES: Final = 64 << 20
# Lengths of a claim for which an ended one is remembered: what a page sends late still counts if nobody took the item.
_KEPT: Final = 10


@dataclass(slots=True, kw_only=True)
class ItemClaim:
    """A reviewer's hold on a few items. items: item id -> why it was handed out. expires_s: Unix seconds."""

    claim: str
    reviewer: str
    expires_s: float
    items: dict[str, Stage] = field(default_factory=dict)


class ClaimBook:
    """All claims of an OUT. Times are Unix seconds of one clock, given by the caller. Not for several threads."""

    def __init__(self, out: str, claim_s: float, now_s: float) -> None:
        self._uri = claims_uri(out)
        self._claim_s = claim_s
        self._claims = {claim.claim: claim for claim in _read(self._uri, now_s - _KEPT * claim_s, now_s + claim_s)}
        self._holder = {item: claim.claim for claim in self._claims.values() for item in claim.items}
        self._saved_s = now_s

    def make(self, reviewer: str, items: Mapping[str, Stage], now_s: float) -> ItemClaim:
        """Give these items to a reviewer; the caller has made sure that nobody else holds one. Written when it returns.

        Raises FatalError where it cannot be written, StorageError.
        """
        self.expire(now_s)
        claim = ItemClaim(
            claim=secrets.token_hex(8), reviewer=reviewer, expires_s=now_s + self._claim_s, items=dict(items)
        )
        for item in items:
            self.drop(item)
        self._claims[claim.claim] = claim
        self._holder.update(dict.fromkeys(items, claim.claim))
        self._save(now_s)
        return claim

    def renew(self, reviewer: str, now_s: float) -> None:
        """Put off the end of a reviewer's claims: they are there. Of an ended claim, what nobody took lives again."""
        for claim in self._claims.values():
            if claim.reviewer == reviewer:
                claim.expires_s = now_s + self._claim_s
        # A server that starts again must not take a claim for ended that was put off since.
        if now_s - self._saved_s > self._claim_s / 3:
            self._save(now_s)

    def get(self, claim: str) -> ItemClaim | None:
        """A claim, perhaps ended; None where it was never made or all its items went to others."""
        return self._claims.get(claim)

    def held_by(self, item: str, now_s: float) -> str | None:
        """The reviewer who holds an item now."""
        claim = self._claims.get(self._holder.get(item, ""))
        return claim.reviewer if claim is not None and claim.expires_s > now_s else None

    def others(self, reviewer: str, now_s: float) -> Iterator[str]:
        """The items that somebody else holds now."""
        for claim in self._claims.values():
            if claim.reviewer != reviewer and claim.expires_s > now_s:
                yield from claim.items

    def own(self, reviewer: str, now_s: float) -> dict[str, tuple[ItemClaim, Stage]]:
        """Items that a reviewer holds and has not decided, in the order of handing out."""
        return {
            item: (claim, stage)
            for claim in self._claims.values()
            if claim.reviewer == reviewer and claim.expires_s > now_s
            for item, stage in claim.items.items()
        }

    def drop_decided(self, claim: str | None, item: str) -> None:
        """The item was decided by this claim: a server that starts again must not hold it any longer."""
        if claim is not None and self._holder.get(item) == claim:
            self.drop(item)

    def drop(self, item: str) -> None:
        """Nobody holds this item any more."""
        claim = self._claims.get(self._holder.pop(item, ""))
        if claim is not None:
            claim.items.pop(item, None)
            if not claim.items:
                self._claims.pop(claim.claim, None)

    def release(self, reviewer: str, now_s: float) -> None:
        """A reviewer leaves: their items are free. Raises FatalError, StorageError."""
        for item in list(self.own(reviewer, now_s)):
            self.drop(item)
        self._save(now_s)

    def expire(self, now_s: float) -> None:
        """Forget claims that ended long ago; one that ended lately may still be answered if nobody took its items."""
        for claim in list(self._claims.values()):
            if claim.expires_s + _KEPT * self._claim_s < now_s:
                for item in list(claim.items):
                    self.drop(item)

    def holders(self, now_s: float) -> Collection[str]:
        """Reviewers who hold something now."""
        return {claim.reviewer for claim in self._claims.values() if claim.expires_s > now_s}

    def _save(self, now_s: float) -> None:
        record = [
            {"claim": c.claim, "reviewer": c.reviewer, "expires_s": c.expires_s, "items": c.items}
            for c in self._claims.values()
        ]
        storage.publish(self._uri, json.dumps({"claims": record}).encode())
        self._saved_s = now_s


def _read(uri: str, since_s: float, latest_s: float) -> Iterator[ItemClaim]:
    """Claims that ended after `since_s` or go on; a file that is not readable counts as none."""
    try:
        data = storage.read_optional(uri)
        record: Any = {} if data is None or len(data) > _MAX_BYTES else parse_json(data)
        entries = [_parse(entry, latest_s) for entry in record.get("claims", ())]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IsADirectoryError, NotADirectoryError):
        return
    yield from (claim for claim in entries if claim.expires_s > since_s)


def _parse(entry: Any, latest_s: float) -> ItemClaim:  # noqa: ANN401 - JSON that anybody may have written
    expires_s = float(entry["expires_s"])
    return ItemClaim(
        claim=str(entry["claim"]),
        reviewer=str(entry["reviewer"]),
        # No claim lasts longer than one that is made now.
        expires_s=min(expires_s, latest_s) if math.isfinite(expires_s) else 0.0,
        items={str(item): Stage(stage) for item, stage in entry["items"].items()},
    )
