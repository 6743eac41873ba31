"""Labelled pictures: a file of labels joined to the items of a source."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.config.hints import closest, did_you_mean
from moderation.errors import UsageError
from moderation.labels.label_files import read_training_rows
from moderation.labels.rows import AUDIT
from moderation.training.reading import hold_to_contents
from moderation.types import Item

_MAX_BYTES = 256 << 20
# Columns that may name the picture; the first one present counts.
NAMES = ("uri", "item_id", "path", "file", "filename", "file_name", "image", "img_name", "name")
# `pass`: what reviewers say of an item with nothing amiss.
_YES, _NO = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no", "pass"})
_RULE = re.compile(r"^\s*(?P<name>\w+)\s*:\s*(?P<column>[^<>=]+?)\s*(?P<compare><=|>=|<|>)\s*(?P<number>-?[\d.]+)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`offensive: moral_mean < 2.5`: which rows of a table of ratings belong to a class."""

    name: str
    column: str
    compare: str
    number: float

    def holds(self, value: float) -> bool:
        """Whether a row with this value belongs to the class."""
        if self.compare.startswith("<"):
            return value < self.number or (self.compare == "<=" and value == self.number)
        return value > self.number or (self.compare == ">=" and value == self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Items with their classes (index among the classes); unlabelled: items without a label."""

    items: tuple[Item, ...]
    targets: tuple[int, ...]
    unlabelled: int


def parse_rule(text: str) -> Rule:
    """Parse a rule of the command line. Raises UsageError."""
    match = _RULE.match(text)
    try:
        if match:
            number = float(match["number"])
            return Rule(name=match["name"], column=match["column"], compare=match["compare"], number=number)
    except ValueError:
        pass
    raise UsageError(f"--rule {text!r}: expected `class: column < number`")


def read_labels(
    uri: str, classes: Sequence[str], *, column: str = "label", rules: Sequence[Rule] = ()
) -> dict[str, int]:
    """Name of a picture -> class, from CSV, TSV or JSON lines with a name (`NAMES`) and a label.

    classes: their names, in order. Where one of two is `against`, the other may be written as 1, and `against` as 0
    or `pass`.
    rules: replace the column `label`; rows that meet no rule are left out.
    Raises UsageError that names the line and the nearest right word.
    """
    for rule in rules:
        _class_of(rule.name, classes, f"--rule {rule.name}")
    labels: dict[str, int] = {}
    for number, row in read_label_rows(uri, learned=True):
        where = f"{uri}, line {number}"
        key = picture_of(row)
        if not key:
            raise UsageError(f"{where}: names no picture in any of: {', '.join(NAMES)}")
        target = _by_rules(row, rules, classes, where) if rules else _by_column(row, column, classes, where)
        if target is None:
            continue
        if labels.setdefault(key, target) != target:
            raise UsageError(f"{where}: {key!r} has two labels")
    if not labels:
        raise UsageError(f"{uri}: labels nothing")
    return labels


def hold_to_labels(items: Sequence[Item], labels: str, source: str) -> list[Item]:
    """The items, each held to the content that its label is of, where a file of labels or an OUT tells that."""
    rows = read_label_rows(labels, learned=False)
    told = {picture_of(row): row["content_hash"] for _, row in rows if row.get("content_hash")}
    # The most specific name last, so that it is the one that counts.
    named = ((item.uri, name) for item in items for name in reversed(names_of_item(item, source)) if name in told)
    return hold_to_contents(items, {uri: told[name] for uri, name in named})


def join_labels(items: Iterable[Item], labels: Mapping[str, int], source: str, classes: Sequence[str]) -> Labelled:
    """The items that have a label: by URI, item_id, path below the source, file name, or file name without extension.

    Raises UsageError when a class has fewer than two pictures, or a name fits several pictures.
    """
    listed = list(items)
    names = [names_of_item(item, source) for item in listed]
    bearers = Counter(name for own in names for name in set(own))
    chosen: list[Item] = []
    targets: list[int] = []
    for item, own in zip(listed, names, strict=True):
        name = next((name for name in own if name in labels), None)
        if name is None:
            continue
        if bearers[name] > 1:
            raise UsageError(f"the label of {name!r} could mean {bearers[name]} pictures; write more of its path")
        chosen.append(item)
        targets.append(labels[name])
    if not chosen:
        example = next(iter(labels))
        raise UsageError(f"{source}: none of its {len(listed)} pictures has a label; the first label is of {example!r}")
    _refuse_small_classes(Counter(targets), classes)
    return Labelled(items=tuple(chosen), targets=tuple(targets), unlabelled=len(listed) - len(chosen))


def _refuse_small_classes(counts: Mapping[int, int], classes: Sequence[str]) -> None:
    for index, name in enumerate(classes):
        if counts[index] < 2:
            raise UsageError(f"class {name!r} has {counts[index]} labelled pictures; at least two are needed")


def read_label_rows(uri: str, *, learned: bool) -> list[tuple[int, Mapping[str, str]]]:
    """The rows of a file of labels (CSV, TSV, JSON lines) with their lines; or of an OUT, one per item decided there.

    learned: without the pictures of an audit: its labels could not certify what has learned from them.
    Raises UsageError.
    """
    rows = list(enumerate(_rows(uri), start=2))
    audited = (
        {key for _, row in rows if row.get("source", "").strip() == AUDIT for key in _keys(row)} if learned else set()
    )
    kept = [(number, row) for number, row in rows if not audited & _keys(row)]
    if audited and not kept:
        raise UsageError(f"{uri}: only labels of an audit, which nothing may learn from")
    return kept


def picture_of(row: Mapping[str, str]) -> str:
    """What a row names its picture by; empty where it names none."""
    return next((row[name] for name in NAMES if row.get(name)), "")


def _keys(row: Mapping[str, str]) -> set[str]:
    """What a row's picture is known by: its name, and its content under any name."""
    return {picture_of(row), row.get("content_hash", "")} - {""}


def _rows(uri: str) -> Iterator[Mapping[str, str]]:
    decided = read_training_rows(uri)
    if decided is not None:
        # Of an object that was replaced and decided again, the newer content is the one that lies there.
        yield from {row["item_id"]: row for row in decided}.values()
        return
    text = _read_text(uri)
    if uri.lower().endswith((".jsonl", ".ndjson")):
        yield from _json_rows(uri, text)
        return
    delimiter = "\t" if uri.lower().endswith(".tsv") else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for record in rows:
            yield {key: value or "" for key, value in record.items() if isinstance(key, str)}
    except csv.Error as error:
        raise UsageError(f"{uri}, line {rows.line_num}: not readable as CSV: {error}") from error


def _read_text(uri: str) -> str:
    try:
        data = storage.read_bytes(uri, offset=0, length=_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{uri}: no such file") from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{uri}: over {_MAX_BYTES >> 20} MiB of labels")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not UTF-8 text") from error


def _json_rows(uri: str, text: str) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = parse_json(line) if line.strip() else {}
        except ValueError as error:
            raise UsageError(f"{uri}, line {number}: not JSON") from error
        if not isinstance(row, dict):
            raise UsageError(f"{uri}, line {number}: not a JSON object")
        if row:
            yield {str(key): "" if value is None else str(value) for key, value in row.items()}


def _by_column(row: Mapping[str, str], column: str, classes: Sequence[str], where: str) -> int | None:
    if column not in row:
        raise UsageError(f"{where}: no column {column!r}{did_you_mean(column, row)}")
    text = row[column].strip()
    return _class_of(text, classes, where) if text else None


def _by_rules(row: Mapping[str, str], rules: Sequence[Rule], classes: Sequence[str], where: str) -> int | None:
    claimed: set[int] = set()
    for rule in rules:
        if rule.column not in row:
            raise UsageError(f"{where}: no column {rule.column!r}; there are: {', '.join(row)}")
        try:
            value = float(row[rule.column])
        except ValueError:
            continue  # an empty or missing rating belongs to no class
        if rule.holds(value):
            claimed.add(classes.index(rule.name))
    if len(claimed) > 1:
        raise UsageError(f"{where}: two rules claim it for different classes")
    return claimed.pop() if claimed else None


def _class_of(text: str, classes: Sequence[str], where: str) -> int:
    if text in classes:
        return classes.index(text)
    if "against" in classes and text.lower() in _YES | _NO:
        other = classes.index("against")
        return 1 - other if text.lower() in _YES else other
    near = closest(text, classes)
    hint = f"; did you mean {near!r}?" if near is not None else ""
    raise UsageError(f"{where}: no class {text!r}{hint}; there are: {', '.join(classes)}")


def names_of_item(item: Item, source: str) -> list[str]:
    """The names that a label may use for an item, the most specific first."""
    name = item.objects[0].name if item.objects else ""
    base = item.uri.rsplit("/", 1)[-1] or name
    below = item.uri.removeprefix(storage.canonical(source).rstrip("/") + "/")
    return list(dict.fromkeys([item.uri, item.item_id, below, base, base.rpartition(".")[0] or base]))
