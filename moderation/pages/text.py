"""Text that people read: strangers' text made safe; counts, shares, sizes and spans. Imports nothing heavy."""

from __future__ import annotations

from typing import Final

_SHOWN_CHARS: Final = 240
UNKNOWN: Final = "–"


def printable(text: str, *, instead: str = " ") -> str:
    """One line; characters that reorder or hide the text around them are replaced by `instead`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else instead for c in text)


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
