"""Allow- and deny-lists: by what an item is on one, until when, and what stands over them."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from moderation.errors import UsageError
from moderation.policy import matching
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy, policy_hash
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Judgement, Kind, Region, Role, Seen, Verdict

LABELS = ("a.bad", "a.fine", "pdq.quality")
SHA = "ab" * 32
NEAR = "0" * 64
TODAY = date(2026, 11, 26)
CHECKS: dict[str, Any] = {
    "bad": {"side": "negative", "votes": ["a.bad"], "block": 0.9, "review": 0.5},
    "fine": {"side": "positive", "votes": ["a.fine"], "pass": 0.6},
}


def bound_to(*, checks: dict[str, Any] | None = None, as_of: date | None = TODAY, **lists: Any) -> BoundPolicy:
    return bind(Policy.model_validate({"checks": checks or CHECKS, "lists": lists}), LABELS, as_of=as_of)


def votes(*bad: float, **more: Any) -> ItemVotes:
    return ItemVotes(
        labels=LABELS,
        frames=tuple(range(len(bad))),
        times_s=(None,) * len(bad),
        scores=np.array([[score, 0.1, 0.9] for score in bad], np.float32),
        **more,
    )


def on(
    bound: BoundPolicy, item: ItemVotes | None = None, error: Any = None, seen: Any = None, **facts: Any
) -> Judgement:
    known = ItemFacts(item_id="i", **facts)
    return judge_item(votes(0.1) if item is None else item, error, bound, seen, known)


def deny(by: str, *values: Any, **more: Any) -> dict[str, Any]:
    return {"action": "deny", "by": by, "entries": list(values), **more}


def allow(by: str, *values: Any, **more: Any) -> dict[str, Any]:
    return {"action": "allow", "by": by, "entries": list(values), **more}


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        (deny("content_hash", SHA.upper()), {"content_hash": SHA}),
        (deny("pdq", "0" * 62 + "ff", distance=8), {"pdq": NEAR}),
        (deny("owner", "ann"), {"attributes": {"owner": "ann"}}),
        (deny("group", "g7"), {"attributes": {"group": "g7"}}),
        (deny("attribute", "spam.example", attribute="site"), {"attributes": {"site": " spam.example"}}),
        (deny("person", "Mallory"), {"attributes": {"person": "Mallory"}}),
    ],
)
def test_a_deny_list_blocks_by_what_it_is_of_and_nothing_else(rule: dict[str, Any], facts: dict[str, Any]) -> None:
    judged = on(bound_to(known=rule), **facts)
    assert (judged.verdict, judged.reason, judged.check) == (Verdict.BLOCK, "list:known:block", None)
    assert on(bound_to(known=rule), content_hash="cd" * 32, pdq="f" * 64).reason == "default:review"


def test_the_reason_of_an_entry_stands_in_the_row() -> None:
    bound = bound_to(spam=deny("owner", {"value": "ann", "reason": "sells\npills"}, severity="high"))
    judged = on(bound, attributes={"owner": "ann"})
    assert judged.reason_text == "On the list spam: sells pills."
    assert judged.severity == "high"


def test_a_distance_is_kept_to_the_bit() -> None:
    bound = bound_to(known=deny("pdq", "0" * 62 + "ff", distance=7))
    assert on(bound, pdq=NEAR).reason == "default:review"


def test_a_person_is_known_by_the_regions_of_the_gallery() -> None:
    face = Region(detector="gallery", label="Mallory", score=0.9, x0=0, y0=0, x1=1, y1=1)
    other = Region(detector="text", label="Mallory", score=0.9, x0=0, y0=0, x1=1, y1=1)
    bound = bound_to(known=deny("person", "Mallory", verdict="review"))
    assert on(bound, votes(0.1, regions=((face,),))).reason == "list:known:review"
    assert on(bound, votes(0.1, regions=((other,),))).reason == "default:review"


def test_any_frame_on_a_deny_list_is_enough_and_every_frame_must_be_on_an_allow_list() -> None:
    hashes = {"pdq.hash": (bytes(32), b"\xff" * 32)}
    assert on(bound_to(x=deny("pdq", NEAR, distance=0)), votes(0.1, 0.1, blobs=hashes)).verdict is Verdict.BLOCK
    allowing = bound_to(x=allow("pdq", NEAR, distance=0))
    assert on(allowing, votes(0.1, 0.1, blobs=hashes)).reason == "default:review"
    assert on(allowing, votes(0.1, 0.1, blobs={"pdq.hash": (bytes(32),) * 2})).reason == "list:x:pass"
    assert on(allowing, votes(0.1, 0.1, blobs={"pdq.hash": (bytes(32), None)})).reason == "default:review"


def test_parts_of_a_picture_are_asked_for_a_deny_list_alone() -> None:
    item = votes(
        0.1,
        0.1,
        blobs={"pdq.hash": (bytes(32), b"\xff" * 32)},
        roles=(Role.FRAME, Role.TILE),
        parents=(None, 0),
        boxes=(None, (0.0, 0.0, 0.5, 0.5)),
    )
    assert on(bound_to(x=allow("pdq", NEAR, distance=0)), item).verdict is Verdict.PASS
    assert on(bound_to(x=deny("pdq", "f" * 64, distance=0)), item).verdict is Verdict.BLOCK


def test_the_hash_of_a_flat_picture_says_nothing() -> None:
    flat = votes(0.1, blobs={"pdq.hash": (bytes(32),)})
    flat.scores[0, 2] = 0.4
    assert on(bound_to(x=deny("pdq", NEAR, distance=0)), flat).reason == "default:review"
    assert on(bound_to(x=deny("pdq", NEAR, distance=0, quality=40)), flat).verdict is Verdict.BLOCK


def test_an_album_of_two_owners_is_denied_by_one_and_allowed_by_both() -> None:
    both = {"attributes": {"owner": '["ann", "bob"]'}}
    assert on(bound_to(x=deny("owner", "bob")), **both).verdict is Verdict.BLOCK
    assert on(bound_to(x=allow("owner", "bob")), **both).reason == "default:review"
    assert on(bound_to(x=allow("owner", "ann", "bob")), **both).verdict is Verdict.PASS
    assert on(bound_to(x=allow("owner", "ann")), attributes={"owner": '["ann", null]'}).reason == "default:review"


@pytest.mark.parametrize(
    ("until", "as_of", "denied", "allowed"),
    [
        (None, TODAY, True, True),
        ("2026-11-26", TODAY, True, True),
        ("2026-11-25", TODAY, False, False),
        ("2026-11-25", None, True, False),  # no day is known: as a person would look
    ],
)
def test_an_entry_counts_to_its_last_day(until: str | None, as_of: Any, denied: bool, allowed: bool) -> None:
    entry = {"value": "ann", "until": until}
    facts = {"attributes": {"owner": "ann"}}
    assert (on(bound_to(as_of=as_of, x=deny("owner", entry)), **facts).verdict is Verdict.BLOCK) is denied
    assert (on(bound_to(as_of=as_of, x=allow("owner", entry)), **facts).verdict is Verdict.PASS) is allowed


def test_of_two_entries_the_one_that_lasts_longest_counts() -> None:
    entries = [{"value": "ann", "until": "2026-12-01", "reason": "late"}, {"value": "ann", "until": "2026-11-01"}]
    assert on(bound_to(x=deny("owner", *entries)), attributes={"owner": "ann"}).reason_text == "On the list x: late."


ALLOWED = {"attributes": {"owner": "ann"}}


def severe(level: str) -> dict[str, Any]:
    return {**CHECKS, "bad": {**CHECKS["bad"], "severity": level}}


@pytest.mark.parametrize(
    ("checks", "score", "reason"),
    [
        (CHECKS, 0.95, "list:x:pass"),
        (severe("high"), 0.95, "list:x:pass"),
        (severe("critical"), 0.95, "negative:bad:block"),
        (severe("critical"), 0.6, "negative:bad:review"),
        (severe("critical"), 0.1, "list:x:pass"),
        (severe("critical"), np.nan, "null:bad:review"),
    ],
)
def test_an_allow_list_passes_over_all_but_severe_checks(checks: dict[str, Any], score: float, reason: str) -> None:
    assert on(bound_to(checks=checks, x=allow("owner", "ann")), votes(score), **ALLOWED).reason == reason


def test_a_policy_says_from_which_level_on_a_check_is_severe() -> None:
    tree = {"checks": severe("medium"), "lists": {"x": allow("owner", "ann")}, "severe_from": "medium"}
    assert on(bind(Policy.model_validate(tree), LABELS), votes(0.95), **ALLOWED).verdict is Verdict.BLOCK


def test_an_allow_list_never_passes_an_error_or_what_was_not_seen() -> None:
    bound = bound_to(x=allow("owner", "ann"))
    assert on(bound, error=ErrorCode.TRUNCATED, **ALLOWED).reason == "error:truncated"
    track = Seen(kind=Kind.VIDEO, unseen=("track",))
    assert on(bound, seen=track, **ALLOWED).reason == "unseen:track"
    gap = Seen(kind=Kind.VIDEO, widest_gap_s=99.0)
    assert on(bound, seen=gap, **ALLOWED).reason == "unseen:gap"
    assert judge_item(None, ErrorCode.CORRUPT, bound, None, ItemFacts(item_id="i", **ALLOWED)).reason == "error:corrupt"


def test_a_deny_list_stands_over_an_allow_list_and_blocks_what_cannot_be_decoded() -> None:
    bound = bound_to(a=allow("owner", "ann"), b=deny("owner", "ann", verdict="review"))
    assert on(bound, **ALLOWED).reason == "list:b:review"
    bound = bound_to(a=deny("owner", "ann"))
    assert judge_item(None, ErrorCode.CORRUPT, bound, None, ItemFacts(item_id="i", **ALLOWED)).verdict is Verdict.BLOCK


def test_a_block_stands_over_a_list_that_asks_for_a_person() -> None:
    assert on(bound_to(x=deny("owner", "ann", verdict="review")), votes(0.95), **ALLOWED).verdict is Verdict.BLOCK


def test_a_stop_that_a_list_sets_aside_does_not_hide_a_severe_check() -> None:
    checks = {
        "first": {"side": "negative", "votes": ["a.bad"], "review": 0.5, "order": 1, "stop": True},
        "worst": {"side": "negative", "votes": ["a.fine"], "review": 0.5, "order": 2, "severity": "critical"},
    }
    assert on(bound_to(checks=checks, x=allow("owner", "ann")), votes(0.9), **ALLOWED).reason == "negative:first:review"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (deny("content_hash", "abc"), "'abc' is no content_hash"),
        (deny("pdq", NEAR), "by pdq needs `distance`"),
        (deny("owner", "ann", distance=3), "by owner takes no `distance`"),
        (deny("attribute", "x"), "by attribute needs `attribute`"),
        (deny("ownr", "x"), "'content_hash', 'pdq'"),
        (allow("owner", "x", verdict="review"), "an allow list passes"),
        (deny("owner", {"value": "x", "untill": "2026-01-01"}), "unknown key 'untill'; did you mean 'until'"),
        (deny("owner", {"value": "x", "until": "soon"}), "not a date like 2026-12-31"),
        (deny("owner", 1.5), "`value` must be a text"),
        (deny("owner", ""), "1 to"),
        ({"action": "deny", "by": "owner"}, "needs `from`, a file, or `entries`"),
        (deny("owner", "x", severity="hihg"), "did you mean 'high'"),
    ],
)
def test_each_mistake_in_a_list_is_named(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy.model_validate({"checks": CHECKS, "lists": {"x": rule}})


def test_a_list_that_was_not_read_is_refused_and_has_no_hash() -> None:
    policy = Policy.model_validate(
        {"checks": CHECKS, "lists": {"x": {"action": "deny", "by": "owner", "from": "x.csv"}}}
    )
    with pytest.raises(UsageError, match="list 'x' was not read"):
        bind(policy, LABELS)
    with pytest.raises(UsageError, match="list 'x' was not read"):
        policy_hash(policy)


def test_the_hash_sees_every_entry_and_not_their_order() -> None:
    def hash_of(*entries: Any) -> str:
        return policy_hash(Policy.model_validate({"checks": CHECKS, "lists": {"x": deny("owner", *entries)}}))

    assert hash_of("ann", "bob") == hash_of({"value": "bob"}, ["ann"], "ann")
    assert len({hash_of("ann"), hash_of("bob"), hash_of({"value": "ann", "until": "2026-12-31"})}) == 3


def test_a_long_list_finds_what_a_short_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (50, 32), np.uint8)
    near = drawn.copy()
    near[::2, 0] ^= 0b1011  # three bits
    near[1::2, :2] ^= 0xFF
    rule = deny("pdq", *(row.tobytes().hex() for row in drawn), distance=3)
    reasons = []
    for few in (1000, 1):
        monkeypatch.setattr(matching, "_FEW", few)
        bound = bound_to(x=rule)
        assert (bound.lists[0].index is None) == (few == 1000)
        reasons.append([on(bound, pdq=row.tobytes().hex()).reason for row in near])
    assert reasons[0] == reasons[1]
    assert reasons[0][:2] == ["list:x:block", "default:review"]
