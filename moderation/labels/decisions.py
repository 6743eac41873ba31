"""Decisions: what one reviewer said of one item, as a frozen row, and what a row has to keep to. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.pages.text import short_line

MAX_CHARS: Final = 4096  # of a comment, an item's id, a URI
MAX_NAME_CHARS: Final = 200  # of a pseudonym, a reason, a word
MAX_LABELS: Final = 32
MAX_SHOWN: Final = 64
MAX_EXPOSURE_S: Final = 7 * 86_400.0
ContentKey = tuple[str, str | None]  # item id, content hash
_ID: Final = re.compile(r"[0-9A-Za-z_.:@-]{1,128}")


class Answer(StrEnum):
    """What a reviewer can say of an item."""

    BLOCK = "block"
    PASS = "pass"
    ESCALATE = "escalate"  # somebody else has to say: an expert
    SKIP = "skip"  # no answer


class DecisionSource(StrEnum):
    """Why the item was looked at."""

    QUEUE = "queue"
    AUDIT = "audit"  # of the audit, answered without sight of the machine's verdict
    HIDDEN = "hidden"  # its answer was known: it measures the reviewer
    SECOND = "second"
    APPEAL = "appeal"
    IMPORT = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one reviewer said of one item.

    decision_id: chosen by the client; the same id again is the same decision, however often it is sent.
    labels: words for what the item is (names of checks). reason: a code. reviewer: a pseudonym. decided_at: with a time
    zone; kept as microseconds in UTC. exposure_s: for how long the item was in sight; None: not measured.
    shown: what the reviewer saw besides the item (`verdict` -> `review`). undoes: the id of the decision that this one
    takes back. claim: by which the item was held.
    """

    decision_id: str
    item_id: str
    decision: Answer
    reviewer: str
    decided_at: datetime
    uri: str = ""
    content_hash: str | None = None
    pdq: str | None = None
    group_id: str | None = None
    labels: tuple[str, ...] = ()
    reason: str = ""
    comment: str = ""
    expert: bool = False
    source: DecisionSource = DecisionSource.QUEUE
    exposure_s: float | None = None
    shown: Mapping[str, str] = field(default_factory=dict)
    undoes: str | None = None
    claim: str | None = None


def check_decision(decision: Decision) -> Decision:
    """The decision itself. Raises UsageError naming the field that cannot be kept."""
    problem = next(filter(None, _problems(decision)), None)
    if problem is not None:
        raise UsageError(f"decision {short_line(str(decision.decision_id), 60)!r}: {problem}")
    return decision


def parse_answer(text: str) -> Answer:
    """`block`, `pass`, `escalate` or `skip`. Raises UsageError naming the nearest."""
    try:
        return Answer(text.strip().lower())
    except ValueError as error:
        shown = short_line(text, 40)
        raise UsageError(f"no decision {shown!r}{did_you_mean(shown, [str(answer) for answer in Answer])}") from error


def parse_source(text: str) -> DecisionSource:
    """Why an item was looked at. Raises UsageError naming the nearest."""
    try:
        return DecisionSource(text.strip().lower())
    except ValueError as error:
        shown = short_line(text, 40)
        raise UsageError(
            f"no source {shown!r} of a decision{did_you_mean(shown, [str(source) for source in DecisionSource])}"
        ) from error


def standing_decisions(decisions: Iterable[Decision]) -> list[Decision]:
    """Those that count, in order: an undone one does not, nor does the row that undoes it if it says `skip`.

    Only its own reviewer can take a decision back. An undo that is itself undone has no effect.
    """
    listed = list(decisions)
    undone = _undone_ids(listed)
    standing = [decision for decision in listed if decision.decision_id not in undone]
    return [decision for decision in standing if not (decision.undoes and decision.decision is Answer.SKIP)]


def counted_answers(standing: Iterable[Decision]) -> list[Decision]:
    """The latest answer of each reviewer, without skips and hidden items, in order."""
    latest: dict[str, Decision] = {}
    for decision in standing:
        if decision.source is not DecisionSource.HIDDEN and decision.decision is not Answer.SKIP:
            latest.pop(decision.reviewer, None)
            latest[decision.reviewer] = decision
    return list(latest.values())


def decisions_on(decisions: Sequence[Decision], content_hash: str | None) -> list[Decision]:
    """The decisions of an item that hold for a content of it, by the rule of `group_by_content`. None: not known."""
    named = any(decision.content_hash for decision in decisions)
    return [
        decision
        for decision in decisions
        if (decision.content_hash and decision.content_hash == content_hash)
        or (not decision.content_hash and (decision.decision is not Answer.PASS or not named))
    ]


def group_by_content(decisions: Iterable[Decision]) -> dict[ContentKey, list[Decision]]:
    """Item and content -> its decisions, in order; keys in the order of first decisions.

    Another picture may lie at the same URI the next night, and then has the same item id. A block without a
    content hash fits each content of its item; a pass without one counts only where no decision names a content,
    because what was looked at is not known.
    """
    listed = list(decisions)
    contents: dict[str, dict[str, None]] = {}
    for decision in listed:
        if decision.content_hash:
            contents.setdefault(decision.item_id, {})[decision.content_hash] = None
    groups: dict[ContentKey, list[Decision]] = {}
    for decision in listed:
        for content in _contents_of(decision, contents.get(decision.item_id)):
            groups.setdefault((decision.item_id, content), []).append(decision)
    return groups


def _contents_of(decision: Decision, named: Iterable[str] | None) -> list[str | None]:
    if decision.content_hash:
        return [decision.content_hash]
    if named is None:
        return [None]
    return [] if decision.decision is Answer.PASS else [*named]


def _undone_ids(decisions: Sequence[Decision]) -> set[str]:
    by_id = {decision.decision_id: decision for decision in decisions}
    undone: set[str] = set()
    # The last first: an undo is in force unless a later one takes it back.
    for decision in reversed(decisions):
        target = by_id.get(decision.undoes or "")
        if target is not None and target.reviewer == decision.reviewer and decision.decision_id not in undone:
            undone.add(target.decision_id)
    return undone


def _problems(decision: Decision) -> Iterable[str | None]:
    yield _id_problem("decision_id", decision.decision_id)
    yield _text_problem("item_id", decision.item_id, MAX_CHARS, empty=False)
    yield _text_problem("reviewer", decision.reviewer, MAX_NAME_CHARS, empty=False)
    yield _text_problem("uri", decision.uri, MAX_CHARS)
    yield _text_problem("comment", decision.comment, MAX_CHARS)
    yield _text_problem("reason", decision.reason, MAX_NAME_CHARS)
    for name in ("content_hash", "pdq", "group_id", "claim"):
        yield _text_problem(name, getattr(decision, name) or "", MAX_CHARS)
    yield None if decision.undoes is None else _id_problem("undoes", decision.undoes)
    yield _time_problem(decision)
    yield from _label_problems(decision.labels)
    yield from _shown_problems(decision.shown)


def _id_problem(name: str, value: str) -> str | None:
    return None if _ID.fullmatch(value) else f"`{name}` is 1 to 128 letters, digits and -_.:@"


def _text_problem(name: str, value: str, max_chars: int, *, empty: bool = True) -> str | None:
    if not empty and not value.strip():
        return f"`{name}` is empty"
    if len(value) > max_chars:
        return f"`{name}` has more than {max_chars:,} characters"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"`{name}` is not text that UTF-8 can hold"
    return None


def _time_problem(decision: Decision) -> str | None:
    if decision.decided_at.tzinfo is None:
        return "`decided_at` has no time zone"
    exposure_s = decision.exposure_s
    if exposure_s is not None and not (math.isfinite(exposure_s) and 0 <= exposure_s <= MAX_EXPOSURE_S):
        return f"`exposure_s` is not a time of 0 to {MAX_EXPOSURE_S:,.0f} seconds"
    return None


def _label_problems(labels: tuple[str, ...]) -> Iterable[str | None]:
    if len(labels) > MAX_LABELS:
        yield f"more than {MAX_LABELS} `labels`"
    for word in labels[:MAX_LABELS]:
        yield _text_problem("labels", word, MAX_NAME_CHARS, empty=False)
        # Labels files put `|` between words.
        yield "a word of `labels` has a | in it" if "|" in word else None


def _shown_problems(shown: Mapping[str, str]) -> Iterable[str | None]:
    if len(shown) > MAX_SHOWN:
        yield f"more than {MAX_SHOWN} entries in `shown`"
    for key, value in list(shown.items())[:MAX_SHOWN]:
        yield _text_problem("shown", key, MAX_NAME_CHARS, empty=False)
        yield _text_problem("shown", value, MAX_CHARS)
