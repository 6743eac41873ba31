"""What a certificate's monitor bets on: labels by their probabilities, and groups as the certificate counts them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moderation.errors import UsageError
from moderation.evaluation.monitor_bets import CertificateMonitor, DrawnLabel, bet_on_labels
from moderation.evaluation.wealth import MAX_GROUP, MonitorWealth
from moderation.labels.meaning import make_meaning
from moderation.labels.resolve import Label
from moderation.policy.certified import Certificate

MEANING = make_meaning({"bad": "negative"}, frozenset({"ok", "bad"}), (), ())
PLAIN = Certificate(
    side="block", check="bad", threshold=0.9, allowed=0.01, risk=0.025, labels=600, errors=0, bound=0.009,
    method="binomial",
)  # fmt: skip
WHOLE = replace(PLAIN, method="grouped betting")


def drawn(group: str, item: str, *, wrong: bool, probability: float | None = None) -> DrawnLabel:
    """A row of a blocked item, and its label."""
    words = frozenset({"ok" if wrong else "bad"})
    label = Label(words=words, answers=2, agreed=True, settled=True, probability=probability)
    return {"group": group, "item_id": item}, label


def wealth_of(
    rows: list[DrawnLabel], certificate: Certificate, before: CertificateMonitor | None = None
) -> MonitorWealth:
    return bet_on_labels(before or CertificateMonitor(wealth=MonitorWealth()), rows, certificate, MEANING).wealth


def test_labels_are_weighed_by_the_probability_with_which_they_were_drawn() -> None:
    """0.5% are wrong: 18 of 360 that are all labelled, and none of ten times as many of which one in ten is."""
    sure = [drawn(f"s{n}", f"s{n}", wrong=n % 20 == 0, probability=1.0) for n in range(360)]
    others = [drawn(f"o{n}", f"o{n}", wrong=False, probability=0.1) for n in range(360)]
    rows = [row for pair in zip(sure, others, strict=True) for row in pair]
    kept = wealth_of(rows, PLAIN)
    assert (kept.labels, kept.errors) == (720, 18)
    assert not kept.alarmed
    # Without probabilities 2.5% of all labels are wrong.
    unsaid = [(row, replace(label, probability=None)) for row, label in rows if label is not None]
    assert wealth_of(unsaid, PLAIN).alarmed
    with pytest.raises(UsageError, match="1 audit labels have no `probability`"):
        wealth_of([*rows, drawn("x", "x", wrong=False)], PLAIN)


def test_labels_that_were_bet_on_before_need_no_probability() -> None:
    old = [drawn(f"a{n}", f"a{n}", wrong=True) for n in range(3)]
    before = bet_on_labels(CertificateMonitor(wealth=MonitorWealth()), old, PLAIN, MEANING)
    new = [drawn(f"b{n}", f"b{n}", wrong=True, probability=0.5) for n in range(30)]
    after = wealth_of([*old, *new], PLAIN, before)
    assert (after.labels, after.errors) == (33, 33)


def test_whole_groups_are_bet_on_as_they_are_certified() -> None:
    """0.3% of the items are wrong, though 3% of the groups have a wrong one."""
    groups = [
        [drawn(f"g{g}", f"g{g}-{n}", wrong=g % 33 == 0) for n in range(1 if g % 33 == 0 else 10)] for g in range(330)
    ]
    rows = [row for group in groups for row in group]
    whole = wealth_of(rows, WHOLE)
    assert (whole.labels, whole.errors) == (len(rows), 10)
    assert not whole.alarmed
    assert wealth_of(rows, PLAIN).alarmed


def test_a_whole_group_is_bet_on_once_and_when_all_that_counts_of_it_is_labelled() -> None:
    rows = [drawn("g", f"i{n}", wrong=True) for n in range(MAX_GROUP + 5)]
    half = [(row, label if n % 2 else None) for n, (row, label) in enumerate(rows)]
    assert wealth_of(half, WHOLE).labels == 0
    once = bet_on_labels(CertificateMonitor(wealth=MonitorWealth()), rows, WHOLE, MEANING)
    assert once.wealth.labels == MAX_GROUP
    assert wealth_of(rows, WHOLE, once) == once.wealth
