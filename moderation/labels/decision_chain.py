"""The chain of parts in OUT/decisions/: read in order, and checked link by link.

`head.json` names the last part that was acknowledged. It is written after the part, so that a part more than the head
knows is what a killed writer left, and a part less is a missing one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import one_line
from moderation.labels.decision_parts import (
    DamagedDecisionsError,
    DecisionPart,
    PartName,
    decode_part,
    hash_rows,
    parse_part_name,
)
from moderation.pages.text import short_line
from moderation.results.review_layout import decisions_folder, decisions_head_uri, decisions_part_uri

# Parts are a few kilobytes each: latency, not bandwidth, limits reading them back.
_READERS: Final = 16
_MAX_HEAD_BYTES: Final = 4096
_MAX_PARTS: Final = 10**8  # a number has 8 digits


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """The last acknowledged part: its number and the sha256 of its file."""

    number: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadChain:
    """All parts that are readable, by number. faults: what is amiss, a sentence each; empty: nothing."""

    parts: tuple[DecisionPart, ...]
    faults: tuple[str, ...]


def read_chain(out: str) -> ReadChain:
    """Read and check all parts. Raises PermissionError, StorageError."""
    # The head first: a part that is written meanwhile must not look missing.
    head = read_head(out)
    names = list_parts(out)
    read = _read_parts(out, names)
    parts = [part for part in read if isinstance(part, DecisionPart)]
    faults = [str(part) for part in read if not isinstance(part, DecisionPart)]
    faults += [*_gaps(names), *_broken_links(parts), *_repeated_ids(parts)]
    faults += _head_faults(out, head, names, parts)
    return ReadChain(parts=tuple(parts), faults=tuple(faults))


def list_parts(out: str) -> list[PartName]:
    """The names of all parts, by number."""
    names = (parse_part_name(file) for file in storage.list_names(decisions_folder(out)))
    return sorted((name for name in names if name is not None), key=lambda name: (name.number, name.rows_hash))


def read_part(out: str, name: PartName) -> DecisionPart | DamagedDecisionsError:
    """A part, or why it cannot be read."""
    uri = decisions_part_uri(out, name.file)
    try:
        return decode_part(name, storage.read_bytes(uri), name.file)
    except (FileNotFoundError, IsADirectoryError, storage.NotRegularError) as error:
        return DamagedDecisionsError(f"{name.file}: cannot be read: {one_line(error, 200)}")
    except DamagedDecisionsError as error:
        return error


def read_head(out: str) -> ChainHead | list[str] | None:
    """The head; None where there is none; what is wrong with it where it is not readable."""
    try:
        data = storage.read_optional(decisions_head_uri(out))
        if data is None:
            return None
        record: Any = parse_json(data[:_MAX_HEAD_BYTES])
        head = ChainHead(number=int(record["number"]), sha256=str(record["sha256"]))
        if 0 <= head.number < _MAX_PARTS:
            return head
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, IsADirectoryError, NotADirectoryError):
        pass
    return [f"{decisions_head_uri(out)}: is not readable"]


def write_head(out: str, part: DecisionPart) -> None:
    """Say that a part is acknowledged. Raises FatalError, StorageError."""
    record = {"number": part.name.number, "part": part.name.file, "sha256": part.sha256}
    storage.publish(decisions_head_uri(out), json.dumps(record, indent=1).encode())


def _read_parts(out: str, names: Sequence[PartName]) -> list[DecisionPart | DamagedDecisionsError]:
    if storage.scheme_of(out) == "file" or len(names) < 2:
        return [read_part(out, name) for name in names]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda name: read_part(out, name), names))


def _gaps(names: Sequence[PartName]) -> Iterator[str]:
    counted = Counter(name.number for name in names)
    expected = 0
    for number, times in sorted(counted.items()):
        if number > expected:
            # One sentence: a file that somebody put there may have any number.
            yield f"{_span(expected, number - 1)} {'is' if number == expected + 1 else 'are'} missing"
        if times > 1:
            yield f"part {number:08d} is there {times} times: two writers, or a copy that was put there"
        expected = number + 1


def _span(first: int, last: int) -> str:
    return f"part {first:08d}" if first == last else f"parts {first:08d} to {last:08d}"


def _broken_links(parts: Sequence[DecisionPart]) -> Iterator[str]:
    """Parts whose rows are not those of their name, and parts that name another one before them than is there."""
    before = {part.name.number + 1: part.sha256 for part in parts}
    for part in parts:
        if hash_rows(part.decisions) != part.name.rows_hash:
            yield f"{part.name.file}: was changed: its rows are not those that its name says"
        expected = "" if part.name.number == 0 else before.get(part.name.number)
        if expected is not None and part.previous != expected:
            yield (
                f"{part.name.file}: names another part before it than is there: that one was changed, or the order was"
            )


def _repeated_ids(parts: Sequence[DecisionPart]) -> Iterator[str]:
    counted = Counter(decision.decision_id for part in parts for decision in part.decisions)
    repeated = [decision_id for decision_id, times in counted.items() if times > 1]
    if repeated:
        more = f" (and {len(repeated) - 1:,} more)" if len(repeated) > 1 else ""
        yield f"decision {short_line(repeated[0], 60)!r} is there {counted[repeated[0]]} times{more}"


def _head_faults(
    out: str, head: ChainHead | list[str] | None, names: Sequence[PartName], parts: Sequence[DecisionPart]
) -> Iterable[str]:
    if isinstance(head, list):
        return head
    if head is not None:
        return _check_head(head, names, parts)
    # A writer that was killed leaves at most the first part without a head; one that writes now has written it by now.
    if any(name.number > 0 for name in names) and read_head(out) is None:
        return [f"{decisions_head_uri(out)}: is missing"]
    return []


def _check_head(head: ChainHead, names: Sequence[PartName], parts: Sequence[DecisionPart]) -> Iterator[str]:
    last = max((name.number for name in names), default=-1)
    if head.number > last:
        missing = _span(last + 1, head.number)
        yield f"{missing} missing: the head says that {head.number + 1:,} parts were acknowledged"
    same = [part for part in parts if part.name.number == head.number]
    if same and all(part.sha256 != head.sha256 for part in same):
        yield f"{same[0].name.file}: was changed: the head names another sha256"
