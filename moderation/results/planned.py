"""What a run has planned: the shards of its whole plan and of all its slices, as far as these can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from moderation.planning.names import chunk_uri, plan_uri
from moderation.planning.plan import PlanDamagedError, read_shard_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShards:
    """Items by shard id. complete: every listing has come to its end. unreadable: files; problems: in words."""

    items: Mapping[str, int]
    complete: bool
    unreadable: tuple[str, ...]
    problems: tuple[str, ...]


def read_planned(homes: Sequence[str]) -> PlannedShards:
    """The plans in OUT and in the folders of slices. homes: OUT first."""
    out, *slices = homes
    items: dict[str, int] = {}
    unreadable: list[str] = []
    ended = [_read_home(home, items, unreadable) for home in homes]
    # The whole plan of an OUT that was only worked on by slices comes with the merge.
    complete = ended[0] or (bool(slices) and all(ended[1:]))
    problems = [f"{uri} is not readable as a plan" for uri in unreadable]
    if not complete and not unreadable:
        problems.append(f"{out}: the listing of the source has not come to its end")
    return PlannedShards(
        items=items, complete=complete and not unreadable, unreadable=tuple(unreadable), problems=tuple(problems)
    )


def _read_home(home: str, items: dict[str, int], unreadable: list[str]) -> bool:
    """Add what is planned there to `items`; whether that is all."""
    whole = _read_sizes(plan_uri(home), unreadable)
    if whole is not None:
        items.update(whole)
        return True
    for index in count():
        chunk = _read_sizes(chunk_uri(home, index), unreadable)
        if chunk is None:
            return False
        items.update(chunk)
    raise AssertionError("unreachable")


def _read_sizes(uri: str, unreadable: list[str]) -> dict[str, int] | None:
    try:
        return read_shard_sizes(uri)
    except (PlanDamagedError, IsADirectoryError):
        unreadable.append(uri)
        return None
