"""What an item's bytes are, in one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def content_hash(payloads: Sequence[bytes]) -> str:
    """sha256 of the bytes, as hex; of an item with several objects, of their hashes in order."""
    digests = [hashlib.sha256(payload) for payload in payloads]
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
