"""One hash of all of an item's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def content_hash(payloads: Sequence[bytes]) -> str:
    """sha256 of the bytes, as hex; for several objects, the sha256 of their hashes in order."""
    digests = [hashlib.sha256(payload) for payload in payloads]
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
