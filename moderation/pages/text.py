"""Text that people read: strangers' text made safe; counts, shares, sizes and spans. Imports nothing heavy."""

from __future__ import annotations

import json
from typing import Final

_SHOWN_CHARS: Final = 240
_SENTENCE_CHARS: Final = 1_000
UNKNOWN: Final = "–"


def printable(text: str, *, instead: str = " ") -> str:
    """One line; characters that reorder or hide the text around them are replaced by `instead`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else instead for c in text)


def escaped(value: object) -> str:
    r"""A stranger's text on a terminal or in a log: one line; what steers or turns text is `\x1b`, `\u202e`, `\n`."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def escaped_lines(text: str) -> str:
    """Lines of ours with a stranger's text in them: as `escaped`, but the ends of lines stay."""
    return "\n".join(map(escaped, text.split("\n")))


def json_text(value: object, *, indent: int | None = None) -> str:
    r"""JSON for a terminal or a log: letters of all languages as they are, all else beyond ASCII as `\u202e`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    # json escapes what is below 0x20 within strings by itself; the ends of lines that are left are its own.
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_json_escape, line)) for line in lines)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _json_escape(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def short_line(text: str, max_chars: int) -> str:
    """A stranger's text for a table: printable, with single spaces, and bounded."""
    # Cut first: a stranger may have written megabytes.
    return " ".join(printable(text[: 4 * max_chars]).split())[:max_chars]


def plain(value: object) -> str:
    """A stranger's text for a page: printable and bounded. Writers of HTML must still escape it."""
    text = printable(str(value), instead="\N{REPLACEMENT CHARACTER}")
    half = _SHOWN_CHARS // 2
    # Names differ at their end as often as at their start: cut in the middle.
    return text if len(text) <= _SHOWN_CHARS else f"{text[:half]} … {text[-half:]}"


def sentence(text: str) -> str:
    """A sentence of ours with strangers' names in it: printable and bounded."""
    shown = printable(text, instead="\N{REPLACEMENT CHARACTER}")
    return shown if len(shown) <= _SENTENCE_CHARS else f"{shown[:_SENTENCE_CHARS]} …"


def count(value: float | None) -> str:
    """A whole number with commas."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def number(value: float | None) -> str:
    """A number with three digits, or with all digits before the point."""
    return UNKNOWN if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def percent(share: float | None) -> str:
    """A share in percent; never 0% for a share above 0, never 100% for a share below 1."""
    if share is None:
        return UNKNOWN
    if 0 < share < 0.001:
        return "< 0.1%"
    if 0.999 < share < 1:
        return "> 99.9%"
    return f"{share:.0%}" if share in (0.0, 1.0) else f"{share:.1%}"


def size(size_bytes: float | None) -> str:
    """Bytes in the largest binary unit that keeps the number above 1."""
    if size_bytes is None:
        return UNKNOWN
    value = size_bytes
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def span(seconds: float | None) -> str:
    """A length of time in two units at most."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.1 or seconds == 0 else f"{seconds * 1000:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
