"""How a review is run: shares, times, and who is an expert. Frozen; checked when it is made."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from moderation.errors import UsageError

_UNIT: Final = 1 << 53  # as many steps as a float has between 0.5 and 1
MAX_BATCH: Final = 200  # items that one call hands out
MAX_UNDO: Final = 20
MAX_NAME_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSettings:
    """What a review keeps to.

    second_share: of the items, that get a second opinion. hidden_share: of the items handed out, whose answer is known.
    claim_s: seconds for which items are held without a sign of life. severe_in_row: severe items after which another
    comes, where there is one. severe_from: the lowest severe level; None: as the policy says. experts: pseudonyms of
    those whose answer settles. salt: of the keyed hashes that draw.
    """

    second_share: float = 0.05
    hidden_share: float = 0.015
    claim_s: float = 600.0
    severe_in_row: int = 3
    severe_from: str | None = None
    experts: frozenset[str] = frozenset()
    salt: str = "review"

    def __post_init__(self) -> None:
        for name in ("second_share", "hidden_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name)}: a share of 0 to 1")
        if not 1 <= self.claim_s <= 86_400:
            raise UsageError(f"claim_s {self.claim_s}: 1 to 86,400 seconds")
        if self.severe_in_row < 1:
            raise UsageError(f"severe_in_row {self.severe_in_row}: 1 or more")


def draw(salt: str, *parts: str) -> float:
    """A number in [0, 1) from a keyed hash: the same parts, the same number."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    digest = hmac.new(salt.encode(), text, hashlib.sha256).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / _UNIT


def check_reviewer(name: str) -> str:
    """The pseudonym itself. Raises UsageError where it is none."""
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        raise UsageError(f"a reviewer's pseudonym is 1 to {MAX_NAME_CHARS} printable characters, not {name[:80]!r}")
    return name
