"""The report of a run: sums that agree with the receipts, and a page that strangers' names cannot alter."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.pages.report import ReportPage, render_report
from moderation.results.advice import ADVICE, describe_problems
from moderation.results.receipts import Receipt
from moderation.results.report_rows import ReportRows
from moderation.results.story import tell_story
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
VOID = {"meta", "link", "br", "img", "hr", "input"}


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


def page_of(summary: dict[str, Any], rows: ReportRows | None = None, **changes: Any) -> str:
    problems = describe_problems(summary)
    rows = rows or ReportRows()
    shown = [{**p, "examples": rows.errors.get(p["code"], ())} for p in problems]
    return render_report(ReportPage(summary=summary, story=tell_story(summary), rows=rows, problems=shown, **changes))


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
    assert "0 items" in Page(page_of(found)).text


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
    rows = ReportRows(errors={"corrupt": [row(uri="s3://b/broken.jpg", error_code="corrupt", error_detail="cut")]})
    page = Page(page_of(summarise([receipt()], FACTS), rows))
    assert ADVICE[ErrorCode.CORRUPT].meaning in page.text
    assert ADVICE[ErrorCode.CORRUPT].action in page.text
    assert "s3://b/broken.jpg" in page.text and "cut" in page.text


def test_page_tells_a_code_of_another_version_apart() -> None:
    counts = {"error:of_tomorrow": 1, "status:error": 1}
    assert "of_tomorrow" in page_of(summarise([receipt(counts=counts)], FACTS))


def test_strangers_text_stays_text() -> None:
    rows = ReportRows(
        queue=[row(item_id="1", uri=ATTACK, reason_text=ATTACK)],
        blocked=[row(item_id="2", verdict="block", reason=ATTACK)],
        errors={"corrupt": [row(uri=ATTACK, error_code="corrupt", error_detail=ATTACK)]},
    )
    summary = summarise([receipt()], FACTS | {"source": ATTACK, "run_id": ATTACK, "decoder_warning": ATTACK})
    page = Page(page_of(summary, rows, slowest=[(ATTACK, 1.0)]))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "a", "link", "iframe", "object"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text  # shown, not run
    assert "\u202e" not in page.text  # would reverse the rest of the line


def test_page_needs_nothing_from_elsewhere() -> None:
    rows = ReportRows(queue=[row(item_id="1")])
    page = Page(page_of(summarise([receipt()], FACTS), rows, previews={"1": b"jpeg"}))
    loaded = [a.get("src") or "" for tag, a in page.tags if tag in ("img", "script", "iframe", "source", "link")]
    assert loaded and all(source.startswith("data:image/jpeg;base64,") for source in loaded)
    assert not [attributes for _, attributes in page.tags if {"srcset", "action", "data", "poster"} & set(attributes)]
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not page.open


def test_a_picture_of_the_queue_is_blurred_and_has_a_box_to_show_it() -> None:
    rows = ReportRows(queue=[row(item_id="1"), row(item_id="2", uri="s3://b/other.jpg")])
    page = Page(page_of(summarise([receipt()], FACTS), rows, previews={"1": b"jpeg"}))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [p["alt"] for p in pictures] == ["Item 1 of the queue, blurred until chosen"]
    assert [a["aria-label"] for tag, a in page.tags if tag == "input"] == ["show this picture"]
    assert "s3://b/other.jpg" in page.text


def test_an_object_is_a_link_only_where_there_is_an_address() -> None:
    rows = ReportRows(queue=[row(item_id="1", uri="/a.jpg"), row(item_id="2", uri="s3://b/c.jpg")])
    page = Page(page_of(summarise([receipt()], FACTS), rows, links={"/a.jpg": "file:///a.jpg"}))
    links = [attributes for tag, attributes in page.tags if tag == "a"]
    assert [a["href"] for a in links] == ["file:///a.jpg"]
    assert links[0]["rel"] == "noopener noreferrer nofollow"


def test_tables_of_the_page_name_their_columns_and_rows_for_readers_who_do_not_see_them() -> None:
    rows = ReportRows(queue=[row(item_id="1")], blocked=[row(item_id="2")])
    page = Page(page_of(summarise([receipt()], FACTS), rows, slowest=[("a", 1.0)]))
    headers = [attributes for tag, attributes in page.tags if tag == "th"]
    assert headers and all(a.get("scope") in ("col", "row") for a in headers)


def test_the_queue_says_how_many_there_are_and_how_much_of_the_run_was_read() -> None:
    rows = ReportRows(queue=[row(item_id="1")], counted={"queue": 45, "audit": 2}, parts=400, parts_total=4000)
    text = Page(page_of(summarise([receipt()], FACTS), rows)).text
    assert "1 of 45 in the 400 of 4,000 parts" in text
    assert "Items of the audit are not shown" in text


def test_incomplete_run_and_too_many_errors_are_said_at_the_top() -> None:
    facts = FACTS | {"state": "partial", "max_error_rate": 0.05}
    text = Page(page_of(summarise([receipt()], facts))).text
    assert "This run is not complete" in text
    assert "33.3% of the items are errors" in text


def test_the_page_says_how_long_decoders_waited_for_memory_where_they_did() -> None:
    waited = summarise([receipt(waits={"decode:memory": 12.0}), receipt(waits={"decode:memory": 18.0})], FACTS)
    assert waited["waits"]["decode"]["memory"] == 30.0
    assert "Decoders waited 30" in Page(page_of(waited)).text
    assert "for memory" not in Page(page_of(summarise([receipt()], FACTS))).text


def test_same_summary_gives_the_same_page() -> None:
    found = summarise([receipt()], FACTS)
    rows = ReportRows(queue=[row(item_id="1")])
    assert page_of(found, rows) == page_of(found, rows)


def test_the_page_of_a_night_tells_what_was_new_and_what_was_not() -> None:
    night = {
        "night": "20261122-021500-0e9c0f",
        "looked_at": 9,
        "new": 2,
        "deleted": 1,
        "unchanged": 7,
        "same_content": 1,
    }
    page = page_of(summarise([receipt()], FACTS | {"nightly": night}))
    assert "2 new, 0 changed, 1 deleted, 7 unchanged, 1 same content" in page
    assert "listing of night" not in page_of(summarise([receipt()], FACTS))
