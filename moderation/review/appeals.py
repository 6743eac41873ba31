"""Appeals: requests to look again at items, in OUT/review/appeals.jsonl; what became of them is in the decisions."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.pages.text import short_line
from moderation.results.review_layout import appeals_uri
from moderation.review.plain_exchange import Row, decode_text, read_json_lines

APPEAL: Final = "appeal"  # the key of `shown` that has the id of the appeal
MAX_TEXT_CHARS: Final = 4096
MAX_APPEALS: Final = 1_000_000
_MAX_BYTES: Final = 256 << 20
_SHOWN_FAULTS: Final = 5
_COLUMNS: Final = ("item_id", "text", "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Appeal:
    """A request to look again at an item. appeal: its id, from the rest. time: as given, ISO 8601 in UTC."""

    item_id: str
    text: str
    time: str

    @property
    def appeal(self) -> str:
        """The id: the same request, the same id."""
        return hashlib.sha256("\0".join((self.item_id, self.time, self.text)).encode()).hexdigest()[:16]

    def is_decided_by(self, decision: Decision) -> bool:
        """Whether this is the decision of this appeal; who skips or escalates it has not decided it."""
        return (
            decision.source is DecisionSource.APPEAL
            and decision.shown.get(APPEAL) == self.appeal
            and decision.decision in (Answer.BLOCK, Answer.PASS)
        )


def read_appeals(out: str) -> list[Appeal]:
    """The appeals of an OUT, in the order in which they came; none where there are none. Raises UsageError."""
    data = storage.read_optional(appeals_uri(out))
    return [] if data is None else _parse_all(read_json_lines(data, appeals_uri(out)), appeals_uri(out))


def add_appeals(out: str, new: Sequence[Appeal]) -> int:
    """Keep these in OUT/review/appeals.jsonl; returns how many were not there. Raises UsageError, FatalError."""
    kept = {appeal.appeal: appeal for appeal in read_appeals(out)}
    before = len(kept)
    kept.update({appeal.appeal: appeal for appeal in new if appeal.appeal not in kept})
    if len(kept) > MAX_APPEALS:
        raise UsageError(f"{out}: more than {MAX_APPEALS:,} appeals")
    if len(kept) > before:
        lines = [json.dumps(asdict(appeal)) for appeal in kept.values()]
        storage.publish(appeals_uri(out), ("\n".join(lines) + "\n").encode())
    return len(kept) - before


def read_appeals_file(uri: str) -> list[Appeal]:
    """Appeals from CSV or JSON lines with `item_id`, `text` and `time`.

    Raises UsageError naming the first lines that cannot be read, or a missing column and the nearest that is there.
    """
    suffix = uri.lower().rpartition(".")[2]
    if suffix not in ("csv", "jsonl", "json"):
        raise UsageError(f"{uri}: appeals are read from .csv and .jsonl")
    try:
        if storage.info(uri).size_bytes > _MAX_BYTES:
            raise UsageError(f"{uri}: over {_MAX_BYTES >> 20} MiB of appeals")
        data = storage.read_bytes(uri)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{uri}: no such file of appeals") from error
    rows = _csv_rows(data, uri) if suffix == "csv" else read_json_lines(data, uri)
    return _parse_all(rows, uri)


def _parse_all(rows: Iterable[Row], uri: str) -> list[Appeal]:
    appeals: list[Appeal] = []
    faults: list[str] = []
    for line, cells in rows:
        made = cells if isinstance(cells, str) else _parse(cells)
        if isinstance(made, Appeal):
            appeals.append(made)
        else:
            faults.append(f"line {line}: {made}")
        if len(faults) == _SHOWN_FAULTS:
            break
    if faults:
        raise UsageError(f"{uri}: not all of it is readable as appeals\n" + "\n".join(faults))
    if not appeals:
        raise UsageError(f"{uri}: no appeals in it")
    return appeals


def _parse(cells: Mapping[str, Any]) -> Appeal | str:
    texts = {name: str(cells.get(name) or "").strip() for name in _COLUMNS}
    if not texts["item_id"]:
        hint = did_you_mean("item_id", [short_line(str(name), 40) for name in cells], otherwise="it has")
        return f"names no item: no `item_id`{hint}"
    if max(map(len, texts.values())) > MAX_TEXT_CHARS:
        return f"more than {MAX_TEXT_CHARS:,} characters in a cell"
    try:
        "".join(texts.values()).encode()
        time = datetime.fromisoformat(texts["time"])
    except UnicodeEncodeError:
        return "not text that UTF-8 can hold"
    except ValueError:
        return f"`time` is {short_line(texts['time'], 40)!r}, not a time like 2026-12-31T12:00:00Z"
    aware = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return Appeal(item_id=texts["item_id"], text=texts["text"], time=aware.isoformat())


def _csv_rows(data: bytes, uri: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(decode_text(data, uri), newline=""))
    try:
        for record in reader:
            cells = {key.strip().lower(): value for key, value in record.items() if isinstance(key, str)}
            yield reader.line_num, cells
    except csv.Error as error:
        yield reader.line_num, f"not readable as CSV: {error}"
