"""The lists of a sweep, from a file: entries by value, a list of known hashes, or all that decisions have taught."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

import pyarrow as pa
import pyarrow.ipc

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.hashes.lists import LIST_SCHEMA, is_illegal_schema
from moderation.lists.learned import read_learned_rules
from moderation.lists.read import MAX_FILE_BYTES, read_entries
from moderation.policy.entries import MAX_ENTRIES, By, ListEntry, ListRule, normalised

_ACTIONS: Final = ("deny", "allow")
_VERDICTS: Final = ("block", "review")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListWords:
    """What a file's entries mean. by: None: told by the file, else `content_hash`. attribute: with by: attribute."""

    action: str = "deny"
    by: str | None = None
    verdict: str | None = None
    attribute: str | None = None
    distance: int = 31
    quality: int = 50


def read_swept_lists(uri: str, words: ListWords) -> dict[str, ListRule]:
    """The lists of a file, by name. Raises UsageError for a file that is no list, or words that do not fit."""
    for name, value, choices in (
        ("--action", words.action, _ACTIONS),
        ("--by", words.by, get_args(By)),
        ("--verdict", words.verdict, _VERDICTS),
    ):
        if value is not None and value not in choices:
            raise UsageError(f"{name} {value!r}: must be one of {', '.join(choices)}{did_you_mean(value, choices)}")
    uri = storage.canonical(uri)
    name = _name_of(uri)
    learned = read_learned_rules(uri, name) if words.by is None else None
    if learned:
        return learned
    hashes = _read_hashes(uri, words) if uri.lower().endswith(".arrow") else None
    by = "pdq" if hashes is not None else words.by or "content_hash"
    entries = hashes if hashes is not None else read_entries(uri, words.action, by)
    return {name: _rule(uri, words, by, entries)}


def _rule(uri: str, words: ListWords, by: str, entries: list[ListEntry]) -> ListRule:
    given: dict[str, object] = {"action": words.action, "by": by, "entries": ()}
    if by == "pdq":
        given |= {"distance": words.distance, "quality": words.quality}
    if words.attribute is not None or by == "attribute":
        given["attribute"] = words.attribute
    if words.verdict is not None:
        given["verdict"] = words.verdict
    try:
        rule = ListRule.model_validate(given)
        return rule.model_copy(update={"entries": normalised(entries, rule.by)})
    except ValueError as error:
        told = str(error).split("Value error, ")[-1].split(" [type=")[0]
        raise UsageError(f"{uri}: {told}") from error


def _name_of(uri: str) -> str:
    """A name for reasons: `list:spam:block`."""
    stem = uri.rpartition("/")[2].partition(".")[0]
    name = re.sub(r"[^0-9A-Za-z_]", "_", stem)
    return name if name.isidentifier() else f"list_{name}"


def _read_hashes(uri: str, words: ListWords) -> list[ListEntry] | None:
    """The entries of a list of known hashes (`moderation hashes build`); None where the file is another table."""
    try:
        if storage.info(uri).size_bytes > MAX_FILE_BYTES:
            raise UsageError(f"{uri}: a list has at most {MAX_FILE_BYTES:,} bytes")
        reader = pa.ipc.open_file(pa.BufferReader(storage.read_bytes(uri)))
        if is_illegal_schema(reader.schema):
            raise UsageError(
                f"{uri}: an illegal list; what older runs keep of its matches would stay, and a sweep would name them:"
                " judge the source again into a new OUT (docs/illegal.md)"
            )
        if not reader.schema.equals(LIST_SCHEMA):
            return None
        table = reader.read_all()
    except FileNotFoundError as error:
        raise UsageError(f"{uri}: no such list") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{uri}: not readable as a table: {error}") from error
    if table.num_rows > MAX_ENTRIES:
        raise UsageError(f"{uri}: {table.num_rows:,} entries; {MAX_ENTRIES:,} at most, make several lists of it")
    rows = [row for row in table.to_pylist() if row["quality"] is None or row["quality"] >= words.quality]
    return [ListEntry(row["hash"].hex(), _names_of(row)) for row in rows]


def _names_of(row: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (row["label"], row["group"], row["entry"])))
