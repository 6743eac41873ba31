"""The nearest right word to a wrong one, as the end of a message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# How alike two words must be (difflib's ratio) for one to be offered for the other.
_ALIKE = 0.4


def closest(wrong: object, known: Iterable[str], *, cutoff: float = _ALIKE) -> str | None:
    """The known word that is most like `wrong`; None where none is alike."""
    close = difflib.get_close_matches(str(wrong), list(known), n=1, cutoff=cutoff)
    return close[0] if close else None


def did_you_mean(
    wrong: object, known: Iterable[str], *, otherwise: str = "there are", cutoff: float = _ALIKE, lead: str = "; "
) -> str:
    """`; did you mean 'fetch'?`, or all known words: `; there are: decode, fetch`; empty where none is known.

    otherwise: what stands before the list of all. lead: what stands before either.
    """
    words = list(known)
    close = closest(wrong, words, cutoff=cutoff)
    if close is not None:
        return f"{lead}did you mean {close!r}?"
    return f"{lead}{otherwise}: {', '.join(words)}" if words else ""
