"""Decisions from elsewhere into OUT/decisions/: each row checked against the run, nothing written if one is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import UsageError, one_line
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Decision, DecisionSource, check_decision, parse_answer, parse_source
from moderation.pages.text import short_line
from moderation.results.reader import open_run
from moderation.review.label_studio import read_tasks
from moderation.review.plain_exchange import Row, read_csv, read_json_lines
from moderation.review.settings import check_reviewer

MAX_BYTES: Final = 512 << 20
MAX_ROWS: Final = 2_000_000
_SHOWN_FAULTS: Final = 5
_TRUE: Final = ("1", "true", "yes")
_FALSE: Final = ("", "0", "false", "no", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What came of a file. blank: rows without an answer, such as a list that is not filled in to its end."""

    written: int
    repeated: int
    blank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownItem:
    """What a run knows of an item that decisions keep."""

    item_id: str
    uri: str
    content_hash: str | None
    pdq: str | None
    group_id: str | None
    audit: bool


class ItemIndex:
    """The items of a run, by id and by URI."""

    def __init__(self, items: Iterable[KnownItem]) -> None:
        self._by_id = {item.item_id: item for item in items}
        self._by_uri: dict[str, KnownItem | None] = {}
        for item in self._by_id.values():
            # A URI of several items names none of them.
            self._by_uri[item.uri] = None if item.uri in self._by_uri else item

    def find(self, item_id: str, uri: str) -> KnownItem | None:
        """By the id; without one, by the URI."""
        return self._by_id.get(item_id) if item_id else self._by_uri.get(uri)


def import_decisions(out: str, uri: str, format_: str, now: datetime, *, reviewer: str | None = None) -> ImportReport:
    """Append the decisions of a file. format_: `label-studio`, `jsonl` or `csv`. reviewer: of rows that name none.

    Rows that are there already change nothing, so that the same file may be read again. Raises UsageError naming the
    first five rows that cannot be taken, and then writes nothing; LeaseHeldError, FatalError, StorageError.
    """
    index = ItemIndex(read_known_items(out))
    data = read_file(uri)
    readers = {"label-studio": read_tasks, "jsonl": read_json_lines, "csv": read_csv}
    parser = RowParser(index, now, reviewer)
    decisions = parser.parse(readers[format_](data, uri), uri)
    appended = append_decisions(out, decisions) if decisions else None
    return ImportReport(
        written=0 if appended is None else len(appended.written),
        repeated=0 if appended is None else len(appended.repeated),
        blank=parser.blank,
    )


def read_file(uri: str) -> bytes:
    """A file of at most MAX_BYTES. Raises UsageError."""
    try:
        if storage.info(uri).size_bytes > MAX_BYTES:
            raise UsageError(f"{uri}: over {MAX_BYTES >> 20} MiB")
        return storage.read_bytes(uri)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{uri}: no such file") from error


def read_known_items(out: str) -> list[KnownItem]:
    """All items of a run that have a verdict. Raises UsageError."""
    run = open_run(out)
    columns = ("item_id", "uri", "content_hash", "pdq", "group_id", "audit", "status")
    items: list[KnownItem] = []
    for shard_id in run.shard_ids:
        for row in run.read_present("verdicts", shard_id, columns).to_pylist():
            keys = {name: row.get(name) for name in ("content_hash", "pdq", "group_id")}
            items.append(KnownItem(item_id=row["item_id"], uri=row["uri"], audit=bool(row.get("audit")), **keys))
    return items


class RowParser:
    """Rows to decisions; blank: rows without an answer so far."""

    def __init__(self, index: ItemIndex, now: datetime, reviewer: str | None) -> None:
        self._index = index
        self._now = now
        self._reviewer = reviewer
        self.blank = 0

    def parse(self, rows: Iterable[Row], uri: str) -> list[Decision]:
        """All decisions of a file. Raises UsageError naming the first rows that cannot be taken."""
        decisions: list[Decision] = []
        faults: list[str] = []
        for line, cells in rows:
            made = cells if isinstance(cells, str) else self._try_row(cells)
            if isinstance(made, str):
                faults.append(f"row {line}: {made}")
            elif made is None:
                self.blank += 1
            else:
                decisions.append(made)
            if len(faults) == _SHOWN_FAULTS or len(decisions) > MAX_ROWS:
                break
        if len(decisions) > MAX_ROWS:
            raise UsageError(f"{uri}: more than {MAX_ROWS:,} decisions")
        if faults:
            raise UsageError(f"{uri}: nothing was imported, because of these\n" + "\n".join(faults))
        return decisions

    def _try_row(self, cells: Mapping[str, Any]) -> Decision | str | None:
        try:
            return self._parse_row(cells)
        except UsageError as error:
            return one_line(error, 300)

    def _parse_row(self, cells: Mapping[str, Any]) -> Decision | None:
        answer = _text(cells, "decision")
        if not answer:
            return None
        # An id may begin or end with a space, and so may a cell that somebody filled in.
        exact = self._index.find(str(cells.get("item_id") or ""), str(cells.get("uri") or ""))
        item = exact or self._find(_text(cells, "item_id"), _text(cells, "uri"))
        _check_content(item, _text(cells, "content_hash"))
        decision = Decision(
            decision_id=_decision_id(cells),
            item_id=item.item_id,
            decision=parse_answer(answer),
            reviewer=self._reviewer_of(cells),
            decided_at=_time(_text(cells, "decided_at"), self._now),
            uri=item.uri,
            content_hash=item.content_hash,
            pdq=item.pdq,
            group_id=item.group_id,
            labels=_words(cells.get("labels")),
            reason=_text(cells, "reason"),
            comment=_text(cells, "comment"),
            expert=_flag(cells, "expert"),
            source=_source(cells, item),
            exposure_s=_number(cells, "exposure_s"),
            shown=_mapping(cells.get("shown")),
            undoes=_optional(cells, "undoes"),
            claim=_optional(cells, "claim"),
        )
        return check_decision(decision)

    def _find(self, item_id: str, uri: str) -> KnownItem:
        item = self._index.find(item_id, uri)
        if item is None:
            shown = short_line(item_id or uri, 80)
            raise UsageError(f"the run has no item {shown!r}" if shown else "names no item")
        return item

    def _reviewer_of(self, cells: Mapping[str, Any]) -> str:
        return check_reviewer(_text(cells, "reviewer") or self._reviewer or "import")


def _check_content(item: KnownItem, content_hash: str) -> None:
    # Another picture may lie at the same place by now: the answer was about the earlier one.
    if content_hash and item.content_hash and content_hash.lower() != item.content_hash.lower():
        raise UsageError(f"{short_line(item.item_id, 80)!r} has other content in this run: `content_hash` differs")


def _text(cells: Mapping[str, Any], name: str) -> str:
    value = cells.get(name)
    if isinstance(value, dict | list):
        raise UsageError(f"`{name}` is not text")
    return "" if value is None else str(value).strip()


def _optional(cells: Mapping[str, Any], name: str) -> str | None:
    return _text(cells, name) or None


def _source(cells: Mapping[str, Any], item: KnownItem) -> DecisionSource:
    source = parse_source(_text(cells, "source") or DecisionSource.IMPORT)
    # What was not drawn for the audit can't certify, whatever a file says.
    return DecisionSource.IMPORT if source is DecisionSource.AUDIT and not item.audit else source


def _decision_id(cells: Mapping[str, Any]) -> str:
    """The row's id; without one, the same row has the same id: a file that is read twice says the same once."""
    given = _text(cells, "decision_id")
    if given:
        return given
    text = json.dumps({str(name): cells[name] for name in sorted(cells, key=str)}, sort_keys=True, default=str)
    return f"import:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _time(text: str, now: datetime) -> datetime:
    if not text:
        return now
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"`decided_at` is {short_line(text, 40)!r}, not a time like 2026-12-31T12:00:00Z") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _words(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UsageError("`labels` are not words")
    return tuple(dict.fromkeys(word.strip() for word in value if word.strip()))


def _mapping(value: object) -> dict[str, str]:
    if value is None or value == "":
        return {}
    try:
        value = parse_json(value) if isinstance(value, str) else value
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UsageError("`shown` is not a JSON object of texts")
    return value


def _number(cells: Mapping[str, Any], name: str) -> float | None:
    text = _text(cells, name)
    try:
        return float(text) if text else None
    except ValueError as error:
        raise UsageError(f"`{name}` is {short_line(text, 40)!r}, not a number") from error


def _flag(cells: Mapping[str, Any], name: str) -> bool:
    text = _text(cells, name).lower()
    if text not in (*_TRUE, *_FALSE):
        raise UsageError(f"`{name}` is {short_line(text, 40)!r}, neither true nor false")
    return text in _TRUE
