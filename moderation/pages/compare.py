"""The page of two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moderation.pages.links import object_link
from moderation.pages.render import render
from moderation.pages.report import shares_beside


def render_comparison(
    comparison: Any,  # noqa: ANN401 - `results.comparison.RunComparison`, of a room above this one
    changes: Sequence[Any],
    changes_note: str | None = None,
    object_url: str | None = None,
) -> str:
    """One self-contained page. changes: scores that are not distributed alike; changes_note: why none is told."""
    first, second = comparison.first.summary, comparison.second.summary
    uris = [str(e["uri"]) for move in comparison.moves for e in move.examples]
    links = {uri: link for uri in uris if (link := object_link(uri, object_url)) is not None}
    return render(
        "compare.html",
        c=comparison,
        page={"links": links},
        first=first,
        second=second,
        shares=shares_beside(second, first),
        checks=_checks_beside(first, second),
        errors=_numbers_beside(first["errors"], second["errors"]),
        seconds=_per_item(first, second),
        changes=changes,
        changes_note=changes_note,
    )


def _checks_beside(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(check, items that it decided in the first, in the second)."""
    tables = [{name: sum(by.values()) for name, by in summary["checks"].items()} for summary in (first, second)]
    return _numbers_beside(*tables)


def _numbers_beside(first: Mapping[str, int], second: Mapping[str, int]) -> list[tuple[str, int, int]]:
    return [(name, first.get(name, 0), second.get(name, 0)) for name in dict.fromkeys([*first, *second])]


def _per_item(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(step, milliseconds of an item in the first, in the second)."""
    steps = dict.fromkeys([*first["seconds"], *second["seconds"]])
    return [(step, _milliseconds(first, step), _milliseconds(second, step)) for step in steps]


def _milliseconds(summary: Mapping[str, Any], step: str) -> float | None:
    seconds = summary["seconds"].get(step)
    return None if not seconds or not summary["items"] else 1000 * float(seconds) / int(summary["items"])
