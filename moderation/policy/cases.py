"""A table of cases: votes in, verdict and reason out; tests of a policy before anybody relies on it.

    votes: {open_nsfw.nsfw: 0.02}      # of every case; a case's own votes override them
    cases:
      - name: both networks are sure
        votes: {open_nsfw.nsfw: 0.99, image_safety.nsfw: 0.93}
        verdict: block
        reason: negative:explicit:block
      - name: one bad second of a video
        kind: video
        frames:
          - {time_s: 0, votes: {open_nsfw.nsfw: 0.9}}
          - {time_s: 1}
        attributes: {region: eu}
        verdict: review

A vote that no line gives is null, like one that was not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from moderation.config.hints import did_you_mean
from moderation.config.load import read_yaml, validate
from moderation.errors import UsageError
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.policy.matching import HASHES, QUALITY
from moderation.policy.model import Policy
from moderation.policy.section import PolicySection
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Kind, Region, Role, Seen, Verdict

MAX_CASES = 100_000
Votes = Mapping[str, float | None]


class CaseFrame(PolicySection):
    """One frame of a case. people: names that `gallery` gives to faces in it."""

    votes: Votes = Field(default={})
    time_s: float | None = None
    people: tuple[str, ...] = ()
    pdq: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class PolicyCase(PolicySection):
    """One item and its expected verdict. votes: of an item with one frame; otherwise `frames`."""

    name: str = Field(min_length=1)
    votes: Votes | None = None
    frames: tuple[CaseFrame, ...] | None = Field(default=None, max_length=10_000)
    kind: Kind = Kind.IMAGE
    attributes: Mapping[str, str] = {}
    content_hash: str | None = None
    pdq: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    error: ErrorCode | None = None
    unseen: tuple[str, ...] = ()
    duration_s: float | None = None
    widest_gap_s: float | None = None
    verdict: Verdict
    reason: str | None = Field(default=None, description="none: any")
    audit: bool | None = Field(default=None, description="none: either")

    @model_validator(mode="after")
    def _one_form(self) -> PolicyCase:
        if self.votes is not None and self.frames is not None:
            raise ValueError("has `votes` and `frames`; one of them")
        return self


class PolicyCases(PolicySection):
    """A file of cases. as_of: the day that decides which list entries count."""

    votes: Votes = Field(default={})
    as_of: date | None = None
    cases: tuple[PolicyCase, ...] = Field(min_length=1, max_length=MAX_CASES)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedCase:
    """The outcome of a case. wanted, got: of verdict, reason and audit what the case names, in words."""

    __test__ = False  # pytest would collect it for its name

    name: str
    wanted: str
    got: str
    reason_text: str

    @property
    def agrees(self) -> bool:
        """Whether the policy decides as the case says."""
        return self.wanted == self.got


def load_cases(path: Path) -> PolicyCases:
    """Cases from a YAML file. Raises UsageError naming a wrong key and the nearest right one."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file of cases")
    return validate(PolicyCases, read_yaml(path), where=str(path))


def run_cases(policy: Policy, cases: PolicyCases) -> list[TestedCase]:
    """What the policy decides of every case, in their order.

    Raises UsageError naming a vote that the policy does not read, and the nearest: a misspelt vote would be null.
    """
    read = set(policy.votes())
    given = {label: where for where, votes in _all_votes(cases) for label in votes}
    for label in sorted(given.keys() - read - {QUALITY}):
        hint = did_you_mean(label, sorted(read), otherwise="it reads", cutoff=0.5)
        raise UsageError(f"{given[label]}: the policy reads no vote {label!r}{hint}")
    bound = bind(policy, sorted(read | given.keys()), as_of=cases.as_of)
    return [_run_case(case, cases.votes, bound) for case in cases.cases]


def _all_votes(cases: PolicyCases) -> Iterator[tuple[str, Votes]]:
    yield "votes", cases.votes
    for case in cases.cases:
        for votes in (case.votes or {}, *(frame.votes for frame in case.frames or ())):
            yield f"case {case.name!r}", votes


def _run_case(case: PolicyCase, shared: Votes, bound: BoundPolicy) -> TestedCase:
    frames = case.frames if case.frames is not None else (CaseFrame(votes=case.votes or {}, pdq=case.pdq),)
    votes = _votes_of(frames, shared, bound.labels) if frames else None
    seen = Seen(kind=case.kind, duration_s=case.duration_s, widest_gap_s=case.widest_gap_s, unseen=case.unseen)
    facts = ItemFacts(item_id=case.name, attributes=case.attributes, content_hash=case.content_hash, pdq=case.pdq)
    judged = judge_item(votes, case.error, bound, seen, facts)
    wanted, got = [str(case.verdict)], [str(judged.verdict)]
    if case.reason is not None:
        wanted.append(case.reason)
        got.append(judged.reason)
    if case.audit is not None:
        wanted.append("audit" if case.audit else "no audit")
        got.append("audit" if judged.audit else "no audit")
    shown = " ".join(got) if case.reason is not None else " ".join([*got, f"({judged.reason})"])
    same = wanted == got
    return TestedCase(
        name=case.name, wanted=shown if same else " ".join(wanted), got=shown, reason_text=judged.reason_text
    )


def _votes_of(frames: Sequence[CaseFrame], shared: Votes, labels: Sequence[str]) -> ItemVotes:
    given = [{**shared, **frame.votes} for frame in frames]
    cells = [[np.nan if (vote := row.get(label)) is None else vote for label in labels] for row in given]
    hashes = tuple(None if frame.pdq is None else bytes.fromhex(frame.pdq) for frame in frames)
    return ItemVotes(
        labels=tuple(labels),
        frames=tuple(range(len(frames))),
        times_s=tuple(frame.time_s for frame in frames),
        scores=np.array(cells, np.float32).reshape(len(frames), len(labels)),
        regions=tuple(tuple(map(_person, frame.people)) for frame in frames),
        blobs={HASHES: hashes} if any(hashes) else {},
        roles=(Role.FRAME,) * len(frames),
        parents=(None,) * len(frames),
        boxes=(None,) * len(frames),
    )


def _person(name: str) -> Region:
    return Region(detector="gallery", label=name, score=1.0, x0=0.0, y0=0.0, x1=1.0, y1=1.0)
