"""The promotion gate: what it lets through, what it refuses and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.evaluation.gate import GateLimits, GateOutcome, Pair, compare
from moderation.evaluation.promotion import read_limits


def pairs_of(rows: Sequence[tuple[str, str, bool]], slices: dict[str, str] | None = None) -> list[Pair]:
    return [
        Pair(candidate=c, incumbent=i, bad=b, group=str(n), slices=slices or {}) for n, (c, i, b) in enumerate(rows)
    ]


def refused(outcome: GateOutcome) -> set[str]:
    return {check.name for check in outcome.checks if not check.passed}


SAME = [("block", "block", True)] * 100 + [("pass", "pass", False)] * 300


def test_the_same_verdicts_are_no_improvement_unless_none_is_asked_for() -> None:
    assert refused(compare(pairs_of(SAME), GateLimits())) == {"better in something"}
    assert compare(pairs_of(SAME), GateLimits(must_improve=False)).passed
    assert compare(pairs_of(SAME), GateLimits(), cost_ratio=0.5).passed


def test_more_automation_without_more_errors_goes_live() -> None:
    outcome = compare(pairs_of([*SAME, *[("pass", "review", False)] * 40]), GateLimits())
    assert outcome.passed
    automation = next(c for c in outcome.comparisons if c.name == "automation")
    assert automation.interval is not None
    assert automation.interval[0] > 0


def test_fewer_wrong_decisions_go_live_and_as_many_newly_wrong_ones_do_not() -> None:
    better = compare(pairs_of([*SAME, *[("pass", "block", False)] * 10]), GateLimits())
    assert (better.passed, better.fixed, better.broken) == (True, 10, 0)
    worse = compare(pairs_of([*SAME, *[("block", "pass", False)] * 10]), GateLimits())
    assert refused(worse) == {"wrong decisions", "precision of block", "better in something"}


def test_a_leak_is_refused_by_its_increase_and_by_its_height() -> None:
    leaking = pairs_of([*SAME, *[("pass", "review", True)] * 3, *[("pass", "review", False)] * 50])
    assert refused(compare(leaking, GateLimits())) == {"leak"}
    assert refused(compare(leaking, GateLimits(max_leak_increase=1))) == set()
    assert refused(compare(leaking, GateLimits(max_leak_increase=1, max_leak=0.005))) == {"leak, at most"}


def test_a_slice_that_became_worse_is_refused_though_the_whole_became_better() -> None:
    hurt = pairs_of([("block", "review", False)] * 3 + [("pass", "pass", False)] * 57, {"shop": "x"})
    helped = pairs_of([("pass", "block", False)] * 40 + SAME, {"shop": "y"})
    outcome = compare([*hurt, *helped], GateLimits())
    assert refused(outcome) == {"worst slice"}
    assert "shop = x, 60 items" in next(c.reason for c in outcome.checks if c.name == "worst slice")


def test_too_few_items_too_much_cost_and_missing_certificates_are_refused() -> None:
    outcome = compare(
        pairs_of(SAME[:50]),
        GateLimits(must_improve=False, require_certificates=True),
        cost_ratio=2.0,
        uncertified={"block:x": "there is no certificate"},
    )
    assert refused(outcome) == {"enough items", "cost a frame", "certificates"}


def test_limits_are_a_yaml_file_and_a_wrong_key_is_named(tmp_path: pytest.TempPathFactory) -> None:
    path = tmp_path / "limits.yaml"  # type: ignore[operator] # a Path
    path.write_text("max_leek: 0.1\n")
    with pytest.raises(UsageError, match="did you mean 'max_leak'"):
        read_limits(str(path))
    path.write_text("max_leak: 0.1\n")
    assert read_limits(str(path)).max_leak == 0.1


def test_the_pictures_of_one_album_are_one_change() -> None:
    """Beyond chance is what many groups show: one album that is put right, or newly wrong, is no evidence."""

    def album(candidate: str, incumbent: str) -> GateOutcome:
        pairs = [Pair(candidate=candidate, incumbent=incumbent, bad=False, group="album", slices={})] * 30
        return compare([*pairs_of(SAME), *pairs], GateLimits(max_precision_drop=1))

    put_right, newly_wrong = album("pass", "block"), album("block", "pass")
    assert (put_right.fixed, put_right.p, refused(put_right)) == (30, 1.0, {"better in something"})
    assert (newly_wrong.broken, newly_wrong.p, refused(newly_wrong)) == (30, 1.0, {"better in something"})


@pytest.mark.parametrize(("verdict", "limit"), [("pass", "leak"), ("block", "precision of block")])
def test_an_incumbent_that_leaves_all_to_people_has_no_wrong_decision_to_be_excused_by(
    verdict: str, limit: str
) -> None:
    wrong = verdict == "pass"
    reviewed = [("review", "review", False)] * 300
    rows = [*reviewed, *[(verdict, "review", not wrong)] * 15, *[(verdict, "review", wrong)] * 5]
    assert refused(compare(pairs_of(rows), GateLimits())) == {limit}
    assert compare(pairs_of([*reviewed, *[(verdict, "review", not wrong)] * 15]), GateLimits()).passed


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_candidate_and_its_mirror_never_both_go_live(seed: int) -> None:
    rng = np.random.default_rng(seed)
    verdicts = np.array(["block", "review", "pass"])[rng.integers(0, 3, (2, 220))]
    bad = rng.random(220) < 0.3
    rows = [(str(a), str(b), bool(x)) for a, b, x in zip(*verdicts, bad, strict=True)]
    limits = GateLimits(max_automation_drop=0.0, max_leak_increase=0.0, max_precision_drop=0.0, max_slice_increase=0.0)
    forth = compare(pairs_of(rows), limits)
    back = compare(pairs_of([(b, a, x) for a, b, x in rows]), limits)
    assert not (forth.passed and back.passed)
    assert (forth.fixed, forth.broken) == (back.broken, back.fixed)
