"""Rules for text: brand names, contact details, sales talk, banned words.

Rules are phrases from the configuration and patterns of ours: a regular expression from a file could take for ever on a
stranger's line. Matching ignores case, width (NFKC), spaces and punctuation, and tolerates one wrong character in a
long phrase, because reading small print makes such mistakes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError

LABELS: Final = ("watermark", "advert", "banned")
# Characters of strangers' text and of a configuration's phrases; a line of print is shorter.
_LONGEST_LINE: Final = 400
_LONGEST_PHRASE: Final = 60
_MAX_PHRASES: Final = 5000
# A phrase of at least this many characters may have one wrong, and may stand inside a longer run of letters.
_FORGIVEN_LATIN: Final = 8
_FORGIVEN_HAN: Final = 5

# Each takes linear time: bounded repeats, no nesting.
PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    "phone": re.compile(
        r"(?<!\d)(?:\+\d{1,3}[ .-]?)?"
        r"(?:1[3-9]\d[ .-]?\d{4}[ .-]?\d{4}|\(?\d{3,4}\)?[ .-]\d{3,4}[ .-]?\d{4}|(?<=\+)\d{8,14})(?!\d)"
    ),
    "url": re.compile(
        r"(?:https?[:;]/{1,2}|www[. ])[a-z0-9][a-z0-9.-]{2,60}"
        r"|(?<![a-z0-9@])[a-z0-9][a-z0-9-]{1,40}\.(?:com|cn|net|org|info|biz|shop|store|xyz|top|vip|club|online|site|app"
        r"|me|io|co|tv|cc|ru|de|nl|fr|uk|it|es|pl|eu|in|jp|kr|tw|hk)(?![a-z0-9])"
    ),
    "email": re.compile(r"[a-z0-9][a-z0-9._+-]{0,40}@[a-z0-9][a-z0-9-]{0,40}\.[a-z]{2,8}"),
    "messenger": re.compile(
        r"(?:微信|薇信|威信|v信|weixin|wechat|we chat|whatsapp|telegram|snapchat|line id"
        r"|(?<![a-z])(?:vx|wx|qq|kik|skype))"
        r"[ 号id:=.+-]{0,6}[a-z0-9_+-]{5,20}"
        r"|t\.me/[a-z0-9_+]{3,40}|wa\.me/\d{6,15}"
    ),
    "handle": re.compile(r"(?<![a-z0-9.])@[a-z0-9_][a-z0-9_.]{2,30}(?![a-z0-9@])"),
    "price": re.compile(
        r"(?:[¥$€£]|rmb|usd|eur) ?\d{1,6}(?:[.,]\d{2})?(?!\d)|(?<!\d)\d{1,6}(?:[.,]\d{2})? ?(?:元|块|rmb|usd|eur|€)"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """Words of one label, reduced to letters and digits; `slack`: how many characters may be wrong."""

    label: str
    name: str
    squashed: str
    weight: float
    slack: int
    whole: bool  # must begin and end where words do


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Phrases, and patterns of ours with the label and weight of each."""

    phrases: tuple[Phrase, ...]
    patterns: Mapping[str, tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleHit:
    """A rule that a line meets; `line` is the line's index."""

    label: str
    rule: str
    weight: float
    line: int


def make_rules(options: Mapping[str, Any]) -> Rules:
    """Rules of a configuration: `watermark`, `advert`, `banned` (lists of phrases, or phrase -> weight) and `patterns`
    (name -> {label, weight}).

    Raises UsageError that names the key and the nearest right one.
    """
    phrases = [
        _phrase(label, str(text), weight) for label in LABELS for text, weight in _weighted(label, options.get(label))
    ]
    if len(phrases) > _MAX_PHRASES:
        raise UsageError(f"detector 'text': {len(phrases)} phrases; {_MAX_PHRASES} at most")
    given = options.get("patterns") or {}
    if not isinstance(given, Mapping):
        raise UsageError("detector 'text': `patterns` must be name -> {label, weight}")
    return Rules(phrases=tuple(phrases), patterns={str(n): _pattern(str(n), entry) for n, entry in given.items()})


def find_hits(rules: Rules, lines: Sequence[str]) -> list[RuleHit]:
    """Every rule that a line meets."""
    hits: list[RuleHit] = []
    for index, line in enumerate(lines):
        plain = fold(line)
        squashed, starts, ends = squash(plain)
        for phrase in rules.phrases:
            if _contains(squashed, starts, ends, phrase):
                hits.append(RuleHit(label=phrase.label, rule=phrase.name, weight=phrase.weight, line=index))
        for name, (label, weight) in rules.patterns.items():
            if PATTERNS[name].search(plain):
                hits.append(RuleHit(label=label, rule=name, weight=weight, line=index))
    return hits


def score_hits(hits: Sequence[RuleHit], confidences: Sequence[float]) -> dict[str, float]:
    """0..1 per label: noisy-or of weight times the line's confidence; a rule that is met twice counts once."""
    best: dict[tuple[str, str], float] = {}
    for hit in hits:
        key = (hit.label, hit.rule)
        best[key] = max(best.get(key, 0.0), hit.weight * min(1.0, max(0.0, confidences[hit.line])))
    missed = dict.fromkeys(LABELS, 1.0)
    for (label, _), chance in best.items():
        missed[label] *= 1 - chance
    return {label: 1 - chance for label, chance in missed.items()}


def fold(text: str) -> str:
    """Text without differences of case and width, bounded."""
    return unicodedata.normalize("NFKC", text[:_LONGEST_LINE]).casefold()[:_LONGEST_LINE]


def squash(folded: str) -> tuple[str, frozenset[int], frozenset[int]]:
    """Letters and digits only, and the places in them where words start and end."""
    kept: list[str] = []
    starts, ends = {0}, set[int]()
    for char in folded:
        if char.isalnum():
            kept.append(char)
        else:
            starts.add(len(kept))
            ends.add(len(kept))
    ends.add(len(kept))
    squashed = "".join(kept)
    for place, (left, right) in enumerate(pairwise(squashed), start=1):
        # A change of script is a border too: "加vx123".
        if _is_han(left) or _is_han(right) or left.isdigit() != right.isdigit():
            starts.add(place)
            ends.add(place)
    return squashed, frozenset(starts), frozenset(ends)


def _contains(text: str, starts: frozenset[int], ends: frozenset[int], phrase: Phrase) -> bool:
    wanted = phrase.squashed
    at = text.find(wanted)
    while at >= 0:
        if not phrase.whole or (at in starts and at + len(wanted) in ends):
            return True
        at = text.find(wanted, at + 1)
    if not phrase.slack:
        return False
    # With at most one wrong character one half of the phrase is right: two searches decide most lines.
    half = len(wanted) // 2
    return (wanted[:half] in text or wanted[half:] in text) and _within_one(text, wanted)


def _within_one(text: str, wanted: str) -> bool:
    """Whether `text` contains `wanted` with at most one character changed, missing or added (Wu and Manber 1992)."""
    masks: dict[str, int] = {}
    for place, char in enumerate(wanted):
        masks[char] = masks.get(char, 0) | 1 << place
    done = 1 << (len(wanted) - 1)
    exact, loose = 0, 1
    for char in text:
        mask = masks.get(char, 0)
        before = exact
        exact = (exact << 1 | 1) & mask
        loose = ((loose << 1 | 1) & mask) | before | (before << 1) | (exact << 1) | 1
        if loose & done:
            return True
    return False


def _phrase(label: str, text: str, weight: object) -> Phrase:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
        raise UsageError(
            f"detector 'text': {label}: the weight of {text!r} must be above 0 and at most 1, got {weight!r}"
        )
    squashed, _, _ = squash(fold(text))
    han = any(_is_han(char) for char in squashed)
    if not (1 if han else 2) <= len(squashed) <= _LONGEST_PHRASE:
        raise UsageError(f"detector 'text': {label}: {text!r} must have 2 to {_LONGEST_PHRASE} letters or digits")
    long = len(squashed) >= (_FORGIVEN_HAN if han else _FORGIVEN_LATIN)
    return Phrase(
        label=label,
        name=text,
        squashed=squashed,
        weight=float(weight),
        # Digits are not a word: one wrong digit makes another number.
        slack=int(long and not squashed.isdigit()),
        whole=not (han or long),
    )


def _weighted(label: str, given: object) -> Iterator[tuple[object, object]]:
    if given is None:
        return
    if isinstance(given, Mapping):
        yield from given.items()
    elif isinstance(given, Sequence) and not isinstance(given, str):
        for text in given:
            if not isinstance(text, str | int):
                raise UsageError(f"detector 'text': {label}: expected a phrase, got {text!r}")
            yield text, 1.0
    else:
        raise UsageError(f"detector 'text': `{label}` must be a list of phrases, or phrase -> weight")


def _pattern(name: str, entry: object) -> tuple[str, float]:
    if name not in PATTERNS:
        raise UsageError(f"detector 'text': patterns: unknown {name!r}{did_you_mean(name, list(PATTERNS))}")
    if not isinstance(entry, Mapping):
        raise UsageError(f"detector 'text': patterns: {name}: expected {{label, weight}}, got {entry!r}")
    for key in entry:
        if key not in ("label", "weight"):
            raise UsageError(
                f"detector 'text': patterns: {name}: unknown {key!r}{did_you_mean(str(key), ['label', 'weight'])}"
            )
    label, weight = entry.get("label", "advert"), entry.get("weight", 1.0)
    if label not in LABELS:
        raise UsageError(f"detector 'text': patterns: {name}: no label {label!r}{did_you_mean(str(label), LABELS)}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
        raise UsageError(f"detector 'text': patterns: {name}: weight must be above 0 and at most 1, got {weight!r}")
    return str(label), float(weight)


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or "\u3040" <= char <= "\u30ff" or "\uac00" <= char <= "\ud7af"
