"""Votes read back from a finished run: parts as tables, and items as the policy judges them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from moderation import storage
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.results.asked import asked_labels, read_part, with_asked
from moderation.results.receipts import part_name
from moderation.types import F32, ItemVotes, Region, Role


def read_votes(out: str, shard_id: str, format_: str, asks: Sequence[str] = ()) -> pa.Table:
    """The votes of a shard, with the columns of questions that were asked afterwards. Raises UsageError."""
    votes = read_part(storage.join(out, "votes", part_name(shard_id, format_)), None, format_)
    return with_asked(votes, out, shard_id, asks, format_) if asks else votes


def vote_labels(votes: pa.Table) -> tuple[str, ...]:
    """Columns that are votes: `detector.label`, float32; also those of asked questions."""
    return tuple(f.name for f in votes.schema if "." in f.name and f.type == pa.float32())


def needed_asks(out: str, wanted: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Questions kept in `OUT/asks` that cast the votes of `wanted` that are not among `labels`.

    Raises UsageError where two of them cast the same vote.
    """
    missing = set(wanted) - set(labels)
    chosen: dict[str, str] = {}
    for name, own in asked_labels(out).items() if missing else ():
        for label in missing & set(own):
            if chosen.setdefault(label, name) != name:
                raise UsageError(f"{out}: {label!r} was asked as {chosen[label]!r} and as {name!r}")
    return tuple(sorted(set(chosen.values())))


def disabled_votes(config: Config, wanted: Sequence[str]) -> tuple[str, ...]:
    """Votes of detectors that the run was configured with and left out (`stack.only`): null throughout."""
    only = config.stack.only
    left_out = {d.title for d in config.stack.detectors if only and d.title not in only}
    return tuple(label for label in wanted if label.partition(".")[0] in left_out)


def score_matrix(votes: pa.Table, labels: Sequence[str]) -> F32:
    """float32 [F,L], NaN where null."""
    if not labels:
        return np.empty((votes.num_rows, 0), np.float32)
    return np.stack([votes[label].to_numpy().astype(np.float32, copy=False) for label in labels], axis=1)


def item_votes(votes: pa.Table, labels: Sequence[str]) -> Iterator[tuple[str, ItemVotes]]:
    """Each item's votes, in the order of the part; frames of an item are adjacent."""
    if not votes.num_rows:
        return
    names = votes.column_names
    scores = score_matrix(votes, labels)
    ids: list[str] = votes["item_id"].to_pylist()
    frames: list[int] = votes["frame"].to_pylist()
    times: list[float | None] = votes["time_s"].to_pylist()
    regions = votes["regions"].to_pylist() if "regions" in names else [()] * len(ids)
    related = "role" in names and any(
        role not in (None, Role.FRAME) or parent is not None
        for role, parent in zip(votes["role"].to_pylist(), votes["parent"].to_pylist(), strict=True)
    )
    kin = [votes[name].to_pylist() for name in ("role", "parent", "box")] if related else []
    first = 0
    for stop in range(1, len(ids) + 1):
        if stop < len(ids) and ids[stop] == ids[first]:
            continue
        own = slice(first, stop)
        roles, parents, boxes = (column[own] for column in kin) if kin else ([], [], [])
        # Empty where nothing is a part of anything, as the pipeline has it.
        apart = any(r not in (None, Role.FRAME) for r in roles) or any(p is not None for p in parents)
        yield (
            ids[first],
            ItemVotes(
                labels=tuple(labels),
                frames=tuple(frames[own]),
                times_s=tuple(times[own]),
                scores=scores[own],
                regions=tuple(tuple(Region(**r) for r in row or ()) for row in regions[own]),
                roles=tuple(Role(r or Role.FRAME) for r in roles) if apart else (),
                parents=tuple(parents) if apart else (),
                boxes=tuple(None if b is None else (b[0], b[1], b[2], b[3]) for b in boxes) if apart else (),
            ),
        )
        first = stop
