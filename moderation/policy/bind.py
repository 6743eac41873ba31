"""A policy tied to the votes that a stack casts: each check knows its columns, its thresholds as float32, its pool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.policy import aggregate
from moderation.policy.audit import BoundSide
from moderation.policy.check import Check, Pool, Side
from moderation.policy.matching import BoundList, bind_list
from moderation.policy.model import Policy
from moderation.policy.review_rank import ReviewOrder
from moderation.policy.taxonomy import load_taxonomy
from moderation.policy.texts import ReasonTexts, load_reason_texts
from moderation.policy.thresholds import BoundThresholds, as_float32, bind_thresholds
from moderation.policy.vouched import BoundVouch, bind_vouch
from moderation.types import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCheck:
    """A check tied to the columns of a stack's votes; thresholds are float32 values."""

    name: str
    side: Side
    columns: tuple[int, ...]
    invert: bool
    fuse: Callable[[Sequence[float]], float] | None  # None: the check's only vote, as it is
    pool: Callable[[Sequence[float]], float]
    block: float | None
    review: float | None
    pass_: float | None
    null_is_review: bool
    order: int | None
    stops_at: float | None  # from this score on, no check of a higher order is asked
    stops_by_block: bool  # a check of a higher order can block, so only a block may stop it
    watched: bool = False  # an attribute that a positive rule reads, or whose nulls send to review
    isolated: bool = False  # review an item with a frame over `block` but a pooled score below it
    severe: bool = False  # no allow list passes over it
    severity: str | None = None
    label: str | None = None  # path in the taxonomy
    merges: int = 1  # frames below the threshold that a segment may have in a row
    by: tuple[BoundThresholds, ...] = ()  # thresholds by attribute value


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPolicy:
    """A policy tied to the columns of a stack's votes, ready to judge; picklable."""

    policy: Policy
    labels: tuple[str, ...]
    checks: tuple[BoundCheck, ...]  # those of an image
    checks_of: Mapping[Kind, tuple[BoundCheck, ...]]  # pools may differ by kind
    cascade: bool  # whether any check has a `stop`
    negative_columns: tuple[tuple[int, bool], ...]  # each negative check's votes, once; whether inverted
    texts: ReasonTexts
    lists: tuple[BoundList, ...] = ()
    vouch: tuple[BoundVouch, ...] = ()
    audit: tuple[BoundSide, ...] = ()
    as_of: date | None = None
    review_order: ReviewOrder = field(default_factory=ReviewOrder)
    by_attribute: bool = False  # whether thresholds differ by attribute
    # Checks by combination of attribute values, built when the first such item comes.
    variants: dict[object, tuple[BoundCheck, ...]] = field(default_factory=dict, compare=False, repr=False)


def bind(
    policy: Policy,
    labels: Sequence[str],
    *,
    gated: Collection[str] = (),
    disabled: Collection[str] = (),
    as_of: date | None = None,
) -> BoundPolicy:
    """Tie a policy to the votes that a stack casts.

    labels: columns of the votes, `detector.label`, in order.
    gated: those of them behind a `when:`. A check that decides by one must say explicitly what a null means.
    disabled: labels that the stack has but this run leaves out (`stack.only`); their votes are null throughout.
    as_of: the day of the run: list entries that ended before it do not count. None: the day is unknown, and lists err
    towards review.
    Raises UsageError naming the check, the vote and the nearest right one; or a list that was not read.
    """
    columns = {label: index for index, label in enumerate(labels)}
    for label in (*disabled, *_absent_detectors_votes(policy, {*labels, *disabled})):
        columns.setdefault(label, -1)  # `judge` appends a null to every row
    problems = list(_find_all_problems(policy, columns, gated))
    if problems:
        raise UsageError("\n".join(problems))
    paths = load_taxonomy()
    checks_of = {
        kind: tuple(_bind_check(name, check, columns, policy, kind, paths) for name, check in policy.checks.items())
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
        texts=load_reason_texts(policy.language),
        lists=tuple(bind_list(name, rule, as_of) for name, rule in policy.lists.items()),
        vouch=_bind_vouches(policy, columns),
        audit=_bind_audit(policy),
        as_of=as_of,
        review_order=policy.review_order or ReviewOrder(),
        by_attribute=any(check.by for check in checks),
    )


def _absent_detectors_votes(policy: Policy, cast: Collection[str]) -> Iterator[str]:
    """Votes of optional checks by detectors that the stack does not have; of one that it has, a vote is misspelt."""
    detectors = {_detector_of(label) for label in cast}
    optional = (label for check in policy.checks.values() if check.optional for label in check.votes)
    return (label for label in optional if _detector_of(label) not in detectors)


def _detector_of(label: str) -> str:
    return label.partition(".")[0]


def _find_all_problems(policy: Policy, columns: Collection[str], gated: Collection[str]) -> Iterator[str]:
    for name, check in policy.checks.items():
        yield from _find_problems(name, check, columns, gated)
    for name, rule in policy.vouch.items():
        yield from (f"vouch {name!r}: {_casts_no(v, columns)}" for v in rule.declared_votes() if v not in columns)
    for name, entries in policy.lists.items():
        if entries.entries is None:
            yield f"list {name!r} was not read"


def _negative_columns(checks: Iterable[BoundCheck]) -> tuple[tuple[int, bool], ...]:
    negative = (check for check in checks if check.side == "negative")
    return tuple(dict.fromkeys((column, check.invert) for check in negative for column in check.columns))


def _bind_vouches(policy: Policy, columns: Mapping[str, int]) -> tuple[BoundVouch, ...]:
    negative = [name for name, check in policy.checks.items() if check.side == "negative"]
    return tuple(bind_vouch(name, rule, negative, columns) for name, rule in policy.vouch.items())


def _bind_audit(policy: Policy) -> tuple[BoundSide, ...]:
    return tuple(
        BoundSide(check=side.check, rate=side.rate, from_=as_float32(side.from_), to=as_float32(side.to))
        for _, side in (policy.audit.sides() if policy.audit else ())
    )


def _casts_no(label: str, columns: Collection[str]) -> str:
    hint = did_you_mean(label, columns, otherwise="it casts", cutoff=0.5) or "; it casts: none"
    return f"the stack casts no vote {label!r}{hint}"


def _find_problems(name: str, check: Check, columns: Collection[str], gated: Collection[str]) -> Iterable[str]:
    for label in check.votes:
        if label not in columns:
            yield f"check {name!r}: {_casts_no(label, columns)}"
        elif label in gated and check.side != "attribute" and "null" not in check.model_fields_set:
            yield f"check {name!r}: {label!r} has a `when:`, so say what a null means: `null: review` or `null: ignore`"


def _bind_check(
    name: str, check: Check, columns: Mapping[str, int], policy: Policy, kind: Kind, paths: Mapping[str, Sequence[str]]
) -> BoundCheck:
    pool = check.pooling(kind)
    return BoundCheck(
        name=name,
        side=check.side,
        columns=tuple(columns[label] for label in check.votes),
        invert=check.invert,
        fuse=_bind_fuse(check) if len(check.votes) > 1 else None,
        pool=_bind_pool(pool),
        block=as_float32(check.block),
        review=as_float32(check.review),
        pass_=as_float32(check.pass_),
        null_is_review=check.null_is_review,
        order=check.order,
        stops_at=as_float32(policy.stops_at(name)),
        stops_by_block=any(later.block is not None for later in policy.checks_after(check)),
        watched=check.side == "attribute" and (name in policy.vouched_for() or check.null_is_review),
        isolated=_may_be_isolated(check, pool),
        severe=policy.is_severe(check),
        severity=check.severity,
        label=check.label or "/".join(paths.get(name, ())) or None,
        merges=1 if pool.gap is None else pool.gap,
        by=bind_thresholds(check),
    )


def _may_be_isolated(check: Check, pool: Pool) -> bool:
    return check.block is not None and check.isolated == "review" and pool.method != "any"


def _bind_fuse(check: Check) -> Callable[[Sequence[float]], float]:
    weights = tuple(check.votes.values())
    fuse = check.fuse
    return partial(aggregate.fuse, method=fuse.method, weights=weights, k=fuse.k or 1, missing=fuse.missing)


def _bind_pool(pool: Pool) -> Callable[[Sequence[float]], float]:
    return partial(aggregate.pool, method=pool.method, k=pool.k or 1, length=pool.length or 1, gap=pool.gap or 0)
