"""Which items of a queue are wanted: parsed from text, hashable. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.types import ErrorCode, Kind, Verdict

Order = Literal["rank", "lowest"]
_YES: Final = frozenset({"1", "true", "yes"})
_NO: Final = frozenset({"0", "false", "no"})
_KEYS: Final = ("verdict", "check", "kind", "error", "attribute", "audit", "undecided", "appeals", "order")
_MAX_VALUES: Final = 50
_MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which items are wanted; an empty field does not choose.

    verdict: of the machine; empty: review, and the audit. attributes: (name, value) that an item has, all of them.
    undecided: only items that wait for somebody; else all. appeals: only appealed items. order: `lowest` rank first for
    what is probably fine.
    """

    verdict: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    error: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    audit: bool | None = None
    undecided: bool = True
    appeals: bool = False
    order: Order = "rank"

    @property
    def tells_verdict(self) -> bool:
        """Whether being among the chosen tells what the machine made of an item; audit items are then left out."""
        return bool(self.verdict or self.check or self.error)


def parse_filter(texts: Mapping[str, str | Iterable[str]], checks: Iterable[str] = ()) -> QueueFilter:
    """`{"verdict": "review,pass", "attribute": "source=camera"}` as a filter.

    checks: those of the policy. Raises UsageError naming a key or value that is not known and the nearest one.
    """
    values = {name: _split(name, given) for name, given in texts.items()}
    checks = list(checks)
    check = values.get("check", ())
    for name in check if checks else ():
        if name not in checks:
            raise UsageError(f"filter check={short_line(name, 60)!r}: no such check{did_you_mean(name, checks)}")
    return QueueFilter(
        verdict=_words("verdict", values.get("verdict", ()), list(Verdict)),
        check=check,
        kind=_words("kind", values.get("kind", ()), list(Kind)),
        error=_words("error", values.get("error", ()), [*ErrorCode, "any"]),
        attributes=tuple(_pair(text) for text in values.get("attribute", ())),
        audit=_flag("audit", values["audit"]) if values.get("audit") else None,
        undecided=_flag("undecided", values["undecided"]) if values.get("undecided") else True,
        appeals=_flag("appeals", values["appeals"]) if values.get("appeals") else False,
        order="lowest" if _words("order", values.get("order", ()), ["rank", "lowest"]) == ("lowest",) else "rank",
    )


def _split(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    if name not in _KEYS:
        raise UsageError(f"no filter {short_line(name, 60)!r}{did_you_mean(name, _KEYS)}")
    texts = [given] if isinstance(given, str) else list(given)
    # A value of an attribute may have a comma in it.
    parts = texts if name == "attribute" else [part for text in texts for part in text.split(",")]
    values = tuple(dict.fromkeys(filter(None, map(str.strip, parts))))
    if len(values) > _MAX_VALUES or any(len(value) > _MAX_CHARS for value in values):
        raise UsageError(f"filter {name}: at most {_MAX_VALUES} values of {_MAX_CHARS} characters")
    return values


def _words(name: str, values: tuple[str, ...], known: list[str]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise UsageError(f"filter {name}={short_line(value, 60)!r}: unknown{did_you_mean(value, map(str, known))}")
    return values


def _flag(name: str, values: tuple[str, ...]) -> bool:
    value = values[-1].lower()
    if value not in _YES | _NO:
        raise UsageError(f"filter {name}={short_line(value, 60)!r}: yes or no")
    return value in _YES


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"filter attribute={short_line(text, 60)!r}: expected NAME=VALUE")
    return name.strip(), value.strip()
