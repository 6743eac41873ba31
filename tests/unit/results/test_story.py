"""A run in sentences: what happened, what changed, what to do; and what it cost."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from moderation.results.cost import count_gpu_hours, tell_cost
from moderation.results.course import slowest_items, tell_course
from moderation.results.receipts import Receipt
from moderation.results.story import days_left, tell_story
from moderation.results.summary import summarise

GPU = {"device": "cuda:0", "node": "n", "gpu_ids": ["0"]}


def receipt(number: int = 0, **changes: Any) -> Receipt:
    counts = {"status:ok": 10, "verdict:pass": 8, "verdict:review": 2, "check:sfw:pass": 8}
    whole: dict[str, Any] = {
        "shard_id": f"{number:02x}", "rows_in": 10, "rows": {"verdicts": 10}, "sha256": {}, "counts": counts,
        "committed_at": 100.0 + 10 * number,
    }  # fmt: skip
    return Receipt(**(whole | changes))


def summary(**facts: Any) -> dict[str, Any]:
    return summarise([receipt()], {"wall_s": 20.0, **facts})


def test_the_story_begins_with_the_counts() -> None:
    story = tell_story(summary())
    assert story.headline == "10 items: 0 blocked, 2 to review, 8 passed"
    assert story.happened[0] == "10 items were judged in 20.0 s; 0.5 items a second."
    assert story.todo == [
        "Look at the 2 items for review, in the order of review_rank: about 1 minute for one person at 2,000 an hour."
    ]


def test_a_run_without_work_for_people_says_so() -> None:
    counts = {"status:ok": 1, "verdict:pass": 1}
    story = tell_story(summarise([receipt(rows_in=1, counts=counts)], {}))
    assert story.happened == ["1 item was judged."]
    assert story.todo == ["Nothing: every item was passed or skipped."]


def test_errors_and_what_cures_them_are_among_what_to_do() -> None:
    counts = {"status:error": 3, "verdict:review": 3, "error:fetch_failed": 2, "error:not_media": 1}
    story = tell_story(summarise([receipt(counts=counts)], {"max_error_rate": 0.05, "state": "partial"}))
    assert story.todo[0].startswith("The same command again")
    assert any("runtime.max_error_rate" in sentence for sentence in story.todo)
    assert any(sentence.startswith("fetch_failed, 2 items: Check the endpoint") for sentence in story.todo)
    assert not any("not_media" in sentence for sentence in story.todo)


def test_what_changed_is_told_and_what_did_not_is_not() -> None:
    counts = {"status:ok": 10, "verdict:pass": 1, "verdict:review": 9}
    now = summarise([receipt(counts=counts)], {"policy_hash": "b"})
    then = summarise([receipt()], {"policy_hash": "a"})
    changed = tell_story(now, before=then).changed
    assert changed[0] == "review: 90.0% of the items, 20.0% before."
    assert changed[1].startswith("The policy is another one")
    assert tell_story(then, before=then).changed == []


@pytest.mark.parametrize(
    ("today", "words"),
    [
        ("2026-12-01", None),
        ("2026-12-30", "end in 10 days"),
        ("2027-01-08", "end in 1 day ("),
        ("2027-02-01", "have ended"),
    ],
)
def test_certificates_that_end_are_told_in_time(today: str, words: str | None) -> None:
    certificates = {"actions": ["pass:sfw"], "uncertified": {}, "expires": "2027-01-09"}
    told = tell_story(summary(certificates=certificates), today=date.fromisoformat(today)).todo
    assert [s for s in told if "certificates" in s.lower()] == [s for s in told if words and words in s]
    assert days_left({"expires": "tomorrow"}, date(2026, 1, 1)) is None


def test_a_gpu_is_paid_for_once_from_the_start_of_the_call() -> None:
    facts = {"wall_s": 1800.0, "startup_s": 60.0, "workers": [GPU, GPU, {**GPU, "gpu_ids": ["1"]}, {"device": "cpu"}]}
    told = summarise([receipt()], facts)
    assert count_gpu_hours(told) == 1.0
    assert tell_cost(told, 2.5) == {
        "gpu_hours": 1.0, "price_per_gpu_hour": 2.5, "run": 2.5, "per_million_items": 250_000.0,
    }  # fmt: skip
    assert "It cost 2.5: 250,000 for a million items." in tell_story({**told, "cost": tell_cost(told, 2.5)}).happened


@pytest.mark.parametrize(
    "facts", [{"wall_s": None, "workers": [GPU]}, {"wall_s": 9.0, "workers": [{"device": "cpu"}]}, {}]
)
def test_a_cost_that_is_not_known_is_null(facts: dict[str, Any]) -> None:
    told = tell_cost(summarise([receipt()], facts), 2.5)
    assert told is not None and told["run"] is None and told["per_million_items"] is None
    assert tell_cost(summarise([receipt()], facts), None) is None


def test_the_course_has_every_item_but_those_of_the_first_receipt() -> None:
    bins = tell_course([receipt(n) for n in range(100)])
    assert sum(b.items for b in bins) == 990
    assert len(bins) <= 40
    assert bins[-1].end_s == pytest.approx(990.0)
    assert all(b.counts["review"] * 5 == b.items for b in bins)


def test_a_pause_between_two_calls_is_cut_out_of_the_course() -> None:
    early, late = [receipt(n) for n in range(20)], [receipt(n, committed_at=1e6 + n) for n in range(20, 40)]
    assert tell_course(early + late)[-1].end_s < 4000
    assert tell_course([receipt(0, committed_at=0.0)]) == []


def test_the_slowest_items_of_all_shards_come_first() -> None:
    slow = slowest_items([receipt(0, slowest={"a": 1.0, "b": 3.0}), receipt(1, slowest={"c": 2.0})], most=2)
    assert slow == [("b", "00", 3.0), ("c", "01", 2.0)]
