"""What a run has planned: the shards of its whole plan and of all its slices, as far as these can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from moderation import storage
from moderation.planning.names import chunk_uri, plan_uri
from moderation.planning.plan import PlanDamagedError, decode_shards, read_shard_sizes
from moderation.types import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShards:
    """items: number by shard id. complete: every listing has ended. unreadable: files; problems: in words."""

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
    # An OUT with slices only gets its whole plan from the merge.
    complete = ended[0] or (bool(slices) and all(ended[1:]))
    problems = [f"{uri} is not readable as a plan" for uri in unreadable]
    if not complete and not unreadable:
        problems.append(f"{out}: the listing of the source has not come to its end")
    return PlannedShards(
        items=items, complete=complete and not unreadable, unreadable=tuple(unreadable), problems=tuple(problems)
    )


def _read_home(home: str, items: dict[str, int], unreadable: list[str]) -> bool:
    """Add what is planned there to `items`; returns whether that is all."""
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


def iterate_planned(homes: Sequence[str]) -> Iterator[Shard]:
    """The shards of the plans in OUT and in the folders of slices, each once. homes: OUT first.

    Where the whole plan is there, the slices' are parts of it. Raises StorageError.
    """
    seen: set[str] = set()
    for data in iterate_plan_files(homes):
        for shard in decode_shards(data):
            if shard.shard_id not in seen:
                seen.add(shard.shard_id)
                yield shard


def iterate_plan_files(homes: Sequence[str]) -> Iterator[bytes]:
    """The files of these plans, Parquet of `PLAN_SCHEMA`: the whole plan of OUT alone where it is there.

    homes: OUT first. A shard may stand in two files. Raises StorageError.
    """
    out, *slices = homes
    whole = storage.read_optional(plan_uri(out))
    if whole is not None:
        yield whole
        return
    for home in (out, *slices):
        yield from _planned_files(home)


def _planned_files(home: str) -> Iterator[bytes]:
    whole = storage.read_optional(plan_uri(home))
    if whole is not None:
        yield whole
        return
    for index in count():
        data = storage.read_optional(chunk_uri(home, index))
        if data is None:
            return
        yield data


def _read_sizes(uri: str, unreadable: list[str]) -> dict[str, int] | None:
    try:
        return read_shard_sizes(uri)
    except (PlanDamagedError, IsADirectoryError):
        unreadable.append(uri)
        return None
