"""Which items of a part may be on a list of a policy: those that are judged one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.policy.bind import BoundPolicy
from moderation.policy.matching import HASHES, BoundList, is_named, nearest_hashes
from moderation.policy.part_scores import I64, Flags
from moderation.types import ItemFacts


def find_listed(bound: BoundPolicy, facts: Sequence[ItemFacts], votes: pa.Table, offsets: I64, run_of: I64) -> Flags:
    """bool [N]: every item that may be on a list, and perhaps others. offsets: where each run of frames begins; run_of:
    an item's run, -1 where it has no frames."""
    frames = np.zeros(len(votes), np.bool_)
    items = np.zeros(len(facts), np.bool_)
    for entries in bound.lists:
        if entries.by == "pdq":
            frames |= _near_frames(entries, votes)
            items |= _near_items(entries, facts)
            continue
        items |= np.array([is_named(entries, own) for own in facts], np.bool_)
        if entries.by == "person":
            frames |= _named_frames(entries, votes)
    runs = np.logical_or.reduceat(frames, offsets[:-1]) if len(votes) else frames
    with_frames = run_of >= 0
    items[with_frames] |= runs[run_of[with_frames]]
    return items


def _near_frames(entries: BoundList, votes: pa.Table) -> Flags:
    near = np.zeros(len(votes), np.bool_)
    if HASHES not in votes.column_names or entries.rows is None:
        return near
    present = np.flatnonzero(np.asarray(pc.is_valid(votes[HASHES])))
    hashes = b"".join(votes[HASHES].take(pa.array(present)).to_pylist())
    near[present] = np.array(nearest_hashes(entries, _as_rows(hashes)), np.int64) >= 0
    return near


def _near_items(entries: BoundList, facts: Sequence[ItemFacts]) -> Flags:
    """Items whose middle frame's hash is near an entry; it counts where the votes have no hashes."""
    near = np.zeros(len(facts), np.bool_)
    known = [item for item, own in enumerate(facts) if own.pdq]
    if known and entries.rows is not None:
        hashes = b"".join(bytes.fromhex(facts[item].pdq or "") for item in known)
        near[known] = np.array(nearest_hashes(entries, _as_rows(hashes)), np.int64) >= 0
    return near


def _as_rows(hashes: bytes) -> np.ndarray:
    return np.frombuffer(hashes, np.uint8).reshape(-1, 32)


def _named_frames(entries: BoundList, votes: pa.Table) -> Flags:
    named = np.zeros(len(votes), np.bool_)
    if "regions" not in votes.column_names:
        return named
    regions = votes["regions"].combine_chunks()
    regions = regions.chunk(0) if isinstance(regions, pa.ChunkedArray) else regions
    flat = regions.flatten()
    wanted = pc.and_(
        pc.equal(flat.field("detector"), entries.detector),
        pc.is_in(flat.field("label"), value_set=pa.array(list(entries.entries), pa.string())),
    )
    named[np.asarray(pc.list_parent_indices(regions).filter(pc.fill_null(wanted, False)))] = True
    return named
