"""The order of a queue, what is looked at together, and what filters choose. Numbers and texts, no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.review import verdict_rows
from moderation.review.filters import QueueFilter, parse_filter
from moderation.review.queue import space_out
from moderation.review.together import LOT, number_copies, number_groups, order_rows

FLAGS = st.lists(st.booleans(), max_size=40)


def in_row(flags: Sequence[bool]) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


@given(FLAGS, st.integers(1, 5), st.integers(0, 6), st.integers(0, 50))
def test_severe_items_are_spaced_out_and_nothing_is_lost(
    flags: Sequence[bool], most: int, run: int, wanted: int
) -> None:
    rows, severe = np.arange(len(flags)), np.array(flags, bool)
    picked = space_out(rows, severe, wanted, in_row=most, run=run)
    assert len(picked) == len(set(picked)) == min(wanted, len(flags))
    for kind in (True, False):
        # Each kind stays in its order.
        own = [row for row in picked if severe[row] == kind]
        assert own == sorted(own)
    # Only where no other is left do severe ones go on.
    last_soft = max((n for n, row in enumerate(picked) if not severe[row]), default=-1)
    assert in_row([bool(severe[row]) for row in picked[: last_soft + 1]]) <= most


def test_severe_items_that_came_before_count() -> None:
    assert space_out(np.arange(3), np.array([True, True, False]), 3, in_row=3, run=3) == [2, 0, 1]


def ranked(ranks: Sequence[float], copies: Sequence[int] | None = None, groups: Sequence[int] | None = None):  # type: ignore[no-untyped-def] # a helper of these tests
    count = len(ranks)
    own = np.arange(count) if copies is None else np.array(copies, np.int64)
    uploaders = np.full(count, -1) if groups is None else np.array(groups, np.int64)
    return order_rows(np.array(ranks, float), np.zeros(count), own, uploaders).tolist()


def test_the_highest_rank_comes_first_and_what_has_none_last() -> None:
    assert ranked([0.1, float("nan"), 0.9, 0.5]) == [2, 3, 0, 1]


def test_copies_and_one_uploaders_items_come_where_the_best_of_them_stands() -> None:
    assert ranked([0.1, 0.5, 0.9, 0.2], copies=[0, 1, 0, 3]) == [2, 0, 1, 3]
    assert ranked([0.1, 0.5, 0.9, 0.2], groups=[7, -1, 7, -1]) == [2, 0, 1, 3]


def test_a_large_uploader_comes_in_lots() -> None:
    count = LOT + 3
    order = ranked([*np.linspace(0.9, 0.5, count), 0.7], groups=[1] * count + [-1])
    assert order.index(count) == LOT


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5), st.integers(-1, 3)), max_size=60),
)
def test_every_row_is_in_the_order_once_and_copies_are_neighbours(
    rows: Sequence[tuple[float, int, int]],
) -> None:
    first: dict[int, int] = {}
    copies = [first.setdefault(number, place) for place, (_, number, _) in enumerate(rows)]
    order = ranked([rank for rank, _, _ in rows], copies, [group for _, _, group in rows])
    assert sorted(order) == list(range(len(rows)))
    seen = [copies[row] for row in order]
    assert len([n for n, a in enumerate(seen) if not n or seen[n - 1] != a]) == len(set(seen))


def test_copies_are_known_by_bytes_by_hash_or_by_the_duplicates_file() -> None:
    base = "0f" * 32
    near = "1f" + base[2:]  # one bit
    far = "f0" * 32
    ids = ["a", "b", "c", "d", "e"]
    numbers = number_copies(ids, ["x", "x", None, None, None], [None, None, base, near, far])
    assert numbers.tolist() == [0, 0, 2, 2, 4]
    known = number_copies(ids, ["x"] * 5, [None] * 5, {"a": "g", "e": "g"})
    assert known.tolist() == [0, 1, 2, 3, 0]


def test_a_film_is_not_decided_with_a_clip_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_rows, "read_duplicate_groups", lambda out: dict.fromkeys("cfgij", "one"))
    kinds, contents = ["video", "video", "video", "image", "image"], ["1", "2", "2", "3", "4"]
    table = pa.table({"item_id": list("cfgij"), "kind": kinds, "content_hash": contents})
    groups = verdict_rows._duplicate_groups("out", table)
    assert number_copies(list("cfgij"), contents, [None] * 5, groups).tolist() == [0, 1, 1, 3, 3]


def test_plain_pictures_are_no_copies_of_each_other() -> None:
    assert number_copies(["a", "b"], [None, None], ["0" * 64, "0" * 64]).tolist() == [0, 1]
    assert number_copies(["a"], [None], ["not a hash"]).tolist() == [0]


def test_names_of_uploaders_become_numbers() -> None:
    assert number_groups(["a", None, "b", "a"]).tolist() == [0, -1, 1, 0]


def test_a_filter_is_parsed_from_texts() -> None:
    parsed = parse_filter(
        {"verdict": "review, pass", "kind": ["video"], "attribute": "cam=a,b", "audit": "no", "order": "lowest"}
    )
    assert parsed == QueueFilter(
        verdict=("review", "pass"), kind=("video",), attributes=(("cam", "a,b"),), audit=False, order="lowest"
    )
    assert parse_filter({}) == QueueFilter() and parse_filter({"undecided": "0"}).undecided is False


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"verdct": "pass"}, "no filter 'verdct'; did you mean 'verdict'"),
        ({"verdict": "blok"}, "did you mean 'block'"),
        ({"check": "gor"}, "no such check; did you mean 'gore'"),
        ({"kind": "film"}, "filter kind='film': unknown"),
        ({"error": "corupt"}, "did you mean 'corrupt'"),
        ({"audit": "maybe"}, "filter audit='maybe': yes or no"),
        ({"attribute": "cam"}, "expected NAME=VALUE"),
        ({"order": "rnk"}, "did you mean 'rank'"),
        ({"kind": "x" * 600}, "at most 50 values of 500 characters"),
    ],
)
def test_a_wrong_filter_says_what_is_right(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_filter(texts, checks=("gore",))
