"""The verdicts of a run replaced by those that wait beside them, part by part; the votes stay as they are.

What waits is complete before the first part is replaced, and the run record names it until the last one is. So a call
that died in between is brought to its end by the next one, which replaces all parts again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from moderation import storage
from moderation.errors import FatalError
from moderation.results.intact import describe_difference_of_part
from moderation.results.layout import VERDICTS, part_uri, receipt_uri
from moderation.results.receipts import Receipt, read_receipt

MOVED: Final = "moved:"  # counters of a rejudge: items by old and new verdict
_THREADS: Final = 8


def replace_verdicts(out: str, staged: str, shard_ids: Sequence[str], format_: str) -> dict[str, int]:
    """Replace the verdicts of these shards by those in `staged`; returns the items by old and new verdict.

    Raises FatalError where a shard has no receipt in both, or what waits is not what was committed, StorageError.
    """
    moved: Counter[str] = Counter()
    with ThreadPoolExecutor(_THREADS, "replace") as pool:
        for counts in pool.map(partial(_replace_part, out, staged, format_), shard_ids):
            moved.update(counts)
    return dict(moved)


def _replace_part(out: str, staged: str, format_: str, shard_id: str) -> dict[str, int]:
    own, new = read_receipt(out, shard_id), read_receipt(staged, shard_id)
    uri = part_uri(staged, VERDICTS, shard_id, format_)
    data = storage.read_optional(uri)
    if own is None or new is None or data is None or describe_difference_of_part(new, VERDICTS, data) is not None:
        raise FatalError(f"{uri}: is not there as it was judged; the same command judges it again")
    storage.publish(part_uri(out, VERDICTS, shard_id, format_), data)
    storage.publish(receipt_uri(out, shard_id), _encode(_joined(own, new)))
    return {name.removeprefix(MOVED): n for name, n in new.counts.items() if name.startswith(MOVED)}


def _joined(own: Receipt, new: Receipt) -> Receipt:
    """The receipt of a shard whose verdicts are new and whose votes are not."""
    return replace(
        own,
        rows={**own.rows, VERDICTS: new.rows[VERDICTS]},
        sha256={**own.sha256, VERDICTS: new.sha256[VERDICTS]},
        counts={name: n for name, n in new.counts.items() if not name.startswith(MOVED)},
        committed_at=new.committed_at,
    )


def _encode(receipt: Receipt) -> bytes:
    return json.dumps(asdict(receipt), sort_keys=True, indent=1).encode()
