"""Lines of a text file in storage, and CSV records from them: an unreadable line is reported by number, never lost."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator

from moderation.sources.unpack import DamagedTextError, read_text

MAX_LINE = 1024 * 1024
# A quoted cell may span this many lines; beyond that, the quote is taken for a mistake in its first line.
MAX_CELL_LINES = 100

UNREADABLE = "not UTF-8, longer than 1 MiB, or where a packed file is damaged or ends early"

Line = tuple[int, str | None]  # its number from 1, and its text, None where unreadable


def read_lines(uri: str) -> Iterator[Line]:
    """The lines of a text (UTF-8, or UTF-16 and UTF-32 as marked) without their ends, in bounded memory.

    Raises FileNotFoundError, PermissionError, StorageError.
    """
    for number, raw in enumerate(_raw_lines(uri), start=1):
        if raw is None:
            yield number, None
            continue
        try:
            yield number, raw.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError:
            yield number, None


def _raw_lines(uri: str) -> Iterator[bytes | None]:
    rest = b""
    cut = False  # the current line is too long: its bytes are dropped up to its end
    for chunk in _chunks_and_damage(uri):
        if chunk is None:
            cut = True
            continue
        pieces = (rest + chunk).split(b"\n")
        rest = pieces.pop()
        for piece in pieces:
            yield None if cut else _line(piece)
            cut = False
        if len(rest) > MAX_LINE:
            cut, rest = True, b""
    if cut or rest:
        yield None if cut else _line(rest)


def _line(piece: bytes) -> bytes | None:
    return piece if len(piece) <= MAX_LINE else None


def _chunks_and_damage(uri: str) -> Iterator[bytes | None]:
    """The content of a file; None in place of the rest where a packed file is damaged."""
    try:
        yield from read_text(uri)
    except DamagedTextError:
        yield None


def csv_records(
    lines: Iterator[Line], width: int | None = None, delimiter: str = ","
) -> Iterator[tuple[int, list[str] | str]]:
    """CSV records with the number of their first line; in place of a bad record, the error of that line.

    Cells are stripped of spaces: people and spreadsheets write `a.jpg, cat`.

    Cells may be quoted and hold line breaks. A record that does not have `width` cells, or whose quotes don't end, is
    one bad line: the lines after it are read afresh, so that a stray quote can't swallow them. Blank lines are skipped.
    """
    ahead: deque[Line] = deque()

    def take() -> Line | None:
        return ahead.popleft() if ahead else next(lines, None)

    while (line := take()) is not None:
        number, text = line
        if text is None:
            yield number, UNREADABLE
            continue
        if not text.strip(" \r"):
            continue
        taken: list[Line] = []
        # The csv module is used only where it makes a difference.
        quoted = '"' in text or "\r" in text
        record = _quoted(text, take, taken, delimiter) if quoted else text.split(delimiter)
        if record is not None and (width is None or len(record) == width):
            yield number, [cell.strip(" \t") for cell in record]
            continue
        ahead.extendleft(reversed(taken))
        yield number, _fault_of(record, width)


def _fault_of(record: list[str] | None, width: int | None) -> str:
    if record is None:
        return "the quotes or line breaks of this line are not valid CSV"
    return f"{len(record)} cells where the header has {width}"


def _quoted(text: str, take: Callable[[], Line | None], taken: list[Line], delimiter: str) -> list[str] | None:
    """One record that may go on over further lines, which are put into `taken`; None if it is not CSV."""

    def feed() -> Iterator[str]:
        yield f"{text}\n"
        for _ in range(MAX_CELL_LINES):
            line = take()
            if line is None:
                return
            taken.append(line)
            if line[1] is None:
                return
            yield f"{line[1]}\n"

    try:
        # strict: a quote that never ends is an error, and not the end of the file.
        return next(csv.reader(feed(), strict=True, delimiter=delimiter, skipinitialspace=True), None)
    except csv.Error:
        return None
