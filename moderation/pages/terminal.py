"""What a terminal shows: the console that jobs and the runtime print on, verdicts in their colours, time left.

The console takes no markup; of what is printed on it, nothing steers a terminal but its own colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from moderation.pages.text import escaped, escaped_lines
from moderation.types import Verdict

VERDICT_STYLES: Final[Mapping[str, str]] = {"block": "bold red", "review": "yellow", "pass": "green"}


class PlainConsole(Console):
    r"""Takes text as it is: a stranger's ESC, control and bidi characters come out as `\x1b`, `\u202e`.

    The ends of lines stay, in messages and in cells: whoever prints a name says `escaped(name)`.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, stderr=stderr, soft_wrap=soft_wrap)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's own options, handed on
        """As rich does, of the escaped text: what a cell takes is known before a table is laid out."""
        return super().render_str(escaped_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does; texts that were not made by `render_str` are escaped, too."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped_lines(segment.text), segment.style)


def verdict_counts(counts: Mapping[str, int]) -> Text:
    """`block 1  review 20  pass 300`, each in its colour."""
    known = [str(verdict) for verdict in Verdict]
    names = [*known, *sorted(set(counts) - set(known))]
    parts = [Text(f"{escaped(name)} {counts.get(name, 0):,}", style=VERDICT_STYLES.get(name, "")) for name in names]
    return Text("  ").join(parts)


def describe_left(left_s: float) -> str:
    """`about 4 min left`; never more exact than it is."""
    if left_s < 90:
        return "about a minute left" if left_s > 20 else "seconds left"
    minutes = round(left_s / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes / 60:.0f} h left"
