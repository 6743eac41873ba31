"""Votes read back from a finished run: parts as tables, and items as the policy judges them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa

from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.matching import HASHES, QUALITY
from moderation.policy.model import Policy
from moderation.results.asked import Digests, asked_labels, read_digests, with_asked
from moderation.results.layout import VOTES
from moderation.results.reader import StoredRun
from moderation.types import F32, ItemVotes, Region, Role

# What a policy may ask of a frame besides its votes.
OF_FRAMES: Final = ("item_id", "frame", "time_s", "role", "parent", "box", "regions", HASHES, QUALITY)


def read_votes(
    run: StoredRun,
    shard_id: str,
    asks: Sequence[str] = (),
    digests: Digests | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> pa.Table:
    """The votes of a shard, with the columns of questions that were asked afterwards. Raises UsageError.

    labels: read only these votes, where they exist, and what else a policy may ask of a frame.
    """
    if labels is None:
        votes = run.read_votes(shard_id)
    else:
        votes = run.read_present(VOTES, shard_id, tuple(dict.fromkeys((*OF_FRAMES, *labels))))
    return with_asked(votes, run.votes_out, shard_id, asks, run.format, digests) if asks else votes


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundVotes:
    """A part of votes, and a policy bound to its columns. asks: questions whose columns were added."""

    shard_id: str
    votes: pa.Table
    policy: BoundPolicy
    asks: tuple[str, ...]


def vote_labels(votes: pa.Table) -> tuple[str, ...]:
    """Columns that are votes (`detector.label`, float32), with those of asked questions."""
    return tuple(f.name for f in votes.schema if "." in f.name and f.type == pa.float32())


def needed_asks(out: str, wanted: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Questions kept in `OUT/asks` that cast those votes of `wanted` that `labels` lacks.

    Raises UsageError where two of them cast the same vote.
    """
    missing = set(wanted) - set(labels)
    chosen: dict[str, str] = {}
    for name, own in asked_labels(out).items() if missing else ():
        for label in missing & set(own):
            if chosen.setdefault(label, name) != name:
                raise UsageError(f"{out}: {label!r} was asked as {chosen[label]!r} and as {name!r}")
    return tuple(sorted(set(chosen.values())))


def read_bound_votes(run: StoredRun, policy: Policy, *, as_of: date | None = None) -> Iterator[BoundVotes]:
    """The votes of a run, part after part, each with the policy bound to its columns and to the day of the run.

    as_of: a day instead of the run's, for lists that end.

    Votes that the policy names and the run did not cast come from questions that were asked afterwards. Raises
    UsageError naming a vote that nothing cast, and the nearest right one.
    """
    wanted = policy_votes(policy)
    disabled = disabled_votes(run.load_config(), wanted)
    asks = needed_asks(run.votes_out, wanted, vote_labels(run.read_votes(run.shard_ids[0])))
    digests = read_digests(run.votes_out, asks)
    bound: BoundPolicy | None = None
    day = run.day(policy, as_of)
    for shard_id in run.shard_ids:
        votes = read_votes(run, shard_id, asks, digests)
        labels = vote_labels(votes)
        if bound is None or bound.labels != labels:
            bound = bind(policy, labels, disabled=disabled, as_of=day)
        yield BoundVotes(shard_id=shard_id, votes=votes, policy=bound, asks=asks)


def read_bound_shard(run: StoredRun, policy: Policy, shard_id: str) -> BoundVotes:
    """Like `read_bound_votes`, for one part."""
    wanted = policy_votes(policy)
    votes = run.read_votes(shard_id)
    asks = needed_asks(run.votes_out, wanted, vote_labels(votes))
    if asks:
        votes = with_asked(votes, run.votes_out, shard_id, asks, run.format)
    disabled = disabled_votes(run.load_config(), wanted)
    bound = bind(policy, vote_labels(votes), disabled=disabled, as_of=run.day(policy))
    return BoundVotes(shard_id=shard_id, votes=votes, policy=bound, asks=asks)


def policy_votes(policy: Policy) -> tuple[str, ...]:
    """Every vote that a policy names, sorted."""
    return policy.votes()


def disabled_votes(config: Config, wanted: Sequence[str]) -> tuple[str, ...]:
    """Votes of configured detectors that the run left out (`stack.only`): null throughout."""
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
    columns = _FrameColumns.of(votes, labels)
    for own in adjacent_runs(columns.item_ids):
        yield columns.item_ids[own.start], columns.votes_of(own)


def adjacent_runs(keys: Sequence[object]) -> Iterator[slice]:
    """The maximal runs of equal keys, in order; together they cover `keys`."""
    first = 0
    for stop in range(1, len(keys) + 1):
        if stop == len(keys) or keys[stop] != keys[first]:
            yield slice(first, stop)
            first = stop


@dataclass(frozen=True, slots=True, kw_only=True)
class _FrameColumns:
    """A part of votes as lists, one entry per frame. roles and so on: empty where every frame is just a frame."""

    labels: tuple[str, ...]
    item_ids: list[str]
    frames: list[int]
    times_s: list[float | None]
    scores: F32  # [F,L]
    regions: list[Any]
    hashes: list[bytes | None] | None  # `pdq.hash`; None where it was not computed
    roles: list[Any]
    parents: list[Any]
    boxes: list[Any]

    @staticmethod
    def of(votes: pa.Table, labels: Sequence[str]) -> _FrameColumns:
        names = votes.column_names
        count = votes.num_rows
        roles, parents = (votes[n].to_pylist() if n in names else [] for n in ("role", "parent"))
        related = _is_related(roles, parents)
        return _FrameColumns(
            labels=tuple(labels),
            item_ids=votes["item_id"].to_pylist(),
            frames=votes["frame"].to_pylist(),
            times_s=votes["time_s"].to_pylist(),
            scores=score_matrix(votes, labels),
            regions=votes["regions"].to_pylist() if "regions" in names else [()] * count,
            hashes=votes[HASHES].to_pylist() if HASHES in names else None,
            roles=roles if related else [],
            parents=parents if related else [],
            boxes=votes["box"].to_pylist() if related else [],
        )

    def votes_of(self, own: slice) -> ItemVotes:
        """The votes of the item whose frames these are."""
        # Empty where no frame is a part of another, as in the pipeline.
        related = _is_related(self.roles[own], self.parents[own])
        return ItemVotes(
            labels=self.labels,
            frames=tuple(self.frames[own]),
            times_s=tuple(self.times_s[own]),
            scores=self.scores[own],
            regions=tuple(tuple(Region(**r) for r in row or ()) for row in self.regions[own]),
            blobs=self._blobs_of(own),
            roles=tuple(Role(r or Role.FRAME) for r in self.roles[own]) if related else (),
            parents=tuple(self.parents[own]) if related else (),
            boxes=tuple(_box(b) for b in self.boxes[own]) if related else (),
        )

    def _blobs_of(self, own: slice) -> dict[str, tuple[bytes | None, ...]]:
        return {} if self.hashes is None else {HASHES: tuple(self.hashes[own])}


def _is_related(roles: Sequence[str | None], parents: Sequence[int | None]) -> bool:
    """Whether a frame is a part of another, or put together from several."""
    return any(role not in (None, Role.FRAME) for role in roles) or any(parent is not None for parent in parents)


def _box(cells: Sequence[float] | None) -> tuple[float, float, float, float] | None:
    return None if cells is None else (cells[0], cells[1], cells[2], cells[3])
