"""A session: who gets what, what is taken, what is refused, and what a second process finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moderation import storage
from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions, read_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.review.filters import QueueFilter
from moderation.review.items import Stage
from moderation.review.outcomes import Refusal
from moderation.review.session import open_session
from moderation.review.settings import ReviewSettings
from moderation.storage.lease import LeaseHeldError
from moderation.types import Kind
from tests.finished_run import Made
from tests.reviewed_run import NOON_S, POLICY, SetClock, answer, made, write_reviewed

PLAIN = ReviewSettings(second_share=0.0, hidden_share=0.0, experts=frozenset({"eve"}))
# Without an audit, so that only what is for review waits.
NO_AUDIT = "\n".join(line for line in POLICY.splitlines() if not line.startswith("audit"))


def ten(folder: Path, **more: object) -> str:
    return write_reviewed(folder, [made(f"i{n}", weapon=0.6 + n / 100, **more) for n in range(10)], NO_AUDIT)


def ids(offers: object) -> list[str]:
    return [offer.item.item_id for offer in offers]  # type: ignore[attr-defined] # a tuple of offers


def test_items_for_review_come_by_rank_and_each_to_one_reviewer(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made(f"i{n}", weapon=0.1 + n / 12) for n in range(10)], NO_AUDIT)
    with open_session(out, PLAIN) as session:
        first, second = session.next_items("ann", 3), session.next_items("bob", 50)
    # Only what is over 0.5 is for review; the middle of the band is the least certain.
    assert sorted(ids(first) + ids(second)) == ["i5", "i6", "i7", "i8", "i9"]
    ranks = [offer.item.review_rank or 0 for offer in (*first, *second)]
    assert ranks == sorted(ranks, reverse=True)


def test_a_page_that_is_loaded_again_gets_its_items_back(tmp_path: Path) -> None:
    with open_session(ten(tmp_path), PLAIN) as session:
        held = session.next_items("ann", 4)
        assert ids(session.next_items("ann", 4)) == ids(held)
        assert not set(ids(session.next_items("ann", 4, have=ids(held)))) & set(ids(held))


def test_what_is_taken_is_on_disk_with_what_the_server_knows(tmp_path: Path) -> None:
    out = ten(tmp_path, content_hash="ab", attributes={"group": "g1"})
    with open_session(out, PLAIN) as session:
        offer = session.next_items("ann", 1)[0]
        outcome = session.decide([answer(offer, "ann", Answer.BLOCK, labels=("gore",), exposure_s=1.5)])
        (kept,) = read_decisions(out)
    assert outcome.taken == (kept.decision_id,)
    assert (kept.uri, kept.content_hash, kept.group_id) == (offer.item.uri, "ab", "g1")
    assert (kept.source, kept.expert, kept.labels) == (DecisionSource.QUEUE, False, ("gore",))


def test_a_repeated_batch_is_acknowledged_and_kept_once(tmp_path: Path) -> None:
    out = ten(tmp_path)
    with open_session(out, PLAIN) as session:
        batch = [answer(offer, "ann") for offer in session.next_items("ann", 3)]
        session.decide(batch)
        again = session.decide(batch)
    assert again.repeated == tuple(d.decision_id for d in batch) and not again.taken and not again.refused
    assert len(read_decisions(out)) == 3


def test_decisions_that_cannot_be_taken_are_refused_one_by_one(tmp_path: Path) -> None:
    with open_session(ten(tmp_path), PLAIN) as session:
        mine, other = session.next_items("ann", 5), session.next_items("bob", 1)[0]
        session.decide([answer(mine[4], "ann", number=9)])
        outcome = session.decide(
            [
                answer(mine[0], "ann"),
                answer(other, "ann", number=1),
                answer(mine[1], "ann", number=2, claim="0" * 16),
                replace(answer(mine[1], "ann", number=3), item_id="none"),
                answer(mine[1], "ann", number=4, comment="x" * 9999),
                answer(mine[0], "ann", number=5),
                answer(mine[4], "ann", Answer.BLOCK, number=9),
                answer(mine[2], "ann", number=6, undoes="bob:x:0"),
                answer(mine[3], "a\nn", number=7),
            ]
        )
    assert outcome.taken == ("ann:" + mine[0].item.item_id + ":0",)
    assert [refused.code for refused in outcome.refused] == [
        Refusal.CLAIM_OF_ANOTHER, Refusal.CLAIM_UNKNOWN, Refusal.UNKNOWN_ITEM, Refusal.INVALID, Refusal.CLAIM_TAKEN,
        Refusal.CONFLICT, Refusal.NOT_YOURS, Refusal.INVALID,
    ]  # fmt: skip


def test_an_ended_claim_is_refused_once_somebody_else_has_the_item(tmp_path: Path) -> None:
    clock = SetClock()
    with open_session(ten(tmp_path), PLAIN, clock=clock) as session:
        mine = session.next_items("ann", 10)
        assert session.next_items("bob", 1) == ()
        clock.now_s += PLAIN.claim_s + 1
        taken = session.next_items("bob", 4)
        outcome = session.decide([answer(offer, "ann") for offer in mine])
    assert {refused.code for refused in outcome.refused} == {Refusal.CLAIM_TAKEN}
    # What nobody took is not lost: a reviewer may have been without a network.
    assert len(outcome.refused) == len(taken) == 4 and len(outcome.taken) == 6


def test_a_server_that_starts_again_knows_the_claims(tmp_path: Path) -> None:
    out = ten(tmp_path)
    with open_session(out, PLAIN) as session:
        mine = session.next_items("ann", 6)
    with open_session(out, PLAIN) as session:
        assert not set(ids(session.next_items("bob", 10))) & set(ids(mine))
        assert len(session.decide([answer(offer, "ann") for offer in mine]).taken) == 6


def test_a_second_server_on_the_same_output_is_refused(tmp_path: Path) -> None:
    out = ten(tmp_path)
    with (
        open_session(out, PLAIN),
        pytest.raises(LeaseHeldError, match="another writer of decisions"),
        open_session(out),
    ):
        pass


def test_undo_hands_the_last_items_out_again(tmp_path: Path) -> None:
    out = ten(tmp_path)
    with open_session(out, PLAIN) as session:
        offers = session.next_items("ann", 3)
        session.decide([answer(offer, "ann", number=n) for n, offer in enumerate(offers)])
        again = session.undo("ann", 2)
        assert ids(again) == ids(offers)[:0:-1]
        assert session.decide([answer(offer, "ann", Answer.BLOCK, number=9) for offer in again]).taken
        assert session.progress().by_stage[Stage.SETTLED] == 3
        assert session.undo("bob", 20) == ()
        with pytest.raises(UsageError, match="1 to 20"):
            session.undo("ann", 21)


def test_an_answer_may_be_changed_without_a_claim(tmp_path: Path) -> None:
    out = ten(tmp_path)
    with open_session(out, PLAIN) as session:
        offer = session.next_items("ann", 1)[0]
        session.decide([answer(offer, "ann", decision_id="one")])
        changed = answer(offer, "ann", Answer.BLOCK, decision_id="two", claim=None, undoes="one")
        assert session.decide([changed]).taken == ("two",)
        again = answer(offer, "ann", Answer.PASS, decision_id="three", claim=None, undoes="one")
        assert session.decide([again]).refused[0].code is Refusal.NOT_YOURS


def test_a_decision_on_what_lay_there_before_leaves_the_item_in_the_queue(tmp_path: Path) -> None:
    # OUT keeps its decisions when the run is made anew.
    out = ten(tmp_path, content_hash="new")
    when = datetime.fromtimestamp(NOON_S, UTC)
    before = [
        Decision(
            decision_id=f"d{n}", item_id=f"i{n}", decision=Answer.PASS, reviewer="ann", decided_at=when, content_hash=c
        )
        for n, c in enumerate(("old", "new", None))
    ]
    append_decisions(out, before)
    with open_session(out, PLAIN) as session:
        assert session.progress().by_stage[Stage.SETTLED] == 2
        assert sorted(ids(session.next_items("ann", 20))) == ["i0", *(f"i{n}" for n in range(3, 10))]


def test_a_skipped_item_goes_to_others(tmp_path: Path) -> None:
    with open_session(ten(tmp_path), PLAIN) as session:
        offers = session.next_items("ann", 10)
        session.decide([answer(offer, "ann", Answer.SKIP) for offer in offers])
        assert session.next_items("ann", 10) == ()
        assert len(session.next_items("bob", 10)) == 10


def test_a_severe_block_gets_a_second_opinion_and_a_difference_an_expert(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("severe", gore=0.6), made("mild", weapon=0.6)], NO_AUDIT)
    with open_session(out, PLAIN) as session:
        session.decide([answer(offer, "ann", Answer.BLOCK) for offer in session.next_items("ann")])
        assert session.next_items("ann") == ()
        (second,) = session.next_items("bob")
        assert (second.item.item_id, second.stage, second.earlier) == ("severe", Stage.SECOND, ())
        session.decide([answer(second, "bob", Answer.PASS)])
        assert session.next_items("cy") == ()
        (expert,) = session.next_items("eve")
        assert expert.stage is Stage.EXPERT and expert.earlier == ("block", "pass")
        session.decide([answer(expert, "eve", Answer.PASS)])
        assert session.progress().left == 0
    assert [(d.source, d.expert) for d in read_decisions(out)[2:]] == [
        (DecisionSource.SECOND, False),
        (DecisionSource.SECOND, True),
    ]


def test_a_block_for_a_severe_reason_is_severe_whatever_the_machine_saw(tmp_path: Path) -> None:
    with open_session(ten(tmp_path), PLAIN) as session:
        offer = session.next_items("ann", 1)[0]
        session.decide([answer(offer, "ann", Answer.BLOCK, labels=("gore",))])
        assert session.progress().by_stage[Stage.SECOND] == 1


def test_a_share_gets_a_second_opinion_by_the_hash_of_the_item(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made(f"i{n}", weapon=0.6) for n in range(60)], NO_AUDIT)
    with open_session(out, replace(PLAIN, second_share=0.3)) as session:
        session.decide([answer(offer, "ann") for offer in session.next_items("ann", 60)])
        seconds = ids(session.next_items("bob", 60))
    assert 8 <= len(seconds) <= 30


def test_an_audit_item_tells_nothing_of_the_machine_before_the_first_answer(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("drawn", weapon=0.1), made("other", weapon=0.6)])
    with open_session(out, PLAIN) as session:
        by_id = {offer.item.item_id: offer for offer in session.next_items("ann")}
        drawn = by_id["drawn"].item
        assert drawn.blind and drawn.verdict is None and not drawn.scores and not drawn.evidence
        assert drawn.reason is None and drawn.review_rank is None and drawn.check is None and drawn.severity is None
        assert by_id["other"].item.verdict == "review"
        session.decide([answer(by_id["drawn"], "ann")])
        assert session.item("ann", "drawn").verdict == "pass"
        assert session.item("bob", "drawn").verdict is None
        # Two answers that agree, or an expert: what certificates ask for.
        (second,) = [offer for offer in session.next_items("bob") if offer.item.item_id == "drawn"]
        assert second.item.blind and second.stage is Stage.SECOND
        session.decide([answer(second, "bob")])
    assert [d.source for d in read_decisions(out)] == [DecisionSource.AUDIT, DecisionSource.AUDIT]


def test_an_audit_answer_after_sight_of_the_verdict_does_not_certify(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("a", weapon=0.1), made("b", weapon=0.1)])
    with open_session(out, PLAIN) as session:
        offers = {offer.item.item_id: offer for offer in session.next_items("ann")}
        session.decide([answer(offers["a"], "ann", shown={"verdict": "pass"}), answer(offers["b"], "ann", number=1)])
        session.item("ann", "b")
        (again,) = session.undo("ann")
        session.decide([answer(again, "ann", Answer.BLOCK, number=2)])
    sources = {d.item_id: d.source for d in read_decisions(out) if d.undoes is None}
    assert sources == {"a": DecisionSource.QUEUE, "b": DecisionSource.QUEUE}


def test_a_filter_that_tells_the_verdict_leaves_blind_items_out(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("drawn", weapon=0.1), made("other", weapon=0.6), made("plain", weapon=0.3)])
    with open_session(out, PLAIN) as session:
        assert ids(session.next_items("ann", filters=QueueFilter(verdict=("pass",)))) == ["plain"]
        assert ids(session.next_items("bob", filters=QueueFilter(audit=True))) == ["drawn"]


def test_hidden_items_look_like_others_and_measure_the_reviewer(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made(f"i{n}", weapon=0.6) for n in range(40)], NO_AUDIT)
    with open_session(out, replace(PLAIN, hidden_share=0.3)) as session:
        session.decide([answer(offer, "eve", Answer.BLOCK) for offer in session.next_items("eve", 20)])
        known = {d.item_id for d in read_decisions(out)}
        offers = session.next_items("ann", 20)
        hidden = [offer for offer in offers if offer.item.item_id in known]
        assert 1 <= len(hidden) <= 15 and {offer.stage for offer in offers} == {Stage.OPEN}
        session.decide([answer(offer, "ann", Answer.PASS) for offer in offers])
        # A wrong answer to a known item changes nothing about the item.
        assert session.progress().by_stage[Stage.SETTLED] == 40
    sources = Counter(d.source for d in read_decisions(out) if d.reviewer == "ann")
    assert sources[DecisionSource.HIDDEN] == len(hidden)


def test_near_copies_come_together_and_may_be_decided_together(tmp_path: Path) -> None:
    items = [made(f"i{n}", weapon=0.6 + n / 50, content_hash=f"{n % 4}" * 64) for n in range(12)]
    with open_session(write_reviewed(tmp_path, items, NO_AUDIT), PLAIN) as session:
        offers = session.next_items("ann", 1)
        assert len(offers) == 3 and len({offer.item.together for offer in offers}) == 1
        assert len(session.decide([answer(offer, "ann") for offer in offers]).taken) == 3


def test_videos_with_one_alike_frame_are_no_copies(tmp_path: Path) -> None:
    alike, one, two = "0f" * 32, "3c" * 32, "55" * 32

    def clip(name: str, first: str) -> Made:
        return Made(
            name=name, votes=[(0.6, 0.1)] * 3, kind=Kind.VIDEO, times_s=(0.0, 1.0, 2.0), hashes=(first, alike, first),
            content_hash=name[0] * 64,
        )  # fmt: skip

    still = Made(name="c.png", votes=[(0.6, 0.1)], hashes=(alike,), content_hash="c" * 64)
    out = write_reviewed(tmp_path, [clip("a.mp4", one), clip("b.mp4", two), still], NO_AUDIT)
    with open_session(out, PLAIN) as session:
        offers = session.next_items("ann", 3)
    assert len({offer.item.together for offer in offers}) == len(offers) == 3


def test_an_appeal_goes_to_who_did_not_decide_before(tmp_path: Path) -> None:
    from moderation.review.appeals import Appeal, add_appeals

    out = ten(tmp_path)
    wanted = QueueFilter(appeals=True)
    with open_session(out, PLAIN) as session:
        offer = session.next_items("ann", 1)[0]
        session.decide([answer(offer, "ann", Answer.BLOCK)])
    appeal = Appeal(item_id=offer.item.item_id, text="It is a toy.", time="2026-11-26T13:00:00+00:00")
    assert add_appeals(out, [appeal, appeal]) == 1
    with open_session(out, PLAIN) as session:
        assert session.next_items("ann", filters=wanted) == ()
        (appealed,) = session.next_items("bob", filters=wanted)
        assert (appealed.stage, appealed.appeal) == (Stage.APPEAL, "It is a toy.")
        session.decide([answer(appealed, "bob", Answer.PASS)])
        assert session.next_items("cy", filters=wanted) == () and session.progress().appeals == 0
        # An appeal rules: that it differs from what was said before needs no expert.
        assert session.progress().by_stage[Stage.EXPERT] == 0
        assert offer.item.item_id not in ids(session.next_items("eve", 20))
    assert appeal.is_decided_by(read_decisions(out)[-1])


@pytest.mark.parametrize("choice", [Answer.SKIP, Answer.ESCALATE])
def test_an_appeal_that_is_skipped_or_escalated_goes_to_others(tmp_path: Path, choice: Answer) -> None:
    from moderation.review.appeals import Appeal, add_appeals

    out = ten(tmp_path)
    wanted = QueueFilter(appeals=True)
    with open_session(out, PLAIN) as session:
        offer = session.next_items("ann", 1)[0]
        session.decide([answer(offer, "ann", Answer.BLOCK)])
    add_appeals(out, [Appeal(item_id=offer.item.item_id, text="toy", time="2026-11-26T13:00:00+00:00")])
    with open_session(out, PLAIN) as session:
        (appealed,) = session.next_items("bob", filters=wanted)
        assert session.decide([answer(appealed, "bob", choice)]).taken
        assert session.progress().appeals == 1
        assert session.next_items("bob", filters=wanted) == ()
        (again,) = session.next_items("eve", filters=wanted)
        assert again.stage is Stage.APPEAL
        assert session.decide([answer(again, "eve", Answer.PASS)]).taken
        assert session.next_items("cy", filters=wanted) == () and session.progress().appeals == 0


def test_a_decision_whose_write_failed_after_all_came_through_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, lost = storage.publish, ["part-"]

    def lose_the_answer(uri: str, data: bytes) -> None:
        publish(uri, data)
        if lost and lost[0] in uri:
            lost.pop()
            raise storage.StorageError("no answer")

    out = ten(tmp_path)
    with open_session(out, PLAIN) as session:
        (offer,) = session.next_items("ann", 1)
        said = answer(offer, "ann", Answer.BLOCK)
        monkeypatch.setattr(storage, "publish", lose_the_answer)
        with pytest.raises(storage.StorageError):
            session.decide([said])
        assert session.decide([said]).repeated == (said.decision_id,)
        assert session.progress().by_stage[Stage.SETTLED] == 1
        assert offer.item.item_id not in ids(session.next_items("ann", 10))
        assert ids(session.undo("ann")) == [offer.item.item_id]


def test_progress_counts_stages_and_paces(tmp_path: Path) -> None:
    clock = SetClock()
    with open_session(ten(tmp_path), PLAIN, clock=clock) as session:
        offers = session.next_items("ann", 4)
        session.decide([answer(offer, "ann", number=2 * n) for n, offer in enumerate(offers[:3])])
        clock.now_s += 60
        progress = session.progress()
    assert (progress.total, progress.left) == (10, 7)
    (ann,) = progress.reviewers
    assert (ann.reviewer, ann.decided, ann.holding, ann.per_minute) == ("ann", 3, 1, 30.0)


@pytest.mark.parametrize("name", ["", " ann", "a\x00b", "x" * 65])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with open_session(ten(tmp_path), PLAIN) as session, pytest.raises(UsageError, match="pseudonym"):
        session.next_items(name)
