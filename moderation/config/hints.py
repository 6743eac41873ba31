"""The end of a message that suggests the nearest right word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# The lowest similarity (difflib's ratio) at which a word is suggested.
_ALIKE = 0.4


def closest(wrong: object, words: Iterable[str], *, cutoff: float = _ALIKE) -> str | None:
    """The known word most similar to `wrong`; None where none is similar."""
    close = difflib.get_close_matches(str(wrong), list(words), n=1, cutoff=cutoff)
    return close[0] if close else None


def did_you_mean(
    wrong: object, words: Iterable[str], *, otherwise: str = "there are", cutoff: float = _ALIKE, lead: str = "; "
) -> str:
    """`; did you mean 'fetch'?`, or all known words: `; there are: decode, fetch`; empty where there are none.

    otherwise: the text before the list of all words. lead: the text before either.
    """
    words = list(words)
    close = closest(wrong, words, cutoff=cutoff)
    if close is not None:
        return f"{lead}did you mean {close!r}?"
    return f"{lead}{otherwise}: {', '.join(words)}" if words else ""
