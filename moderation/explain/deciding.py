"""Which items are explained, and the vote and the frame that decided each: read from a run, no picture is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.policy.model import Policy
from moderation.results.escalations import is_escalated, without_escalated
from moderation.results.find_item import find_item
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, load_policy_of_run
from moderation.results.votes import vote_labels
from moderation.types import Role, Verdict

_ORDER: Final = ("item_id", "verdict", "status", "score", "review_rank")
_OF_VOTE: Final = ("item_id", "frame", "time_s", "role")
MAX_ITEMS: Final = 10_000  # of one call
_Cell = tuple[int, float | None, float | None, str | None]  # frame, time_s, score, role


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidingVote:
    """The vote that is explained, on the frame where it decided.

    sign: -1 where a low score decided. curve: (frame, time_s, score) of the vote on every frame of the item, parts of
    frames left out.
    """

    detector: str
    label: str
    stored_score: float | None
    frame: int
    time_s: float | None
    sign: float = 1.0
    curve: tuple[tuple[int, float | None, float | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainTarget:
    """An item to explain. row: of the verdicts. vote: None where no vote decided it; then `problem` says why."""

    row: Mapping[str, Any]
    vote: DecidingVote | None
    problem: str = ""

    @property
    def item_id(self) -> str:
        """The item's id."""
        return str(self.row["item_id"])


def choose_items(run: StoredRun, items: Sequence[str]) -> list[tuple[str, str]]:
    """(shard id, item id) of the items that are named by id, start of id, URI or its end. Raises UsageError."""
    if len(items) > MAX_ITEMS:
        raise UsageError(f"{len(items):,} items: at most {MAX_ITEMS:,} at once")
    places = [find_item(run, wanted) for wanted in items]
    return list(dict.fromkeys((place.shard_id, place.item_id) for place in places))


def choose_by_verdict(run: StoredRun, verdict: Verdict, top: int) -> list[tuple[str, str]]:
    """(shard id, item id) of the first `top` items with a verdict, in the order in which people look at them.

    That is by `review_rank`, then by score; the highest first. Raises UsageError where there is none.
    """
    ranked: list[tuple[float, float, str, str]] = []
    for shard_id in run.shard_ids:
        table = without_escalated(run.read_present(VERDICTS, shard_id, _ORDER))
        rows = table.filter(pc.fill_null(pc.equal(table["verdict"], str(verdict)), False)).to_pylist()
        ranked += [(-_or_zero(r.get("review_rank")), -_or_zero(r.get("score")), r["item_id"], shard_id) for r in rows]
        # Of ten million items only the head is kept.
        ranked = sorted(ranked)[:top]
    if not ranked:
        raise UsageError(f"{run.out}: no item has the verdict {verdict}")
    return [(shard_id, item_id) for _, _, item_id, shard_id in ranked]


def _or_zero(value: object) -> float:
    return value if isinstance(value, float) else 0.0


def read_targets(run: StoredRun, chosen: Sequence[tuple[str, str]], vote: str | None = None) -> list[ExplainTarget]:
    """The chosen items with what decided them, in the same order. vote: explain this one instead.

    Raises UsageError where the run did not cast `vote`, and for an escalated item, of which nothing is shown.
    """
    policy = _policy_of(run)
    targets: dict[tuple[str, str], ExplainTarget] = {}
    for shard_id in dict.fromkeys(shard_id for shard_id, _ in chosen):
        wanted = [item_id for of, item_id in chosen if of == shard_id]
        verdicts = _rows_of(run.read_verdicts(shard_id), wanted)
        rows = {row["item_id"]: row for row in verdicts.to_pylist()}
        for row in rows.values():
            if is_escalated(row):
                raise UsageError(f"{row['item_id']}: matches an illegal list; nothing of it is shown (docs/illegal.md)")
        votes = _rows_of(run.read_votes(shard_id), wanted)
        if vote is not None and vote not in vote_labels(votes):
            raise UsageError(f"--vote {vote!r}: the run has no such vote{did_you_mean(vote, vote_labels(votes))}")
        for item_id, own in _by_item(votes, wanted):
            targets[shard_id, item_id] = _target_of(rows[item_id], own, vote, policy)
    return [targets[place] for place in chosen]


def _policy_of(run: StoredRun) -> Policy | None:
    try:
        return load_policy_of_run(run)
    except UsageError:
        return None  # it only tells which votes are inverted


def _rows_of(table: pa.Table, item_ids: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["item_id"], value_set=pa.array(item_ids, pa.string())))


def _by_item(votes: pa.Table, item_ids: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    for item_id in item_ids:
        yield item_id, votes.filter(pc.equal(votes["item_id"], item_id))


def _target_of(row: Mapping[str, Any], votes: pa.Table, vote: str | None, policy: Policy | None) -> ExplainTarget:
    evidence = (row.get("evidence") or [None])[0]
    if vote is not None:
        curve = _read_curve(votes, vote)
        chosen = _named_vote(vote, curve, -1.0 if _is_inverted(vote, row.get("check"), policy) else 1.0)
        return ExplainTarget(row=row, vote=chosen, problem="" if chosen else f"{vote} has no score on any frame of it")
    if evidence is None or evidence["frame"] is None:
        reason = row.get("reason") or row.get("status")
        problem = f"no vote on a frame decided it (reason {reason}); --vote names one"
        return ExplainTarget(row=row, vote=None, problem=problem)
    name = f"{evidence['detector']}.{evidence['label']}"
    decided = DecidingVote(
        detector=evidence["detector"],
        label=evidence["label"],
        stored_score=evidence["score"],
        frame=evidence["frame"],
        time_s=evidence["time_s"],
        sign=-1.0 if _is_inverted(name, row.get("check"), policy) else 1.0,
        curve=_own_frames(_read_curve(votes, name)),
    )
    return ExplainTarget(row=row, vote=decided)


def _named_vote(name: str, curve: Sequence[_Cell], sign: float) -> DecidingVote | None:
    """A vote that the call names, on the frame where it is highest (with sign -1: lowest); None without a score."""
    cells = [(sign * score, frame, time_s) for frame, time_s, score, _ in curve if score is not None]
    if not cells:
        return None
    weighed, frame, time_s = max(cells, key=lambda cell: cell[0])
    detector, _, label = name.partition(".")
    return DecidingVote(
        detector=detector,
        label=label,
        stored_score=sign * weighed,
        frame=frame,
        time_s=time_s,
        sign=sign,
        curve=_own_frames(curve),
    )


def _own_frames(curve: Sequence[_Cell]) -> tuple[tuple[int, float | None, float | None], ...]:
    """Without the parts of frames."""
    return tuple((frame, time_s, score) for frame, time_s, score, role in curve if role in (None, Role.FRAME))


def _read_curve(votes: pa.Table, name: str) -> list[_Cell]:
    columns = [*(column for column in _OF_VOTE if column in votes.column_names), name]
    if name not in votes.column_names:
        return []  # of a question that was asked afterwards
    return [(row["frame"], row["time_s"], row[name], row.get("role")) for row in votes.select(columns).to_pylist()]


def _is_inverted(vote: str, check: str | None, policy: Policy | None) -> bool:
    """Whether the check that decided, or else any that reads the vote, takes it as 1 minus it."""
    if policy is None:
        return False
    decided = policy.checks.get(check) if check is not None else None
    checks = list(policy.checks.values()) if decided is None else [decided]
    return any(one.invert for one in checks if vote in one.votes)
