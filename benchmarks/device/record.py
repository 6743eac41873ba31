"""What was measured, a line of JSON each, written at once: a crash, a hang or a device error loses no line."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_TAIL_LINES = 12


class DeviceLostError(Exception):
    """The process's device context is gone: what is left of the section needs a fresh process."""


class Record:
    """The lines of one section, and how many seconds it has left.

    A piece that an earlier process of this section began is not begun again: it may be what ended that process.
    """

    def __init__(self, path: Path, section: str, seconds: float, *, tiny: bool = False) -> None:
        self.path = path
        self.section = section
        self._tiny = tiny  # nothing is left out for want of time
        self._ends_s = time.monotonic() + seconds
        self._begun = {line["piece"] for line in read_lines(path) if line["section"] == section}

    def left_s(self) -> float:
        """Seconds until this section should end."""
        return self._ends_s - time.monotonic()

    def add(self, piece: str, **facts: Any) -> None:  # noqa: ANN401 - anything that JSON holds
        """Write one line."""
        with self.path.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps({"section": self.section, "piece": piece, **facts}, default=str) + "\n")

    def measure(self, piece: str, work: Callable[[], Mapping[str, Any]], *, needs_s: float = 1.0) -> bool:
        """Record what `work()` returns, or its error; False when it failed or there was no time for it.

        Raises DeviceLostError after a device error.
        """
        if piece in self._begun:
            return False
        if self.left_s() < needs_s and not self._tiny:
            self.add(piece, skipped=f"{self.left_s():.0f} s left, {needs_s:g} needed")
            return False
        self.add(piece, begun=True)
        began_s = time.monotonic()
        try:
            facts = dict(work())
        except Exception as error:  # a benchmark goes on with the next piece
            self.add(piece, error=error_tail(error), took_s=round(time.monotonic() - began_s, 2))
            if type(error).__name__ == "AcceleratorError":
                raise DeviceLostError(str(error)) from error
            return False
        self.add(piece, **facts, took_s=round(time.monotonic() - began_s, 2))
        return True


def error_tail(error: BaseException) -> str:
    """The end of an error's traceback."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines so far; one that is cut off is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def merge_lines(lines: list[dict[str, Any]], sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Section -> how it ended, and its pieces; a piece that began and did not end says so."""
    merged: dict[str, Any] = {name: {**facts, "pieces": {}} for name, facts in sections.items()}
    for line in lines:
        facts = {key: value for key, value in line.items() if key not in ("section", "piece")}
        pieces = merged.setdefault(line["section"], {"pieces": {}})["pieces"]
        if facts.get("begun"):
            pieces.setdefault(line["piece"], {"error": "began, and its process was gone before it ended"})
        else:
            pieces[line["piece"]] = facts
    return merged
