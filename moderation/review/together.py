"""Items that are looked at together: near-copies of one picture, and what one uploader sent; numbers, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.hashes.grouping import Edges, group_by_heads
from moderation.hashes.pairs import collapse, near_pairs
from moderation.hashes.search import I64
from moderation.types import U8

NEAR_BITS: Final = 31  # of 256, as `moderation duplicates` has by default
# More than this many of one uploader come in several lots, so that one uploader does not fill the head of the queue.
LOT: Final = 36
_HASH_CHARS: Final = 64


def number_copies(
    item_ids: Sequence[str],
    content: Sequence[str | None],
    pdq: Sequence[str | None],
    known: Mapping[str, str] | None = None,
) -> I64:
    """int64 [N]: near-copies of a picture have the same number, that of their first item.

    known: item id -> id of its group, by `moderation duplicates`; without it, the same content and PDQ hashes within
    NEAR_BITS of a head are copies.
    """
    if known is not None:
        return _number_by([known.get(item_id) for item_id in item_ids])
    by_content = _number_by(content)
    hashes, rows = _parse_hashes(pdq)
    if not len(rows):
        return by_content
    twin = collapse(hashes)
    distinct = np.flatnonzero(twin == np.arange(len(twin)))
    pairs = near_pairs(hashes[distinct], NEAR_BITS)
    edges = Edges(
        left=pairs.left,
        right=pairs.right,
        relation=np.zeros(len(pairs.left), np.int8),
        distance=pairs.distance.astype(np.float32),
    )
    head = group_by_heads(len(distinct), edges).head
    place = np.zeros(len(twin), np.int64)
    place[distinct] = np.arange(len(distinct))
    numbers = np.arange(len(item_ids), dtype=np.int64)
    numbers[rows] = rows[distinct[head[place[twin]]]]
    # The same bytes are copies whatever their hashes say.
    same: I64 = numbers[by_content]
    return same


def order_rows(rank: npt.NDArray[np.float64], score: npt.NDArray[np.float64], copies: I64, groups: I64) -> I64:
    """int64 [N]: rows in the order in which they are looked at, the highest rank first.

    Copies follow each other, and so do up to LOT items of a group; each such set stands where its best item does. NaN
    ranks come last, by score. groups: int64 [N], numbers of uploaders; -1: none.
    """
    key = _finite(rank)
    second = _finite(score)
    lots = _lots(key, second, copies, groups)
    best_of_lot = _best(lots, key)
    best_of_copies = _best(copies, key)
    rows = np.arange(len(rank))
    order: I64 = np.lexsort((rows, -second, -key, copies, -best_of_copies, lots, -best_of_lot)).astype(np.int64)
    return order


def number_groups(names: Sequence[str | None]) -> I64:
    """int64 [N]: a number per name, -1 where there is none."""
    numbers: dict[str, int] = {}
    found = [-1 if name is None else numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(found, np.int64).reshape(-1)


def _lots(key: npt.NDArray[np.float64], second: npt.NDArray[np.float64], copies: I64, groups: I64) -> I64:
    """int64 [N]: numbers of sets of at most LOT items of a group; copies without a group are a set of their own."""
    count = len(key)
    # An item's set is its copies', and that one's is the first of them that has a group.
    first = copies
    of_copies = np.full(count, -1, np.int64)
    np.maximum.at(of_copies, first, groups)
    own = of_copies[first]
    order = np.lexsort((-second, -key, own))
    starts = np.r_[True, own[order][1:] != own[order][:-1]] if count else np.zeros(0, bool)
    begin = np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    place = np.empty(count, np.int64)
    place[order] = (np.arange(count) - begin) // LOT
    # Copies stay in one lot: that of their head.
    lots: I64 = np.where(own < 0, first, count + own * (count // LOT + 1) + place[first])
    return lots


def _best(sets: I64, key: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, numbers = np.unique(sets, return_inverse=True)
    best = np.full(int(numbers.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(best, numbers, key)
    chosen: npt.NDArray[np.float64] = best[numbers]
    return chosen


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.isnan(values), -1.0, values)


def _number_by(names: Sequence[str | None]) -> I64:
    first: dict[str, int] = {}
    numbers = [row if name is None else first.setdefault(name, row) for row, name in enumerate(names)]
    return np.array(numbers, np.int64).reshape(-1)


def _parse_hashes(pdq: Sequence[str | None]) -> tuple[U8, I64]:
    """uint8 [M,32] and int64 [M]: the hashes that can be read, and their rows."""
    parsed = [(row, _parse_hash(text)) for row, text in enumerate(pdq) if text is not None]
    usable = [(row, value) for row, value in parsed if value is not None]
    rows = np.array([row for row, _ in usable], np.int64)
    return np.frombuffer(b"".join(value for _, value in usable), np.uint8).reshape(-1, 32), rows


def _parse_hash(text: str) -> bytes | None:
    try:
        value = bytes.fromhex(text) if len(text) == _HASH_CHARS else None
    except ValueError:
        return None
    # Plain pictures have hashes of few bits; they are alike and yet no copies.
    return value if value is not None and 64 <= int.from_bytes(value, "big").bit_count() <= 192 else None
