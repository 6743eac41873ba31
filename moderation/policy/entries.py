"""Allow- and deny-lists in a policy: what an entry is matched by, and the entries, checked and sorted.

A list stands in the policy itself (`entries`) or in a file that it names (`from`), which `moderation.lists` reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from moderation.config.hints import did_you_mean
from moderation.hashes.search import MAX_DISTANCE
from moderation.policy.section import PolicySection

# An entry takes about 400 bytes in every worker, and is sent to each of them.
MAX_ENTRIES: Final = 1_000_000
MAX_VALUE: Final = 8192  # characters: the limit of an attribute
MAX_REASON: Final = 500
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = ("value", "reason", "until")

By = Literal["content_hash", "pdq", "person", "owner", "group", "attribute"]


class ListEntry(NamedTuple):  # a tuple: a list may have a million
    """One entry. until: the last day on which it counts; None: it has no end."""

    value: str
    reason: str = ""
    until: date | None = None


def normalised(entries: Iterable[ListEntry], by: By) -> tuple[ListEntry, ...]:
    """Entries sorted, each once, hashes in lower case. Raises ValueError naming the first that is not valid."""
    spelt = {_checked(entry, by) for entry in entries}
    return tuple(sorted(spelt, key=lambda e: (e.value, e.until or date.max, e.reason)))


def _checked(entry: ListEntry, by: By) -> ListEntry:
    value = entry.value.strip()
    if by in ("content_hash", "pdq"):
        value = value.lower()
        if not _SHA256.fullmatch(value):
            raise ValueError(f"{entry.value[:80]!r} is no {by}: 64 hexadecimal digits")
    if not value or len(value) > MAX_VALUE:
        raise ValueError(f"a value of {len(value):,} characters; 1 to {MAX_VALUE:,}")
    reason = entry.reason[:MAX_REASON]
    if not reason.isprintable():
        reason = "".join(c if c.isprintable() else " " for c in reason)
    return ListEntry(value, " ".join(reason.split()), entry.until)


def entries_digest(entries: Iterable[ListEntry]) -> str:
    """sha256 (hex) over entries, in their order."""
    digest = hashlib.sha256()
    for value, reason, until in entries:
        digest.update(json.dumps([value, reason, until and until.isoformat()]).encode())
    return digest.hexdigest()


def _read_forms(value: object) -> tuple[ListEntry, ...] | None:
    """Entries in any form that a file may have: values, mappings, or rows of `value, reason, until`."""
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError("entries are a list")
    if len(value) > MAX_ENTRIES:
        raise ValueError(f"{len(value):,} entries; {MAX_ENTRIES:,} at most")
    return tuple(_as_entry(entry, place) for place, entry in enumerate(value, start=1))


def _as_rows(entries: tuple[ListEntry, ...] | None) -> list[list[str | None]] | None:
    """Entries in their JSON form."""
    if entries is None:
        return None
    return [[value, reason, until.isoformat() if until else None] for value, reason, until in entries]


def _as_entry(entry: object, place: int) -> ListEntry:
    if isinstance(entry, ListEntry):
        return entry
    if isinstance(entry, Mapping):
        return _from_mapping(entry, place)
    if isinstance(entry, list | tuple) and 1 <= len(entry) <= len(_KEYS):
        return _from_mapping(dict(zip(_KEYS, entry, strict=False)), place)
    return _from_mapping({"value": entry}, place)


def _from_mapping(entry: Mapping[object, object], place: int) -> ListEntry:
    wrong = [key for key in entry if key not in _KEYS]
    if wrong:
        raise ValueError(f"entry {place}: unknown key {str(wrong[0])!r}{did_you_mean(wrong[0], _KEYS)}")
    value, reason = entry.get("value"), entry.get("reason")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"entry {place}: `value` must be a text (in quotes where it looks like something else)")
    return ListEntry(str(value), "" if reason is None else str(reason), as_end(entry.get("until"), f"entry {place}"))


def as_end(value: object, where: str) -> date | None:
    """An end date from what a file has: a date, a time, `2026-12-31`, or nothing. Raises ValueError."""
    if isinstance(value, datetime):
        return value.date()
    if value is None or isinstance(value, date):
        return value
    text = str(value).strip()
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ValueError(f"{where}: `until` is {text[:40]!r}, not a date like 2026-12-31") from None


class ListRule(PolicySection):
    """One list: what it is matched by, and what a match means."""

    action: Literal["deny", "allow"] = Field(description="deny: block, or `verdict`; allow: pass")
    by: By = Field(description="what its values are; owner, group: the attribute of that name")
    attribute: str | None = Field(default=None, min_length=1, description="attribute: its name")
    distance: int | None = Field(
        default=None, ge=0, le=MAX_DISTANCE, description="pdq: bits of 256 that a copy may differ in"
    )
    quality: int = Field(default=50, ge=0, le=100, description="pdq: of a frame, from which its hash says something")
    detector: str = Field(default="gallery", description="person: whose regions name people")
    verdict: Literal["block", "review"] | None = Field(default=None, description="deny: block (the default) or review")
    severity: str | None = Field(default=None, description="deny: one of the policy's `severities`")
    from_: str | None = Field(
        default=None, alias="from", min_length=1, description="a file or an object: .csv .tsv .txt .parquet .arrow"
    )
    # Checked by our own code: pydantic takes a minute for a million entries.
    entries: Annotated[tuple[ListEntry, ...] | None, PlainValidator(_read_forms), PlainSerializer(_as_rows)] = Field(
        default=None, description="or the entries themselves"
    )

    @property
    def matched_attribute(self) -> str | None:
        """The attribute whose values it lists."""
        if self.by in ("owner", "group", "person"):
            return self.by
        return self.attribute

    @property
    def dated(self) -> bool:
        """Whether any entry has an end."""
        return any(entry.until is not None for entry in self.entries or ())

    @model_validator(mode="after")
    def _parameters_fit(self) -> ListRule:
        for name, by in (("attribute", "attribute"), ("distance", "pdq")):
            given = getattr(self, name) is not None
            if given != (self.by == by):
                raise ValueError(f"by {self.by} takes no `{name}`" if given else f"by {self.by} needs `{name}`")
        if self.action == "allow" and (self.verdict is not None or self.severity is not None):
            raise ValueError("an allow list passes: it takes no `verdict` and no `severity`")
        if self.from_ is None and self.entries is None:
            raise ValueError("needs `from`, a file, or `entries`")
        return self

    @model_validator(mode="after")
    def _entries_in_order(self) -> ListRule:
        if self.entries is not None:
            # Set in spite of the frozen model: sorted and normalised, so that the same list has the same hash.
            object.__setattr__(self, "entries", normalised(self.entries, self.by))
        return self
