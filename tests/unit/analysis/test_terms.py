"""Terms that stand out among some items."""

from __future__ import annotations

import pytest

from moderation.analysis import terms
from moderation.analysis.terms import TermCounts, over_represented, terms_of


def counted(rows: list[dict[str, str]]) -> TermCounts:
    counts = TermCounts()
    for row in rows:
        counts.add(terms_of(row))
    return counts


def test_what_the_chosen_have_and_the_rest_has_not_comes_first() -> None:
    chosen = [{"class": "revolver", "city": "Rome"}] * 20
    rest = [{"class": "teapot", "city": "Rome"}] * 200 + [{"class": "revolver"}] * 2
    found = over_represented(counted(chosen), counted(chosen + rest))
    assert (found[0].attribute, found[0].term) == ("class", "revolver")
    assert (found[0].chosen, found[0].others) == (20, 2)
    assert found[0].lift == pytest.approx(222 / 22)
    assert found[0].z > 4
    assert all(t.term != "teapot" for t in found)


def test_a_rare_term_is_less_sure_than_a_common_one() -> None:
    chosen = [{"class": "gun"}] * 30 + [{"class": "odd"}] * 2
    rest = [{"class": "cup"}] * 300
    z = {t.term: t.z for t in over_represented(counted(chosen), counted(chosen + rest))}
    assert z["gun"] > 2 * z["odd"]


def test_captions_are_read_word_by_word() -> None:
    found = terms_of({"caption": "A man with a rifle stands beside the burning car", "class": "Tank", "empty": " "})
    assert ("caption", "rifle") in found
    assert ("caption", "the") not in found
    assert ("class", "tank") in found


def test_all_or_none_chosen_say_nothing() -> None:
    everything = counted([{"a": "x"}] * 5)
    assert over_represented(everything, everything) == ()
    assert over_represented(TermCounts(), everything) == ()


def test_strangers_cannot_fill_the_memory_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "MAX_TERMS", 100)
    counts = counted([{"id": f"user{i}", "class": "same"} for i in range(500)])
    assert counts.dropped
    assert len(list(counts.terms())) <= 100
    assert counts["class", "same"] == 500
    assert len(terms_of({f"k{i}": "v" for i in range(1000)})) == terms.MAX_ATTRIBUTES
