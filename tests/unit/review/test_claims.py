"""Claims: an item has one holder, ended claims free it, and the file that remembers them may hold anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.review.claims import ClaimBook
from moderation.review.items import Stage

OPEN = Stage.OPEN


def book(folder: Path, now_s: float = 0.0) -> ClaimBook:
    return ClaimBook(str(folder), 100.0, now_s)


def test_an_item_is_held_until_its_claim_ends(tmp_path: Path) -> None:
    claims = book(tmp_path)
    claims.make("ann", {"a": OPEN}, 0)
    assert claims.held_by("a", 99) == "ann" and list(claims.others("bob", 99)) == ["a"]
    assert claims.held_by("a", 101) is None and list(claims.others("bob", 101)) == []


def test_a_sign_of_life_puts_the_end_off(tmp_path: Path) -> None:
    claims = book(tmp_path)
    claims.make("ann", {"a": OPEN}, 0)
    claims.renew("ann", 90)
    assert claims.held_by("a", 150) == "ann"
    # And a server that starts again knows.
    assert book(tmp_path, 150).held_by("a", 150) == "ann"


def test_a_new_claim_takes_an_item_out_of_an_ended_one(tmp_path: Path) -> None:
    claims = book(tmp_path)
    old = claims.make("ann", {"a": OPEN, "b": OPEN}, 0)
    claims.make("bob", {"a": OPEN}, 200)
    claims.renew("ann", 201)
    assert claims.held_by("a", 201) == "bob" and claims.held_by("b", 201) == "ann"
    assert list(old.items) == ["b"]


def test_a_claim_that_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    claims = book(tmp_path)
    old = claims.make("ann", {"a": OPEN}, 0)
    claims.make("bob", {"b": OPEN}, 5000)
    assert claims.get(old.claim) is None


def test_what_a_reviewer_gives_back_is_free(tmp_path: Path) -> None:
    claims = book(tmp_path)
    claims.make("ann", {"a": OPEN}, 0)
    claims.release("ann", 1)
    assert claims.held_by("a", 1) is None and book(tmp_path, 1).held_by("a", 1) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"[]", b"[" * 9000, b'{"claims": 7}', b'{"claims": [{}]}', b'{"claims": [{"claim": "a"}]}', b"\xff"],
)
def test_a_file_of_claims_that_is_not_readable_counts_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "review").mkdir()
    (tmp_path / "review" / "claims.json").write_bytes(data)
    assert list(book(tmp_path).others("bob", 0)) == []


def test_no_claim_of_a_file_lasts_for_ever(tmp_path: Path) -> None:
    (tmp_path / "review").mkdir()
    claim = {"claim": "c", "reviewer": "ann", "expires_s": 1e300, "items": {"a": "open"}}
    (tmp_path / "review" / "claims.json").write_text(json.dumps({"claims": [claim]}))
    assert book(tmp_path).held_by("a", 101) is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["ann", "bob"]), st.sets(st.sampled_from("abcd"), min_size=1), st.integers(0, 150)),
    max_size=12,
)


@settings(max_examples=25)  # each writes a file a step
@given(STEPS)
def test_no_item_ever_has_two_holders(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:  # type: ignore[type-arg] # of hypothesis
    claims, now_s = book(tmp_path_factory.mktemp("claims")), 0
    for reviewer, wanted, wait_s in steps:
        now_s += wait_s
        free = wanted - set(claims.others(reviewer, now_s))
        if free:
            claims.make(reviewer, dict.fromkeys(sorted(free), OPEN), now_s)
        claims.renew(reviewer, now_s)
        held = [item for name in ("ann", "bob") for item in claims.own(name, now_s)]
        assert len(held) == len(set(held))
