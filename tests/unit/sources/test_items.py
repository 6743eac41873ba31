"""Ids and attributes that every source makes alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moderation.sources.items import UniqueIds, clean_text, flatten, make_id

ids = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=40)


@given(ids)
def test_claimed_ids_are_unique_and_the_first_is_kept(pairs: list[tuple[str, str]]) -> None:
    unique = UniqueIds()
    claimed = [unique.claim(item_id, salt, n) for n, (item_id, salt) in enumerate(pairs)]
    assert len(set(claimed)) == len(claimed)
    for n, (item_id, _) in enumerate(pairs):
        first = all(earlier != item_id for earlier, _ in pairs[:n])
        assert (claimed[n] == item_id) is first
        assert claimed[n].split("~")[0] == item_id


def test_many_ids_stay_unique_while_the_table_grows() -> None:
    unique = UniqueIds()
    names = [f"id-{n}" for n in range(20_000)]
    assert [unique.claim(name) for name in names] == names
    assert all(unique.claim(name, "again") != name for name in names)


def test_ids_are_content_hashes_of_their_parts() -> None:
    assert make_id("a", "b") == make_id("a", "b") != make_id("ab")
    assert len(make_id("odd-\udcff")) == 32


def test_text_that_utf8_cannot_hold_is_written_out() -> None:
    assert clean_text("a\udcffb") == "a\\udcffb"
    assert clean_text("café") == "café"


def test_attributes_are_flattened_one_level_without_nulls() -> None:
    value = {"a": 1, "b": {"c": True, "d": {"e": 1.5}, "n": None}, "l": [1, "x"], "s": "t", "n": None}
    assert flatten(value) == {"a": "1", "b.c": "true", "b.d": '{"e":1.5}', "l": '[1,"x"]', "s": "t"}
