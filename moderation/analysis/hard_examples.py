"""Hard examples: which of the judged items teach most. Pure: how hard an item is, and a choice without near-copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.labels.meaning import Meaning
from moderation.labels.resolve import Words
from moderation.policy.check import Check

NEAR_BITS: Final = 31  # of 256, as `moderation duplicates` has by default
NEAR_COSINE: Final = 0.9


class HardKind(StrEnum):
    """Why an item is hard."""

    MISTAKE = "mistake"  # a check was on the wrong side of its threshold, by a label
    DISAGREEMENT = "disagreement"  # the detectors of a check differ
    THRESHOLD = "threshold"  # a score close to where the decision changes


@dataclass(frozen=True, slots=True, kw_only=True)
class HardExample:
    """An item and what is hard about it.

    hardness: 0..1, comparable within a kind. score: of the check; of a disagreement, the difference. label: its words,
    empty where nobody has labelled it. pdq: bytes; embedding: float16 [D], normalised; None where not kept.
    """

    out: str
    item_id: str
    kind: HardKind
    check: str
    hardness: float
    score: float
    threshold: float | None
    label: str = ""
    content_hash: str | None = None
    pdq: bytes | None = None
    embedding: npt.NDArray[np.float16] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardness:
    """What is hard about an item: see `HardExample`."""

    kind: HardKind
    check: str
    hardness: float
    score: float
    threshold: float | None


def hardest_mistake(
    scores: Mapping[str, float | None], checks: Mapping[str, Check], words: Words, meaning: Meaning
) -> Hardness | None:
    """The check that was wrong by the most; None where all were right.

    A threshold is the lower of a check's; how wrong: the way from it to the score, as a share of the way to the end.
    """
    wrong = []
    for name, check in checks.items():
        threshold, score = lowest_threshold(check), scores.get(name)
        if threshold is None or score is None:
            continue
        says, should = score >= threshold, meaning.confirms(words, name)
        # That a positive check does not know a fine picture is no wrong decision.
        if says != should and (says or check.side == "negative"):
            room = (1 - threshold) if says else threshold
            way = abs(score - threshold) / room if room else 1.0
            wrong.append(
                Hardness(kind=HardKind.MISTAKE, check=name, hardness=min(1.0, way), score=score, threshold=threshold)
            )
    return max(wrong, key=lambda one: one.hardness, default=None)


def nearest_threshold(scores: Mapping[str, float | None], checks: Mapping[str, Check], near: float) -> Hardness | None:
    """The score that is closest to a threshold of its check, within `near`; None where none is."""
    close = [
        Hardness(
            kind=HardKind.THRESHOLD,
            check=name,
            hardness=1 - abs(score - threshold) / near,
            score=score,
            threshold=threshold,
        )
        for name, check in checks.items()
        if (score := scores.get(name)) is not None
        for threshold in thresholds_of(check)
        if abs(score - threshold) <= near
    ]
    return max(close, key=lambda one: one.hardness, default=None)


def thresholds_of(check: Check) -> tuple[float, ...]:
    """Where the decision of a check changes."""
    return tuple(t for t in (check.review, check.block, check.pass_) if t is not None)


def lowest_threshold(check: Check) -> float | None:
    """From which score on a check says yes; None for an attribute."""
    return min(thresholds_of(check), default=None)


def choose_hardest(candidates: Iterable[HardExample], count: int) -> list[HardExample]:
    """At most `count`, the kinds in turn, the hardest of each first; no item twice, no near-copy of a chosen one."""
    queues = _by_kind(candidates)
    chosen: list[HardExample] = []
    near = _Near()
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            candidate = _next_of(queue, near)
            if candidate is not None and len(chosen) < count:
                near.add(candidate)
                chosen.append(candidate)
    return chosen


def _next_of(queue: list[HardExample], near: _Near) -> HardExample | None:
    """The hardest that is not like a chosen one; it and what is like one leave the queue."""
    while queue:
        candidate = queue.pop()
        if not near.has(candidate):
            return candidate
    return None


def _by_kind(candidates: Iterable[HardExample]) -> dict[HardKind, list[HardExample]]:
    """The candidates of each kind, the hardest last."""
    queues: dict[HardKind, list[HardExample]] = {kind: [] for kind in HardKind}
    for candidate in candidates:
        queues[candidate.kind].append(candidate)
    for queue in queues.values():
        queue.sort(key=lambda one: (one.hardness, one.out, one.item_id))
    return queues


class _Near:
    """What has been chosen, to be compared with."""

    def __init__(self) -> None:
        self._items: set[tuple[str, str]] = set()
        self._contents: set[str] = set()
        self._hashes: list[npt.NDArray[np.uint8]] = []
        self._embeddings: dict[int, list[npt.NDArray[np.float32]]] = {}

    def has(self, one: HardExample) -> bool:
        """Whether it is a chosen one, has the same bytes, or looks like one."""
        known = (one.out, one.item_id) in self._items or one.content_hash in self._contents
        return known or self._has_hash(one.pdq) or self._has_embedding(one.embedding)

    def _has_hash(self, pdq: bytes | None) -> bool:
        if pdq is None or not self._hashes:
            return False
        differing = np.bitwise_count(np.stack(self._hashes) ^ np.frombuffer(pdq, np.uint8)).sum(axis=1)
        return int(differing.min()) <= NEAR_BITS

    def _has_embedding(self, embedding: npt.NDArray[np.float16] | None) -> bool:
        same = [] if embedding is None else self._embeddings.get(len(embedding), [])
        if embedding is None or not same:
            return False
        return float((np.stack(same) @ embedding.astype(np.float32)).max()) >= NEAR_COSINE

    def add(self, one: HardExample) -> None:
        """It is chosen."""
        self._items.add((one.out, one.item_id))
        if one.content_hash is not None:
            self._contents.add(one.content_hash)
        if one.pdq is not None:
            self._hashes.append(np.frombuffer(one.pdq, np.uint8))
        if one.embedding is not None:
            self._embeddings.setdefault(len(one.embedding), []).append(one.embedding.astype(np.float32))
