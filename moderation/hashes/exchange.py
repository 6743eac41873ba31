"""Lists of known pictures in the formats of other tools: lines of text -> entries; an error names the bad line.

    csv             a header with `hash`, optionally `quality`, `label`, `group`, `entry`, `bank`
    hex             no header: 64 hexadecimal digits, optionally quality and name: what PDQ's own tools print
    vpdq            no header: frame, quality, hash, seconds; one file per video: what vPDQ's own tools write
    threatexchange  records with `indicator` and `type` (only HASH_PDQ is read), optionally `id` and `tags`: CSV with a
                    header, JSON (an array, or a page of the API with `data`), or one object per line

Sources of the formats: https://github.com/facebook/ThreatExchange (pdq, vpdq, python-threatexchange) and the API's
documentation of threat descriptors. Qualities are 0 to 100.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from moderation.config.hints import closest, did_you_mean
from moderation.errors import UsageError
from moderation.hashes.lists import ILLEGAL, MAX_ENTRIES, KnownPicture

FORMATS: Final = ("csv", "hex", "vpdq", "threatexchange")
MAX_LINE: Final = 1 << 16  # characters; a record with all its tags has a few thousand
MAX_JSON: Final = 256 << 20  # characters of a JSON document that does not hold one record per line
_SHOWN: Final = 10  # bad lines that an error names
_MAX_NAME: Final = 500
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
_COLUMNS: Final = ("hash", "quality", "label", "group", "entry")
_PDQ_TYPES: Final = ("HASH_PDQ", "PDQ")


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What has been read of one list so far."""

    name: str
    label: str
    group: str | None
    bad: list[str] = field(default_factory=list)
    refused: int = 0
    skipped: int = 0  # records of another type
    is_illegal: bool = False  # an entry is of such a bank

    def refuse(self, line: int, why: str) -> None:
        self.refused += 1
        if len(self.bad) < _SHOWN:
            self.bad.append(f"{self.name}:{line}: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """What a list holds. skipped: records of another type than PDQ. is_illegal: an entry is of the bank `illegal`."""

    entries: list[KnownPicture]
    skipped: int
    is_illegal: bool = False


def read_exchange(lines: Iterable[str], format_: str, *, name: str, label: str, group: str | None = None) -> Exchanged:
    """Read the entries of a list.

    lines: of the file, with or without line ends. name: of the file, for messages. label, group: for entries that have
    none of their own. Raises UsageError for an unknown format (names the nearest) and for lines that are no entry
    (names the first ten by number): a list that is read in part would miss pictures silently.
    """
    if format_ not in FORMATS:
        raise UsageError(f"--exchange {format_!r}: no such format{did_you_mean(format_, FORMATS)}")
    parse: Callable[[Iterator[str], _Reading], Iterator[KnownPicture]] = {
        "csv": _read_csv,
        "hex": _read_hex,
        "vpdq": _read_vpdq,
        "threatexchange": _read_threatexchange,
    }[format_]
    reading = _Reading(name=name, label=label, group=group)
    entries: list[KnownPicture] = []
    for entry in parse(_bounded(lines, name), reading):
        entries.append(entry)
        if len(entries) > MAX_ENTRIES:
            raise UsageError(f"{name}: more than {MAX_ENTRIES:,} hashes; split it into several lists")
    if reading.refused:
        more = f"\nand {reading.refused - _SHOWN:,} more" if reading.refused > _SHOWN else ""
        raise UsageError("\n".join(reading.bad) + more)
    return Exchanged(entries=entries, skipped=reading.skipped, is_illegal=reading.is_illegal)


def _bounded(lines: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        # The first line may be a whole JSON document.
        limit = MAX_JSON if number == 1 else MAX_LINE
        if len(line) > limit:
            raise UsageError(f"{name}:{number}: a line of {len(line):,} characters; {limit:,} at most")
        # Spreadsheets write a byte order mark.
        yield line.removeprefix("\ufeff") if number == 1 else line


def _entry(reading: _Reading, line: int, cells: Mapping[str, str | None]) -> KnownPicture | None:
    """Make an entry of one line's cells; refuse the line and return None where they are wrong."""
    # One such entry makes the list one: to show a picture by mistake is worse than not to show it.
    reading.is_illegal = reading.is_illegal or (cells.get("bank") or "").strip().lower() == ILLEGAL
    texts = {key: (cells.get(key) or "").strip() for key in _COLUMNS}
    fault = _find_fault(texts)
    if fault:
        reading.refuse(line, fault)
        return None
    return KnownPicture(
        hash=bytes.fromhex(texts["hash"]),
        label=texts["label"] or reading.label,
        quality=int(texts["quality"]) if texts["quality"] else None,
        group=texts["group"] or reading.group,
        entry=texts["entry"] or None,
    )


def _find_fault(texts: Mapping[str, str]) -> str:
    """What is wrong with the cells of an entry; "" where nothing is."""
    if not _HASH.fullmatch(texts["hash"]):
        return f"hash {texts['hash'][:80]!r} is not 64 hexadecimal digits"
    quality = texts["quality"]
    if quality and not (quality.isascii() and quality.isdigit() and int(quality) <= 100):
        return f"quality {quality[:20]!r} is not a whole number from 0 to 100"
    for key in ("label", "group", "entry"):
        if len(texts[key]) > _MAX_NAME or not texts[key].isprintable():
            return f"{key} {texts[key][:40]!r} is longer than {_MAX_NAME} characters, or not printable"
    return ""


def _rows(lines: Iterator[str], reading: _Reading) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not empty."""
    rows = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                yield rows.line_num, row
    except csv.Error as error:
        reading.refuse(rows.line_num, f"not readable as CSV: {error}")


def _read_csv(lines: Iterator[str], reading: _Reading) -> Iterator[KnownPicture]:
    rows = _rows(lines, reading)
    number, first = next(rows, (1, []))
    header = [cell.strip().lower() for cell in first]
    where = f"{reading.name}:{number}"
    if "hash" not in header:
        raise UsageError(f"{where}: no column `hash`{_hint_at_hash(header)}")
    _refuse_misspelt(header, where)
    for number, row in rows:
        if len(row) != len(header):
            reading.refuse(number, f"{len(row)} cells under {len(header)} columns")
        elif (entry := _entry(reading, number, dict(zip(header, row, strict=True)))) is not None:
            yield entry


def _hint_at_hash(header: Sequence[str]) -> str:
    """The end of the message that a header has no column `hash`."""
    if header and len(header) <= 3 and _HASH.fullmatch(header[0]):
        return "; without a header it is read with --exchange hex"
    near = closest("hash", header, cutoff=0.5)
    return f"; {near!r} is near" if near else f"; it has: {', '.join(header)[:200] or 'nothing'}"


def _refuse_misspelt(header: Sequence[str], where: str) -> None:
    """Refuse a misspelt column of ours; other columns are the list's own business."""
    for column in header:
        meant = closest(column, _COLUMNS, cutoff=0.7)
        if column not in _COLUMNS and meant is not None and meant not in header:
            raise UsageError(f"{where}: unknown column {column!r}; did you mean {meant!r}?")


def _read_hex(lines: Iterator[str], reading: _Reading) -> Iterator[KnownPicture]:
    for number, row in _rows(lines, reading):
        if len(row) > 3:
            reading.refuse(number, f"{len(row)} cells; expected hash, or hash,quality, or hash,quality,name")
            continue
        cells = dict(zip(("hash", "quality", "entry"), row, strict=False))
        if (entry := _entry(reading, number, cells)) is not None:
            yield entry


def _read_vpdq(lines: Iterator[str], reading: _Reading) -> Iterator[KnownPicture]:
    # All frames of one file belong to one video.
    reading.group = reading.group or reading.name
    for number, row in _rows(lines, reading):
        if len(row) != 4:
            reading.refuse(number, f"{len(row)} cells; expected frame,quality,hash,seconds")
            continue
        cells = {"quality": row[1], "hash": row[2], "entry": f"{row[0].strip()} at {row[3].strip()} s"}
        if (entry := _entry(reading, number, cells)) is not None:
            yield entry


def _read_threatexchange(lines: Iterator[str], reading: _Reading) -> Iterator[KnownPicture]:
    for number, record in _records(lines, reading):
        kind = str(record.get("type") or "")
        if kind.upper() not in _PDQ_TYPES:
            reading.skipped += 1
            continue
        tags = record.get("tags") or record.get("labels") or record.get("label")
        told = record.get("quality")
        cells = {
            "hash": str(record.get("indicator") or ""),
            "quality": None if told is None else str(told),
            "label": "+".join(_tags(tags)),
            "entry": str(record.get("id") or ""),
            "bank": str(record.get("bank") or ""),
        }
        if (entry := _entry(reading, number, cells)) is not None:
            yield entry


def _tags(tags: Any) -> list[str]:  # noqa: ANN401 - what a stranger's JSON holds
    """Read tags: a list of names, records `{"data": [{"text": ...}]}` as the API gives them, or one text."""
    if isinstance(tags, Mapping):
        tags = tags.get("data")
    if isinstance(tags, str):
        return sorted({t.strip() for t in re.split(r"[|;,]", tags.strip("[] ")) if t.strip()})
    if not isinstance(tags, list):
        return []
    texts = [t.get("text") if isinstance(t, Mapping) else t for t in tags]
    return sorted({str(t).strip() for t in texts if t})


def _records(lines: Iterator[str], reading: _Reading) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Records, each with the line (in an array: the place) where it stands."""
    first = next((line for line in lines if line.strip()), "")
    start = first.lstrip()[:1]
    if start not in ("{", "["):
        return _csv_records(chain((first,), lines), reading)
    if start == "{" and (record := _as_record(first)) is not None and "data" not in record:
        return _record_lines(chain((first,), lines), reading)
    return _document(first, lines, reading)


def _csv_records(lines: Iterator[str], reading: _Reading) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = _rows(lines, reading)
    number, header = next(rows, (1, []))
    names = [cell.strip().lower() for cell in header]
    if "indicator" not in names or "type" not in names:
        raise UsageError(f"{reading.name}:{number}: no columns `indicator` and `type`; it has: {', '.join(names)}")
    for number, row in rows:
        if len(row) != len(names):
            reading.refuse(number, f"{len(row)} cells under {len(names)} columns")
        else:
            yield number, dict(zip(names, row, strict=True))


def _as_record(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _record_lines(lines: Iterator[str], reading: _Reading) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _as_record(line)
        if record is None:
            reading.refuse(number, "not a JSON object")
        else:
            yield number, record


def _document(first: str, lines: Iterator[str], reading: _Reading) -> Iterator[tuple[int, Mapping[str, Any]]]:
    texts, size = [first], len(first)
    for line in lines:
        texts.append(line if line.endswith("\n") else f"{line}\n")
        size += len(line)
        if size > MAX_JSON:
            raise UsageError(f"{reading.name}: over {MAX_JSON:,} characters of JSON; one object per line has no limit")
    try:
        tree = json.loads("".join(texts))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{reading.name}: not readable as JSON: {error}") from error
    records = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(records, list):
        raise UsageError(f"{reading.name}: JSON without a list of records (an array, or `data`)")
    for place, record in enumerate(records, start=1):
        if isinstance(record, dict):
            yield place, record
        else:
            reading.refuse(place, "not a JSON object")
