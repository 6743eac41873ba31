"""Certificates: the procedure of CERTIFICATION.md on arrays, its figures, and its simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.certify import draw_groups, make_population, pool_all_labels, run_procedure
from moderation.errors import UsageError
from moderation.evaluation.audit import AuditRegion, drawn_for
from moderation.evaluation.certify import AuditLabels, certify
from moderation.evaluation.population import JudgedItem
from moderation.evaluation.walks import (
    binomial_p,
    count_errors,
    draw_zones,
    find_starts,
    labels_needed,
    labels_without_error,
    upper_bound,
    walk,
)
from moderation.evaluation.wealth import MAX_GROUP, MonitorWealth, bet_on, betting_logs, grouped_without_error, p_of
from moderation.policy.audit import Audit

SETS = 300
LEVEL = 0.025 / 4


def drawn(labels: int, errors: int = 0, seed: int = 0) -> AuditLabels:
    """Labels with scores of their own; the errors have the lowest."""
    strictness = np.sort(np.random.default_rng(seed).random(labels))
    return AuditLabels(strictness=strictness, errors=np.arange(labels) < errors)


@pytest.mark.parametrize(("allowed", "labels"), [(0.01, 505), (0.005, 1013), (0.001, 5073)])
def test_the_least_labels_without_an_error_are_those_of_the_procedure(allowed: float, labels: int) -> None:
    assert labels_without_error(allowed, LEVEL) == labels
    assert certify(drawn(labels), allowed, 0.025).threshold is not None
    refused = certify(drawn(labels - 1), allowed, 0.025)
    assert (refused.threshold, refused.more) == (None, 1)


def test_p_is_the_exact_binomial_test_and_the_bound_agrees_with_it() -> None:
    for n, k in [(473, 1), (505, 0), (2000, 9), (7, 7)]:
        p = float(binomial_p(np.array([n]), np.array([k]), 0.01)[0])
        assert p == pytest.approx(binomtest(k, n, 0.01, alternative="less").pvalue, rel=1e-9)
        assert (upper_bound(n, k, LEVEL) <= 0.01) == (p <= LEVEL)
    assert float(binomial_p(np.array([473]), np.array([1]), 0.01)[0]) == pytest.approx(0.0498, abs=1e-4)


def test_zones_are_thresholds_of_the_scores_and_hold_what_is_at_least_as_strict() -> None:
    scores = np.array([0.1, 0.5, 0.5, 0.9])
    zones = draw_zones(scores)
    assert zones.thresholds.tolist() == [0.9, 0.5, 0.1]
    assert zones.counts.tolist() == [1, 3, 4]
    assert count_errors(zones, scores, np.array([True, False, True, False])).tolist() == [0, 1, 2]


def test_starts_are_fixed_by_counts_alone() -> None:
    counts = np.arange(100, 2101, 100)
    starts = find_starts(counts, 0.01, LEVEL)
    assert [int(counts[s]) for s in starts] == [800, 1200, 1500, 1800]
    assert find_starts(counts[:3], 0.01, LEVEL) == (2,)


def test_a_walk_ends_at_the_first_zone_that_fails_and_another_start_goes_on_behind_it() -> None:
    p = np.array([0.001, 0.9, 0.001, 0.001, 0.5])
    assert int(walk(p, (0,), 0.01)) == 0
    assert int(walk(p, (0, 2), 0.01)) == 3
    assert int(walk(p, (1, 4), 0.01)) == -1


def test_what_is_not_certified_says_how_many_labels_would_do_at_the_rate_that_was_seen() -> None:
    assert labels_needed(1000, 20, 0.01, LEVEL) is None
    needed = labels_needed(1000, 5, 0.01, LEVEL)
    assert needed is not None
    assert needed > 1000
    assert binomtest(int(np.ceil(0.005 * needed)), needed, 0.01, alternative="less").pvalue <= LEVEL
    hopeless = certify(drawn(1000, errors=1000), 0.01, 0.025)
    assert (hopeless.threshold, hopeless.more) == (None, None)
    assert certify(AuditLabels(strictness=np.empty(0), errors=np.empty(0, np.bool_)), 0.01, 0.025).more == 505


def test_errors_at_the_lax_end_are_left_outside() -> None:
    found = certify(drawn(3000, errors=200), 0.01, 0.025)
    assert found.threshold is not None
    assert found.bound <= 0.01
    assert 2000 < found.labels <= 2850


def test_an_item_without_a_score_is_refused() -> None:
    with pytest.raises(UsageError, match="without a score"):
        AuditLabels(strictness=np.array([np.nan]), errors=np.array([True]))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.05]))
def test_a_certified_zone_always_passes_its_own_test(labels: int, seed: int, allowed: float) -> None:
    rng = np.random.default_rng(seed)
    audit = AuditLabels(strictness=rng.random(labels).round(2), errors=rng.random(labels) < 0.01)
    found = certify(audit, allowed, 0.2)
    if found.threshold is not None:
        inside = audit.strictness >= found.threshold
        assert (int(inside.sum()), int(audit.errors[inside].sum())) == (found.labels, found.errors)
        assert found.bound <= allowed


def test_of_a_group_the_items_with_the_smallest_hashes_count() -> None:
    audit = Audit.model_validate({"salt": "s", "group": "group", "block": {"check": "c", "from": 0.0, "rate": 1.0}})
    region = AuditRegion(side="block", check="c", rate=1.0, negative=True, start=0.0, stop=None)
    items = [
        JudgedItem(
            item_id=str(n), uri="", content_hash=None, kind="image", verdict="block", reason="", scores={"c": 0.9},
            frames=1, may_pass=True, attributes={"group": f"g{n % 2}"}, group_id=None, audit=True, label=None,
            audit_label=None,
        )
        for n in range(2 * MAX_GROUP + 10)
    ]  # fmt: skip
    for most, count in ((1, 2), (MAX_GROUP, 2 * MAX_GROUP)):
        drawn = drawn_for(audit, region, items, most)
        assert len(drawn) == count
        # Whatever order they come in.
        again = drawn_for(audit, region, items[::-1], most)
        assert {item.item_id for item in again} == {item.item_id for item in drawn}


def test_the_procedure_keeps_its_promise_and_most_of_the_automation() -> None:
    """The first row of the table of CERTIFICATION.md: 300 sets, fixed seeds."""
    plain, dip = make_population(dip=False), make_population(dip=True)
    outcomes = {
        "plain 1000": run_procedure(plain, 1000, SETS),
        "plain 2500": run_procedure(plain, 2500, SETS),
        "dip 1000": run_procedure(dip, 1000, SETS),
        "dip 2500": run_procedure(dip, 2500, SETS),
    }
    assert all(outcome.wrong <= 0.075 for outcome in outcomes.values())
    assert outcomes["plain 1000"].automation == pytest.approx(0.98, abs=0.03)
    assert outcomes["plain 2500"].automation == pytest.approx(0.99, abs=0.03)
    assert outcomes["dip 2500"].automation == pytest.approx(0.98, abs=0.03)
    assert outcomes["dip 2500"].automation >= 0.9
    assert run_procedure(dip, 2500, SETS, one_start=True).automation < 0.1


def test_labels_pooled_over_an_under_sampled_queue_certify_wrongly_and_weights_mend_it() -> None:
    assert pool_all_labels(SETS, weighted=False).wrong > 0.5
    assert pool_all_labels(SETS, weighted=True).wrong <= 0.075


def test_items_of_a_group_taken_as_independent_certify_wrongly_and_one_of_each_does_not() -> None:
    assert draw_groups(SETS, one_each=False).wrong > 0.075
    assert draw_groups(SETS, one_each=True).wrong <= 0.0125


def test_groups_as_a_whole_are_wrong_no_more_often_than_allowed() -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(100):
        groups = np.repeat(np.arange(300), 5)
        errors = np.repeat(rng.random(300) < 0.05, 5)
        audit = AuditLabels(strictness=np.ones(1500), errors=errors, groups=groups)
        wrong += certify(audit, 0.05, 0.1).threshold is not None
    assert wrong <= 5
    clean = AuditLabels(strictness=np.ones(2000), errors=np.zeros(2000, np.bool_), groups=np.repeat(np.arange(500), 4))
    assert certify(clean, 0.05, 0.1).threshold == 1.0


def test_weights_of_one_are_the_plain_wealth_and_p_falls_with_labels() -> None:
    audit = drawn(1000)
    zones = draw_zones(audit.strictness)
    p = p_of(betting_logs(zones, audit.strictness, audit.errors, np.ones(1000), 0.01))
    assert (np.diff(p) < 0).all()
    assert p[-1] < 0.001
    assert (p_of(betting_logs(zones, audit.strictness, audit.errors, np.full(1000, 0.5), 0.01)) > p).all()


@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("grouped", [True, False])
def test_the_labels_that_bets_still_need_certify(grouped: bool, errors: bool) -> None:
    """Labels of the same rate and weights: with as many as are asked for the zone passes, with a tenth fewer not."""

    def labels(count: int) -> AuditLabels:
        n = np.arange(count)
        return AuditLabels(
            strictness=np.ones(count),
            errors=(n % 250 == 249) & errors,
            groups=n // 5 if grouped else None,
            weights=np.where(n % 2, 1.0, 0.1),
        )

    few = certify(labels(1000), 0.01, 0.025)
    assert (few.threshold, few.bound) == (None, 1.0)
    assert few.more is not None
    all_of_them = 1000 + few.more
    assert certify(labels(round(all_of_them * 1.1)), 0.01, 0.025).threshold is not None
    assert certify(labels(round(all_of_them * 0.9)), 0.01, 0.025).threshold is None


def test_the_number_that_whole_groups_need_is_that_of_the_documents() -> None:
    assert grouped_without_error(0.01, LEVEL) == pytest.approx(12_750, abs=10)


def test_the_monitor_alarms_on_a_rate_that_is_over_and_seldom_on_one_that_is_kept() -> None:
    def alarms(rate: float, seed: int) -> bool:
        rng, wealth = np.random.default_rng(seed), MonitorWealth()
        for _ in range(700):
            wealth = bet_on(wealth, [bool(rng.random() < rate)], [1.0], 0.01)
        return wealth.alarmed

    assert sum(alarms(0.01, seed) for seed in range(20)) <= 3
    assert sum(alarms(0.05, seed) for seed in range(10)) >= 9


def test_the_monitors_wealth_falls_without_errors_and_an_alarm_stays() -> None:
    wealth = MonitorWealth()
    for _ in range(30):
        wealth = bet_on(wealth, [True], [1.0], 0.01)
    assert wealth.alarmed
    for _ in range(3000):
        wealth = bet_on(wealth, [False], [1.0], 0.01)
    assert wealth.alarmed
    assert (wealth.labels, wealth.errors) == (3030, 30)
    assert max(wealth.logs) < 0
