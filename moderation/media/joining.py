"""Several Media -> one: frames numbered consecutively, with the members' failures and unseen parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from moderation.types import ErrorCode, Frame, Kind, Media, Role


@dataclass(slots=True)
class Numbering:
    """Members' frames numbered consecutively, apart from extra frames (tiles, backdrops); total: the next number."""

    total: int = 0
    frames: list[Frame] = field(default_factory=list)
    _extras: list[tuple[Frame, tuple[int, int]]] = field(default_factory=list)  # each with its (member, index)
    _new_index: dict[tuple[int, int], int] = field(default_factory=dict)  # (member, its frame) -> the item's index
    _members: int = 0

    def add(self, member: Media) -> None:
        """Add the next member's frames."""
        first, key = self.total, self._members
        self._members += 1
        for frame in member.frames:
            if frame.role is Role.FRAME:
                self._new_index[key, frame.index] = first + frame.index
                self.frames.append(replace(frame, index=first + frame.index))
            else:
                self._extras.append((frame, (key, frame.index)))
        # At least 1, and above every index used: a failed member keeps its number.
        own = [f.index for f in self.frames[-len(member.frames) :]] if member.frames else []
        self.total = max([first + max(1, member.frames_total), *(index + 1 for index in own)])

    def append_extras(self, frames: Sequence[Frame]) -> list[Frame]:
        """The frames followed by the extras, without tiles of a picture that is itself a tile of another."""
        beyond = self.total + sum(f.role is Role.WHOLE for f in frames)
        bound = {f.index for f in frames if f.parent is not None}
        new_index = dict(self._new_index)
        extras: list[Frame] = []
        for extra, (member, old) in self._extras:
            parent = None if extra.parent is None else new_index[member, extra.parent]
            if parent is None or parent not in bound:
                new_index[member, old] = beyond + len(extras)
                extras.append(replace(extra, index=beyond + len(extras), parent=parent))
        return [*frames, *extras]


def gather_members(kind: Kind, members: Sequence[Media], frames: Sequence[Frame], total: int) -> Media:
    """One Media of these frames, with the first failure's code where members failed, and the widest gap of any member.

    members: without their frames.
    """
    code, detail = _name_failures(members)
    return Media(
        kind=kind,
        frames=tuple(frames),
        frames_total=total,
        widest_gap_s=widest_of(members),
        width=frames[0].width if frames else None,
        height=frames[0].height if frames else None,
        error=code,
        error_detail=detail,
        unseen=tuple(dict.fromkeys(what for m in members for what in m.unseen)),
    )


def widest_of(members: Sequence[Media]) -> float | None:
    """The widest gap between two frames of any of these; None where none has frames with times."""
    return max((m.widest_gap_s for m in members if m.widest_gap_s is not None), default=None)


def _name_failures(members: Sequence[Media]) -> tuple[ErrorCode | None, str]:
    failures = [m for m in members if m.error is not None]
    if not failures:
        return None, next((m.error_detail for m in members if m.error_detail), "")  # what was left aside of one
    code, why = failures[0].error, failures[0].error_detail
    if code is ErrorCode.NOT_MEDIA and any(m.error is not code for m in members):
        code = ErrorCode.UNSUPPORTED_TYPE  # the item is media: a text beside a picture must not make it skipped
    return code, f"{len(failures)} of {len(members)} members: {code}" + (f" ({why})" if why else "")
