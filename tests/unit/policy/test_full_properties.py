"""Properties of policies with every rule that there is: monotone, cautious, and the same after a way through tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.config.model import OutputConfig
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy, policy_hash
from moderation.results.judged import judge_rows
from moderation.results.tables import ItemRow, decode_table, encode_table, verdicts_table, votes_table
from moderation.results.votes import item_votes
from moderation.types import ErrorCode, Item, ItemFacts, ItemVotes, Judgement, MediaObject, Seen, Status, Verdict
from tests.drawn_policies import (
    HARSHNESS,
    HASHES,
    LABELS,
    NEGATIVE,
    POSITIVE,
    TODAY,
    full_policies,
    item_facts,
    raised,
    rows,
    seens,
    votes_of,
)

unhurried = settings(max_examples=40, deadline=None)
errors = st.sampled_from([None, None, ErrorCode.TRUNCATED])


def bound_of(policy: Policy) -> BoundPolicy:
    return bind(policy, LABELS, as_of=TODAY)


def judged(policy: Policy, scores: list[list[float]], facts: ItemFacts, seen: Seen, error: Any = None) -> Judgement:
    return judge_item(votes_of(scores), error, bound_of(policy), seen, facts)


@unhurried
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), error=errors, data=st.data())
def test_raising_a_negative_vote_is_never_milder(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, error: Any, data: Any
) -> None:
    before = judged(policy, scores, facts, seen, error)
    after = judged(policy, raised(scores, NEGATIVE, data), facts, seen, error)
    assert HARSHNESS[after.verdict] >= HARSHNESS[before.verdict]


@unhurried
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), error=errors, data=st.data())
def test_raising_a_positive_vote_is_never_harsher(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, error: Any, data: Any
) -> None:
    before = judged(policy, scores, facts, seen, error)
    after = judged(policy, raised(scores, POSITIVE, data), facts, seen, error)
    assert HARSHNESS[after.verdict] <= HARSHNESS[before.verdict]


@unhurried
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), value=st.sampled_from(HASHES))
def test_another_entry_of_a_deny_list_is_never_milder(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, value: str
) -> None:
    tree = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    tree["lists"]["more"] = {"action": "deny", "by": "content_hash", "verdict": "review", "entries": [value]}
    after = judged(Policy.model_validate(tree), scores, facts, seen)
    assert HARSHNESS[after.verdict] >= HARSHNESS[judged(policy, scores, facts, seen).verdict]


@unhurried
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), error=errors)
def test_a_pass_was_seen_whole_and_no_severe_check_objects_to_it(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, error: Any
) -> None:
    judgement = judged(policy, scores, facts, seen, error)
    if judgement.verdict is not Verdict.PASS:
        return
    assert error is None
    assert not seen.unseen
    for name, check in policy.checks.items():
        if policy.is_severe(check) and check.block is not None and not check.by:
            score = judgement.scores[name]
            assert score is None or score < check.block


@unhurried
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), other=full_policies())
def test_the_audit_goes_by_score_and_group_and_never_by_the_verdict(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, other: Policy
) -> None:
    harsher = policy.model_copy(update={"lists": other.lists, "default": other.default, "vouch": {}})
    assert judged(harsher, scores, facts, seen).audit == judged(policy, scores, facts, seen).audit


@unhurried
@given(policy=full_policies(), scores=rows, facts=item_facts(), seen=seens(), error=errors)
def test_a_judgement_says_why_in_words_and_within_bounds(
    policy: Policy, scores: Any, facts: ItemFacts, seen: Seen, error: Any
) -> None:
    judgement = judged(policy, scores, facts, seen, error)
    assert judgement.reason_text
    assert "{" not in judgement.reason_text
    assert (judgement.threshold is None) == (
        judgement.reason.split(":")[0] in ("null", "default", "list", "vouch", "error", "unseen")
    )
    assert len(judgement.segments) <= 20


@settings(max_examples=30, deadline=None)
@given(policy=full_policies())
def test_a_policy_is_the_same_after_its_journey_to_a_worker(policy: Policy) -> None:
    again = Policy.model_validate_json(policy.model_dump_json(by_alias=True, exclude_unset=True))
    assert again == policy
    assert policy_hash(again) == policy_hash(policy)


@settings(max_examples=30, deadline=None)
@given(
    policy=full_policies(),
    items=st.lists(st.tuples(rows, item_facts(), seens(), errors), min_size=1, max_size=3),
    timed=st.booleans(),
    format_=st.sampled_from(["parquet", "arrow"]),
    hashes=st.lists(st.sampled_from([*HASHES, None]), min_size=6, max_size=6),
)
def test_a_rejudge_from_the_tables_gives_the_rows_of_the_run(
    policy: Policy, items: Any, timed: bool, format_: str, hashes: list[str | None]
) -> None:
    bound = bound_of(policy)
    written = [_row(f"i{at}", *item, bound, timed, hashes) for at, item in enumerate(items)]
    tables = (
        votes_table(written, LABELS, {"pdq.hash": 32}, {}, {}),
        verdicts_table(written, tuple(policy.checks), {}),
    )
    output = OutputConfig(format=format_)  # type: ignore[arg-type] # one of the two
    votes, verdicts = (decode_table(encode_table(table, output), format_) for table in tables)
    again = list(judge_rows(verdicts, dict(item_votes(votes, LABELS)), bound))
    assert again == [row.judgement for row in written]


def _row(
    name: str,
    scores: Any,
    facts: ItemFacts,
    seen: Seen,
    error: Any,
    bound: BoundPolicy,
    timed: bool,
    hashes: list[str | None],
) -> ItemRow:
    plain = votes_of(scores)
    votes = ItemVotes(
        labels=plain.labels,
        frames=plain.frames,
        times_s=tuple(float(frame) for frame in plain.frames) if timed else plain.times_s,
        scores=plain.scores,
        regions=((),) * len(plain.frames),
        blobs={"pdq.hash": tuple(None if h is None else bytes.fromhex(h) for h in hashes[: len(plain.frames)])},
    )
    item = Item(item_id=name, uri=name, objects=(MediaObject(uri=name, name=name),), attributes=dict(facts.attributes))
    known = ItemFacts(item_id=name, attributes=facts.attributes, content_hash=facts.content_hash, pdq=facts.pdq)
    return ItemRow(
        item=item,
        status=Status.OK if error is None else Status.ERROR,
        kind=seen.kind,
        judgement=judge_item(votes, error, bound, seen, known),
        votes=votes,
        duration_s=seen.duration_s,
        widest_gap_s=seen.widest_gap_s,
        unseen=seen.unseen,
        content_hash=facts.content_hash,
        pdq=facts.pdq,
        error_code=error,
    )


SCENES = st.sampled_from(
    [{"method": "run", "length": 2, "gap": 1}, {"method": "top_k_mean", "k": 2}, {"method": "linear_softmax"}, "mean"]
)


@settings(max_examples=60, deadline=None)
@given(pool=SCENES, scores=rows, what=st.sampled_from(["review", "ignore"]), seen=seens(), data=st.data())
def test_an_isolated_hit_is_between_a_pass_and_a_block(
    pool: Any, scores: Any, what: str, seen: Seen, data: Any
) -> None:
    check = {"side": "negative", "votes": ["n.one"], "block": 0.6, "null": "ignore", "pool": pool, "isolated": what}
    policy = Policy.model_validate({"default": "pass", "checks": {"n": check}})
    facts = ItemFacts(item_id="i")
    before, after = (judged(policy, s, facts, seen) for s in (scores, raised(scores, NEGATIVE, data)))
    assert HARSHNESS[after.verdict] >= HARSHNESS[before.verdict]
    over = any(row[0] >= np.float32(0.6) for row in scores)  # NaN compares false
    if what == "review" and over:
        assert before.verdict is Verdict.BLOCK or before.reason.startswith(("isolated:", "error:"))
    assert what == "review" or not before.reason.startswith("isolated:")
