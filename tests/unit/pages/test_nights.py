"""The page of the nights: a line for each, their trend, and what is out of the ordinary."""

from __future__ import annotations

from typing import Any

import pytest

from moderation.pages.nights import NightLine, draw_nights, render_nights, tell_unusual


def night(number: int, **changes: Any) -> NightLine:
    whole: dict[str, Any] = {
        "night": f"202611{number:02}-021500-0e9c0f", "state": "done",
        "link": f"202611{number:02}-021500-0e9c0f/report.html",
        "items": 100, "verdicts": {"block": 1, "review": 4, "pass": 95}, "error_rate": 0.01, "counts": {"new": 100},
    }  # fmt: skip
    return NightLine(**(whole | changes))


def quiet(number: int) -> NightLine:
    return night(number, state="quiet", link=None, items=0, verdicts={}, error_rate=None, counts={"unchanged": 9})


def test_the_newest_night_comes_first_and_links_to_its_report() -> None:
    page = render_nights("s3://b/nights", [night(1), quiet(2), night(3)], 40, "nothing to do", note="No figure.")
    assert page.index("3 Nov") < page.index("2 Nov") < page.index("1 Nov")
    assert 'href="20261103-021500-0e9c0f/report.html"' in page and 'href="20261102' not in page
    assert "40 nights" in page and "the newest 3" in page and "No figure." in page


def test_a_night_with_twice_the_usual_reviews_is_told() -> None:
    nights = [night(n) for n in range(1, 9)]
    assert tell_unusual(nights) == []
    worse = night(9, verdicts={"block": 1, "review": 12, "pass": 87})
    assert tell_unusual([*nights, worse, quiet(10)]) == [
        "review: 12.0% in the night of 9 Nov; the median of 8 nights before is 4.0%."
    ]
    assert tell_unusual([night(1), worse]) == []  # no trend of one


def test_what_a_summary_says_of_itself_is_escaped() -> None:
    page = render_nights("<b>", [night(1, state="<script>")], 1, "`moderation nightly <x>`", note="")
    assert "<script>" not in page and "<code>moderation nightly &lt;x&gt;</code>" in page


def test_a_trend_needs_some_nights() -> None:
    pytest.importorskip("matplotlib")
    assert draw_nights([night(1), quiet(2), night(3)]) is None
    svg = draw_nights([night(n) for n in range(1, 31)])
    assert svg is not None and ">review<" in svg and "1 Nov" in svg
