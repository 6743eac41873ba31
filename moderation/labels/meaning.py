"""What a label means to a policy: whether an item is bad, and which of its checks are right to object. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.labels.resolve import Words
from moderation.pages.text import short_line

FINE_WORDS: Final = frozenset({"ok", "fine", "good", "pass", "safe", "sfw", "none", "0", "false"})
BAD_WORDS: Final = frozenset({"bad", "block", "unsafe", "nsfw", "1", "true"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """How words of labels are read.

    sides: check -> `negative`, `positive` or `attribute`, as in the policy. bad: words that are bad whatever the checks
    are called. means: word -> the checks that it confirms, besides the check of the same name.
    """

    sides: Mapping[str, str]
    bad: frozenset[str] = BAD_WORDS
    means: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def is_bad(self, words: Words) -> bool:
        """Whether an item of this label must not be passed."""
        return any(word in self.bad or self._confirms_objection(word) for word in words)

    def confirms(self, words: Words, check: str) -> bool:
        """Whether the check should score high on it.

        A bad word that names no check confirms every negative check. A label that is not bad confirms every positive
        check, unless its words name other positive checks.
        """
        named = frozenset(name for word in words for name in self.checks_of(word))
        if self.sides[check] == "negative":
            objecting = any(self.sides[name] == "negative" for name in named)
            return check in named or (not objecting and self.is_bad(words))
        if any(self.sides[name] != "negative" for name in named):
            return check in named
        return not self.is_bad(words)

    def checks_of(self, word: str) -> frozenset[str]:
        """The checks that a word names."""
        own = frozenset({word}) if word in self.sides else frozenset()
        return own | self.means.get(word, frozenset())

    def _confirms_objection(self, word: str) -> bool:
        return any(self.sides[name] == "negative" for name in self.checks_of(word))


def make_meaning(
    sides: Mapping[str, str], words: Collection[str], bad: Sequence[str] = (), means: Sequence[str] = ()
) -> Meaning:
    """How the words of a labels file are read.

    bad: words that are bad; where any is given, every unknown word is fine. means: `CHECK=WORD`.
    Raises UsageError for a word without a meaning, naming what it could have been.
    """
    mapped = _parse_means(sides, means)
    absent = [word for word in [*bad, *mapped] if word not in words]
    if absent:
        raise UsageError(f"no label says {absent[0]!r}{did_you_mean(absent[0], sorted(words)[:50])}")
    known = {*sides, *mapped, *bad, *FINE_WORDS, *BAD_WORDS}
    unknown = sorted(word for word in words if word not in known)
    if unknown and not bad:
        raise UsageError(_describe_unknown(unknown, sides))
    return Meaning(sides=sides, bad=BAD_WORDS | set(bad), means=mapped)


def _parse_means(sides: Mapping[str, str], means: Sequence[str]) -> dict[str, frozenset[str]]:
    mapped: dict[str, frozenset[str]] = {}
    for entry in means:
        check, equals, word = (part.strip() for part in entry.partition("="))
        if not equals or not word:
            raise UsageError(f"--means {entry!r}: expected CHECK=LABEL")
        if check not in sides:
            raise UsageError(f"--means {entry!r}: no check {check!r}{did_you_mean(check, sides)}")
        mapped[word] = mapped.get(word, frozenset()) | {check}
    return mapped


def _describe_unknown(unknown: Sequence[str], sides: Mapping[str, str]) -> str:
    shown = short_line(unknown[0], 60)
    hint = did_you_mean(shown, [*sides, *sorted(FINE_WORDS | BAD_WORDS)], otherwise="words that are known", cutoff=0.6)
    more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    return (
        f"label {shown!r}{more}: neither a check of the policy, nor a word for fine or bad; --bad LABEL says which"
        f" labels are bad, --means CHECK=LABEL which check one confirms{hint}"
    )
