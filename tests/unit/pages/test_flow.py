"""The flow of a run's items: no item is lost in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.pages.flow import draw_flow, flow_of

COUNTS = st.integers(0, 10**7)


def summary(check: dict[str, int], default: dict[str, int], errors: int, skipped: int) -> dict[str, Any]:
    verdicts = {v: check[v] + default[v] + (errors if v == "review" else 0) for v in ("block", "review", "pass")}
    return {"verdicts": verdicts, "checks": {"a": check}, "status": {"error": errors, "skipped": skipped}}


VERDICTS = st.fixed_dictionaries({"block": COUNTS, "review": COUNTS, "pass": COUNTS})


@given(VERDICTS, VERDICTS, COUNTS, COUNTS)
def test_the_bands_hold_every_item_once(
    check: dict[str, int], default: dict[str, int], errors: int, skipped: int
) -> None:
    bands = flow_of(summary(check, default, errors, skipped))
    assert sum(b.items for b in bands) == sum(check.values()) + sum(default.values()) + errors + skipped
    by_verdict = {v: sum(b.items for b in bands if b.verdict == v) for v in ("block", "review", "pass", None)}
    assert by_verdict["pass"] == check["pass"] + default["pass"]
    assert by_verdict["review"] == check["review"] + default["review"] + errors
    assert sum(b.items for b in bands if b.via == "error") == errors


def test_errors_come_to_review_and_never_to_pass() -> None:
    none = {"block": 0, "review": 0, "pass": 0}
    bands = flow_of(summary({**none, "pass": 5}, none, 3, 0))
    assert [(b.via, b.verdict, b.items) for b in bands] == [("error", "review", 3), ("positive", "pass", 5)]


def test_the_diagram_tells_each_number() -> None:
    pytest.importorskip("matplotlib")
    check, default = {"block": 1, "review": 20, "pass": 4000}, {"block": 0, "review": 7, "pass": 0}
    svg = draw_flow(flow_of(summary(check, default, 4, 1)))
    assert svg is not None
    for words in ("4,033 items", "negative filter", "21, 0.5%", "31, 0.8%", "4,000, 99.2%", "no verdict"):
        assert words in svg
    assert draw_flow([]) is None
