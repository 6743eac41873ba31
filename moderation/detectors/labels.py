"""Labels of regions that a stranger wrote: text on a picture, payloads of codes, names of people."""

from __future__ import annotations


def printable(text: str, longest: int) -> str:
    """Safe for a table: nothing that a terminal or a page would obey, on one line, at most `longest` characters."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    return " ".join(shown.split())[:longest]
