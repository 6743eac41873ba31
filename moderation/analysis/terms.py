"""Which words and values stand out among some items: weighted log odds with counts. Pure.

Monroe, Colaresi, Quinn 2008, "Fightin' words" (https://doi.org/10.1093/pan/mpn018): the log odds of a term among the
chosen against the rest, both smoothed by how common the term is in all, over its standard error. A term that occurs
once can have any odds; its z is small.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Attributes come from an untrusted manifest: bounded in kinds, in length and in number.
MAX_TERMS = 200_000
MAX_ATTRIBUTES = 64
_MAX_VALUE_CHARS = 64
_MAX_TEXT_CHARS = 4_000
_PRIOR = 100.0  # pseudo-items with the overall frequencies; some tens of real ones outweigh them
_WORD = re.compile(r"[^\W\d_][\w'-]{2,31}")
_COMMON = frozenset((
    "and", "are", "for", "from", "has", "have", "his", "her", "its", "not", "that", "the",
    "their", "them", "they", "this", "was", "were", "will", "with", "you", "your",
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A value or a word of an attribute. chosen, others: items that have it. lift: its share among the chosen, over
    that among all. z: how significant this is; over 2 is worth a look.
    """

    attribute: str
    term: str
    chosen: int
    others: int
    lift: float
    log_odds: float
    z: float


class TermCounts:
    """How many items have each term; rare ones are dropped when there are too many."""

    def __init__(self) -> None:
        self.items = 0
        self.dropped = False
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, terms: Iterable[tuple[str, str]]) -> None:
        """One item's terms."""
        self.items += 1
        self._counts.update(terms)
        if len(self._counts) > MAX_TERMS:
            kept = self._counts.most_common(MAX_TERMS // 2)
            self._counts = Counter(dict(kept))
            self.dropped = True

    def __getitem__(self, term: tuple[str, str]) -> int:
        return self._counts[term]

    def terms(self) -> Iterable[tuple[tuple[str, str], int]]:
        """Each term with its items."""
        return self._counts.items()


def terms_of(attributes: Mapping[str, str]) -> set[tuple[str, str]]:
    """(attribute, term) of an item: a short value as it is, and the words of a longer one."""
    terms: set[tuple[str, str]] = set()
    for key, value in list(attributes.items())[:MAX_ATTRIBUTES]:
        text = " ".join(value[:_MAX_TEXT_CHARS].split()).lower()
        if not text:
            continue
        words = {word for word in _WORD.findall(text) if word not in _COMMON}
        if len(text) <= _MAX_VALUE_CHARS and len(text.split()) <= 3:
            terms.add((key, text))
            words.discard(text)
        if len(text.split()) > 1:
            terms.update((key, word) for word in words)
    return terms


def over_represented(
    chosen: TermCounts, everything: TermCounts, *, limit: int = 20, min_items: int = 2
) -> tuple[Term, ...]:
    """Terms that the chosen have more often than the rest, by falling z; `everything` includes `chosen`.

    min_items: items among the chosen that must have a term.
    """
    if not chosen.items or everything.items <= chosen.items:
        return ()
    weighed = [_weigh(term, chosen, everything) for term, count in chosen.terms() if count >= min_items]
    more_often = [term for term in weighed if term.log_odds > 0]
    return tuple(sorted(more_often, key=lambda t: (-t.z, t.attribute, t.term))[:limit])


def _weigh(key: tuple[str, str], chosen: TermCounts, everything: TermCounts) -> Term:
    count = chosen[key]
    others = everything.items - chosen.items
    whole = max(count, everything[key])
    rest = whole - count
    # The prior has the term's share among all items, kept below 1: a term of all items would have infinite odds.
    prior = _PRIOR * min(whole / everything.items, 1 - 1e-9)
    odds = [(yes + prior) / (n + _PRIOR - yes - prior) for yes, n in ((count, chosen.items), (rest, others))]
    log_odds = math.log(odds[0] / odds[1])
    return Term(
        attribute=key[0],
        term=key[1],
        chosen=count,
        others=rest,
        lift=(count / chosen.items) / (whole / everything.items),
        log_odds=log_odds,
        z=log_odds / math.sqrt(1 / (count + prior) + 1 / (rest + prior)),
    )
