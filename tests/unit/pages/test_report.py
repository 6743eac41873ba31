"""The report of a run: sums that agree with the receipts, and a page that strangers' names cannot alter."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.pages.report import MAX_ROWS_PER_GROUP, render_report
from moderation.results.advice import ADVICE, describe_problems
from moderation.results.receipts import Receipt
from moderation.results.summary import summarise
from moderation.types import ErrorCode

FACTS = {
    "run_id": "0123abcd",
    "source": "s3://bucket/photos",
    "stack_fingerprint": "f" * 32,
    "policy_hash": "e" * 64,
    "versions": {"torch": "2.9", "ray": "2.50"},
    "wall_s": 4.0,
    "state": "done",
}
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202egpj.exe"
# Tags that need no closing tag.
VOID = {"meta", "link", "br", "img", "hr"}


def receipt(**changes: Any) -> Receipt:
    whole: dict[str, Any] = {
        "shard_id": "aa",
        "rows_in": 3,
        "rows": {"verdicts": 3, "votes": 9},
        "sha256": {},
        "counts": {
            "status:ok": 2,
            "status:error": 1,
            "kind:image": 2,
            "kind:unknown": 1,
            "verdict:pass": 1,
            "verdict:review": 2,
            "check:explicit:review": 1,
            "check:sfw:pass": 1,
            "error:corrupt": 1,
            "asked:open_nsfw": 9,
            "asked:imagenet": 4,
            "frames": 9,
        },
        "seconds": {"fetch": 0.5, "decode": 1.0, "score": 2.0, "judge": 0.1, "write": 0.2},
        "bytes_read": 1000,
        "peak_memory_bytes": 500,
    }
    return Receipt(**(whole | changes))


def page_of(summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    return render_report(summary, rows, describe_problems(summary))


def row(**changes: Any) -> dict[str, Any]:
    whole = {"uri": "s3://b/a.jpg", "verdict": "review", "status": "ok", "reason": "negative:explicit:review"}
    return whole | {"check": "explicit", "score": 0.5, "error_code": None, "error_detail": None} | changes


class Page(HTMLParser):
    """The tags of a page, with their attributes; and whether each was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_numbers_of_a_run_are_the_sums_of_its_receipts() -> None:
    found = summarise([receipt(), receipt(shard_id="bb", peak_memory_bytes=900)], FACTS)
    assert (found["items"], found["frames"], found["shards"]) == (6, 18, 2)
    assert found["verdicts"] == {"block": 0, "review": 4, "pass": 2}
    assert found["status"] == {"ok": 4, "error": 2, "skipped": 0}
    assert found["kinds"] == {"image": 4, "unknown": 2}
    assert found["errors"] == {"corrupt": 2}
    assert found["checks"] == {
        "explicit": {"block": 0, "review": 2, "pass": 0},
        "sfw": {"block": 0, "review": 0, "pass": 2},
    }
    assert found["frames_asked"] == {"open_nsfw": 18, "imagenet": 8}
    assert found["seconds"] == {"fetch": 1.0, "decode": 2.0, "score": 4.0, "judge": 0.2, "write": 0.4}
    assert (found["bytes_read"], found["peak_memory_bytes"]) == (2000, 900)
    assert (found["items_per_s"], found["frames_per_s"]) == (1.5, 4.5)
    assert found["error_rate"] == pytest.approx(1 / 3)


def test_facts_of_a_run_pass_through_to_a_summary_that_json_can_hold() -> None:
    found = json.loads(json.dumps(summarise([receipt()], FACTS)))
    assert {key: found[key] for key in FACTS} == FACTS


def test_rates_of_a_resumed_run_are_those_of_the_call_that_the_clock_timed() -> None:
    found = summarise([receipt(), receipt()], FACTS | {"items_this_call": 2})
    assert found["items_per_s"] == 0.5
    assert found["frames_per_s"] is None  # how many of the frames belong to this call is unknown
    assert summarise([receipt()], FACTS | {"wall_s": 0.0})["items_per_s"] is None


def test_run_without_receipts_has_zeros_and_a_page() -> None:
    found = summarise([], FACTS)
    assert (found["items"], found["error_rate"], found["peak_memory_bytes"]) == (0, 0.0, None)
    assert "0 items" in Page(page_of(found, [])).text


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["verdict:pass", "verdict:block", "kind:image", "error:empty"]), st.integers(0, 9)
        )
    )
)
def test_counters_add_whatever_the_shards(parts: list[dict[str, int]]) -> None:
    found = summarise([receipt(counts=c) for c in parts], FACTS)
    total: Counter[str] = sum((Counter(c) for c in parts), Counter())
    assert found["verdicts"]["pass"] == total["verdict:pass"]
    assert found["verdicts"]["block"] == total["verdict:block"]
    assert found["kinds"].get("image", 0) == total["kind:image"]
    assert found["errors"].get("empty", 0) == total["error:empty"]


def test_every_error_code_has_words_and_a_way_out() -> None:
    assert set(ADVICE) == set(ErrorCode)
    assert all(advice.meaning.endswith((".", "?")) and advice.action for advice in ADVICE.values())


def test_page_says_what_went_wrong_and_what_to_do() -> None:
    page = Page(page_of(summarise([receipt()], FACTS), [row(uri="s3://b/broken.jpg", error_code="corrupt")]))
    assert ADVICE[ErrorCode.CORRUPT].meaning in page.text
    assert ADVICE[ErrorCode.CORRUPT].action in page.text
    assert "s3://b/broken.jpg" in page.text


def test_page_tells_a_code_of_another_version_apart() -> None:
    counts = {"error:of_tomorrow": 1, "status:error": 1}
    assert "of_tomorrow" in page_of(summarise([receipt(counts=counts)], FACTS), [])


def test_strangers_text_stays_text() -> None:
    rows = [row(uri=ATTACK, error_code="corrupt", error_detail=ATTACK), row(verdict="block", reason=ATTACK)]
    page = Page(page_of(summarise([receipt()], FACTS | {"source": ATTACK, "run_id": ATTACK}), rows))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "a", "link", "iframe", "object", "svg"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text  # shown, not run
    assert "\u202e" not in page.text  # would reverse the rest of the line


def test_page_needs_nothing_from_elsewhere() -> None:
    page = Page(page_of(summarise([receipt()], FACTS), [row()]))
    named = {"src", "href", "srcset", "action", "data", "poster"}
    assert not [attributes for _, attributes in page.tags if named & set(attributes)]
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not page.open


def test_tables_of_the_page_name_their_columns_and_rows_for_readers_who_do_not_see_them() -> None:
    page = Page(page_of(summarise([receipt()], FACTS), [row()]))
    headers = [attributes for tag, attributes in page.tags if tag == "th"]
    assert headers and all(a.get("scope") in ("col", "row") for a in headers)


def test_groups_show_the_highest_scores_and_say_how_many_there_are() -> None:
    rows = [row(uri=f"item-{i}", verdict="block", score=i / 1000) for i in range(MAX_ROWS_PER_GROUP + 5)]
    text = Page(page_of(summarise([receipt()], FACTS), rows)).text
    assert f"item-{MAX_ROWS_PER_GROUP + 4} " in text
    assert "item-3 " not in text
    assert f"{MAX_ROWS_PER_GROUP} of the {MAX_ROWS_PER_GROUP + 5}" in text


def test_incomplete_run_and_too_many_errors_are_said_at_the_top() -> None:
    facts = FACTS | {"state": "partial", "max_error_rate": 0.05}
    text = Page(page_of(summarise([receipt()], facts), [])).text
    assert "This run is not complete" in text
    assert "33.3% of the items are errors" in text


def test_same_summary_gives_the_same_page() -> None:
    found = summarise([receipt()], FACTS)
    assert page_of(found, [row()]) == page_of(found, [row()])


def test_the_page_of_a_night_tells_what_was_new_and_what_was_not() -> None:
    night = {
        "night": "20261122-021500-0e9c0f",
        "looked_at": 9,
        "new": 2,
        "deleted": 1,
        "unchanged": 7,
        "same_content": 1,
    }
    page = render_report(summarise([receipt()], FACTS | {"nightly": night}), [], [])
    assert "2 new, 0 changed, 1 deleted, 7 unchanged, 1 same content" in page
    assert "Night " not in render_report(summarise([receipt()], FACTS), [], [])
