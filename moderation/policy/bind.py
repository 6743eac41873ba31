"""A policy tied to the votes that a stack casts: each check knows its columns, its thresholds as float32, its pool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.policy import aggregate
from moderation.policy.model import Check, Policy, Pool, Side
from moderation.types import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCheck:
    """A check tied to the columns of a stack's votes; thresholds are float32 values."""

    name: str
    side: Side
    columns: tuple[int, ...]
    invert: bool
    fuse: Callable[[Sequence[float]], float] | None  # None: a single vote, taken as it is
    pool: Callable[[Sequence[float]], float]
    block: float | None
    review: float | None
    pass_: float | None
    null_is_review: bool
    order: int | None
    stops_at: float | None  # from this score on no check of a higher order is asked
    stops_by_block: bool  # a check of a higher order can block, so only a block may stop it


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPolicy:
    """A policy tied to the columns of a stack's votes, ready to judge; picklable."""

    policy: Policy
    labels: tuple[str, ...]
    checks: tuple[BoundCheck, ...]  # as of an image
    checks_of: Mapping[Kind, tuple[BoundCheck, ...]]  # pools may differ by kind
    cascade: bool  # whether any check can stop it
    negative_columns: tuple[tuple[int, bool], ...]  # of every negative check's votes, each once; and if it inverts them


def bind(
    policy: Policy, labels: Sequence[str], *, gated: Collection[str] = (), disabled: Collection[str] = ()
) -> BoundPolicy:
    """Tie a policy to the votes that a stack casts.

    labels: columns of the votes, `detector.label`, in order.
    gated: those of them behind a `when:`. A check that decides by one must say what a null means, in so many words.
    disabled: labels that the stack has but this run leaves out (`stack.only`); their votes are null throughout.
    Raises UsageError naming the check, the vote and the nearest right one.
    """
    columns = {label: index for index, label in enumerate(labels)}
    for label in disabled:
        columns.setdefault(label, -1)  # `judge` appends a null to every row
    problems = [
        problem for name, check in policy.checks.items() for problem in _find_problems(name, check, columns, gated)
    ]
    if problems:
        raise UsageError("\n".join(problems))
    checks_of = {
        kind: tuple(_bind_check(name, check, columns, policy, kind) for name, check in policy.checks.items())
        for kind in Kind
    }
    checks = checks_of[Kind.IMAGE]
    return BoundPolicy(
        policy=policy,
        labels=tuple(labels),
        checks=checks,
        checks_of=checks_of,
        cascade=any(check.stops_at is not None for check in checks),
        negative_columns=_negative_columns(checks),
    )


def _negative_columns(checks: Iterable[BoundCheck]) -> tuple[tuple[int, bool], ...]:
    negative = (check for check in checks if check.side == "negative")
    return tuple(dict.fromkeys((column, check.invert) for check in negative for column in check.columns))


def _find_problems(name: str, check: Check, columns: Collection[str], gated: Collection[str]) -> Iterable[str]:
    for label in check.votes:
        if label not in columns:
            hint = did_you_mean(label, columns, otherwise="it casts", cutoff=0.5) or "; it casts: none"
            yield f"check {name!r}: the stack casts no vote {label!r}{hint}"
        elif label in gated and check.side != "attribute" and "null" not in check.model_fields_set:
            yield f"check {name!r}: {label!r} has a `when:`, so say what a null means: `null: review` or `null: ignore`"


def _bind_check(name: str, check: Check, columns: Mapping[str, int], policy: Policy, kind: Kind) -> BoundCheck:
    return BoundCheck(
        name=name,
        side=check.side,
        columns=tuple(columns[label] for label in check.votes),
        invert=check.invert,
        fuse=_bind_fuse(check) if len(check.votes) > 1 else None,
        pool=_bind_pool(check.pooling(kind)),
        block=as_float32(check.block),
        review=as_float32(check.review),
        pass_=as_float32(check.pass_),
        null_is_review=check.side != "attribute" and check.null == "review",
        order=check.order,
        stops_at=as_float32(policy.stops_at(name)),
        stops_by_block=any(later.block is not None for later in policy.checks_after(check)),
    )


def _bind_fuse(check: Check) -> Callable[[Sequence[float]], float]:
    weights = tuple(check.votes.values())
    fuse = check.fuse
    return partial(aggregate.fuse, method=fuse.method, weights=weights, k=fuse.k or 1, missing=fuse.missing)


def _bind_pool(pool: Pool) -> Callable[[Sequence[float]], float]:
    return partial(aggregate.pool, method=pool.method, k=pool.k or 1, length=pool.length or 1, gap=pool.gap or 0)


def as_float32(number: float | None) -> float | None:
    """A number as the tables hold it, so that a rejudge over them decides alike."""
    return None if number is None else float(np.float32(number))
