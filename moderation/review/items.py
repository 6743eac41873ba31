"""Items of a queue as reviewers get them, from rows of the verdicts; what must not be shown is left out here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from moderation.results.schema import score_column
from moderation.types import Evidence, Segment

_SCORE: Final = score_column("")


class Stage(StrEnum):
    """What an item waits for."""

    OPEN = "open"
    SECOND = "second"  # another reviewer's opinion
    EXPERT = "expert"  # two differ, or somebody was unsure
    SETTLED = "settled"
    APPEAL = "appeal"  # somebody asked to look again
    HIDDEN = "hidden"  # its answer is known; a reviewer is not told


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """An item to decide: its row of the verdicts.

    blind: an audit item before the reviewer's first answer; whatever the machine made of it is left out. together: the
    near-copies of one picture have the same number. See `results.schema` for the other fields.
    """

    item_id: str
    uri: str
    kind: str
    status: str
    together: int
    verdict: str | None = None
    reason: str | None = None
    reason_text: str | None = None
    check: str | None = None
    score: float | None = None
    threshold: float | None = None
    confidence: float | None = None
    severity: str | None = None
    label: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    segments: tuple[Segment, ...] = ()
    review_rank: float | None = None
    audit: bool = False
    blind: bool = False
    frames_total: int | None = None
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    etag: str | None = None
    content_hash: str | None = None
    pdq: str | None = None
    group_id: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An item that a reviewer holds, to decide it.

    claim: goes into the decision. expires_s: Unix seconds; any call of the reviewer puts it off. stage: `open` or
    `second` look the same to a reviewer, and a hidden item looks like an open one. earlier: what others said, for an
    expert alone. appeal: what was written in an appeal.
    """

    item: QueueItem
    claim: str
    expires_s: float
    stage: Stage
    earlier: tuple[str, ...] = ()
    appeal: str | None = None


def item_of(row: Mapping[str, Any], together: int) -> QueueItem:
    """A row of the verdicts as an item."""
    plain = {name: row[name] for name in _PLAIN if name in row}
    return QueueItem(
        **plain,
        together=together,
        audit=bool(row.get("audit")),
        scores=_scores(row),
        evidence=tuple(_evidence(cells) for cells in row.get("evidence") or ()),
        segments=tuple(Segment(**cells) for cells in row.get("segments") or ()),
        attributes=dict(row.get("attributes") or ()),
    )


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    named = {name.removeprefix(_SCORE): value for name, value in row.items() if name.startswith(_SCORE)}
    return {check: value for check, value in named.items() if value is not None}


def blinded(item: QueueItem) -> QueueItem:
    """The item without anything that the machine made of it."""
    return replace(
        item,
        blind=True,
        audit=True,
        verdict=None,
        reason=None,
        reason_text=None,
        check=None,
        score=None,
        threshold=None,
        confidence=None,
        severity=None,
        label=None,
        scores={},
        evidence=(),
        segments=(),
        review_rank=None,
        error_code=None,
        error_detail=None,
    )


def _evidence(cells: Mapping[str, Any]) -> Evidence:
    box = cells["box"]
    return Evidence(**{**cells, "box": tuple(box) if box else None})


_PLAIN: Final = tuple(
    name
    for name in QueueItem.__dataclass_fields__
    if name not in ("together", "audit", "blind", "scores", "evidence", "segments", "attributes")
)
