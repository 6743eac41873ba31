"""The simulation of docs/certificates.md: what certificates win, and how often they are wrong; JSON into results/.

`python -m benchmarks.certify [--sets 300]`. A population of 150,000 items, 6% of them bad, whose precision falls
sharply below its best threshold (99%); once plain, once with false alarms at the very top (a dip). Each set is an audit
drawn from the zone, 1.1 times as large as what the best threshold would block.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.machine import write_result
from moderation.evaluation.walks import QUANTILES, STARTS, binomial_p, find_starts, walk
from moderation.evaluation.wealth import BETS

ITEMS, BAD = 150_000, 0.06
ALLOWED, RISK = 0.01, 0.025
AUDITS = (400, 1000, 2500)
_ZONE = 1.1
_FALSE_ALARMS, _ALARM_BAND = 20, 0.003
_EDGE = 0.0008  # width of the step from nearly all bad to nearly none

Errors = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnZone:
    """errors: bool [Z], not bad, of the zone's items from strict to lax. best: how many the best threshold blocks."""

    errors: Errors
    best: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Over all sets. automation: mean share of what the best threshold would block. wrong: share of certificates whose
    zone has more errors than allowed."""

    automation: float
    wrong: float


def make_population(*, dip: bool, seed: int = 1) -> DrawnZone:
    """The zone of a drawn population."""
    rng = np.random.default_rng(seed)
    scores = rng.random(ITEMS)
    bad = rng.random(ITEMS) < 0.5 + 0.5 * np.tanh((scores - (1 - BAD)) / (2 * _EDGE))
    if dip:
        fine = rng.choice(np.flatnonzero(~bad), _FALSE_ALARMS, replace=False)
        scores[fine] = 1 - _ALARM_BAND * rng.random(_FALSE_ALARMS)
    errors = ~bad[np.argsort(-scores)]
    rates = np.cumsum(errors) / np.arange(1, ITEMS + 1)
    best = int(np.flatnonzero(rates <= ALLOWED)[-1]) + 1
    return DrawnZone(errors=errors[: int(_ZONE * best)], best=best)


def draw_ranks(population: DrawnZone, labels: int, sets: int, seed: int) -> npt.NDArray[np.int64]:
    """Audits: int64 [sets, labels], ranks of items in the zone, rising."""
    rng = np.random.default_rng(seed)
    keys = rng.random((sets, len(population.errors)), np.float32)
    return np.sort(np.argpartition(keys, labels, axis=1)[:, :labels], axis=1)


def judge_sets(
    population: DrawnZone,
    ranks: npt.NDArray[np.int64],
    p_of: Callable[[Errors, npt.NDArray[np.int64]], object],
    starts: tuple[int, ...],
    level: float,
) -> Outcome:
    """Certify each set, and hold what it would block against the truth."""
    counts = quantile_counts(ranks.shape[1])
    laxest = walk(np.asarray(p_of(population.errors[ranks], counts)), starts, level)
    certified = laxest >= 0
    blocked = np.where(certified, np.take_along_axis(ranks, (counts[laxest] - 1)[:, None], axis=1)[:, 0] + 1, 0)
    errors = np.concatenate([[0], np.cumsum(population.errors)])[blocked]
    return Outcome(
        automation=float(np.minimum(1.0, blocked / population.best).mean()),
        wrong=float((certified & (errors > ALLOWED * blocked)).mean()),
    )


def quantile_counts(labels: int) -> npt.NDArray[np.int64]:
    """Labels in each of the 60 zones, strict to lax, where no two scores are equal: int64 [60]."""
    return np.unique(np.ceil(labels * np.arange(1, QUANTILES + 1) / QUANTILES).astype(np.int64))


def exact(errors: Errors, counts: npt.NDArray[np.int64]) -> object:
    """The procedure: exact binomial. errors: bool [sets, labels]."""
    return binomial_p(counts, np.cumsum(errors, axis=1)[:, counts - 1], ALLOWED)


def betting(errors: Errors, counts: npt.NDArray[np.int64]) -> object:
    """The e-values of weighted labels, here with equal weights."""
    logs = [np.cumsum(np.log1p(b / (1 - ALLOWED) * (ALLOWED - errors)), axis=1)[:, counts - 1] for b in BETS]
    return np.minimum(1.0, 1.0 / np.mean(np.exp(np.clip(logs, -700, 700)), axis=0))


def run_procedure(
    population: DrawnZone, labels: int, sets: int, *, one_start: bool = False, bets: bool = False
) -> Outcome:
    """One cell of the table."""
    level = RISK if one_start else RISK / STARTS
    starts = find_starts(quantile_counts(labels), ALLOWED, level)
    ranks = draw_ranks(population, labels, sets, seed=labels)
    return judge_sets(population, ranks, betting if bets else exact, starts[:1] if one_start else starts, level)


def pool_all_labels(sets: int, *, weighted: bool, seed: int = 5) -> Outcome:
    """The natural mistake: what is sure is labelled whole, the review queue behind it thinly, and all count alike.

    One item in ten of the lax half is not bad, and it is drawn at a twentieth of the rate of the sure half.
    weighted: the same labels as the procedure has them, by betting with weights.
    """
    rng = np.random.default_rng(seed)
    population = make_population(dip=False)
    sure = population.errors[: int(0.9 * population.best)]
    errors = np.concatenate([sure, rng.random(len(sure)) < 0.1])
    rates = np.where(np.arange(len(errors)) < len(sure), 1.0, 0.05) * 0.25
    truth = np.concatenate([[0], np.cumsum(errors)])
    wrong = 0
    for _ in range(sets):
        ranks = np.flatnonzero(rng.random(len(errors)) < rates)
        counts = quantile_counts(len(ranks))
        drawn = errors[ranks][None, :]
        if weighted:
            gains = 0.05 * 0.25 / rates[ranks] * (ALLOWED - drawn)
            logs = [np.cumsum(np.log1p(b / (1 - ALLOWED) * gains), axis=1)[:, counts - 1] for b in BETS]
            p_values = np.minimum(1.0, 1.0 / np.mean(np.exp(np.clip(logs, -700, 700)), axis=0))
        else:
            p_values = np.asarray(exact(drawn, counts))
        laxest = int(walk(p_values, find_starts(counts, ALLOWED, RISK / STARTS), RISK / STARTS)[0])
        blocked = 0 if laxest < 0 else int(ranks[counts[laxest] - 1]) + 1
        wrong += int(truth[blocked] > ALLOWED * blocked)
    return Outcome(automation=float("nan"), wrong=wrong / sets)


def draw_groups(sets: int, *, one_each: bool, seed: int = 7) -> Outcome:
    """2,000 albums of 5 that are wrong as a whole. one_each: one item of each, as in the procedure; else all of them.

    The rate is just over what is allowed, so that any certificate is wrong.
    """
    rng = np.random.default_rng(seed)
    groups, size = 2000, 5
    wrong_groups = rng.random((sets, groups)) < 1.001 * ALLOWED
    errors = wrong_groups if one_each else np.repeat(wrong_groups, size, axis=1)
    counts = np.array([errors.shape[1]])
    laxest = walk(np.asarray(exact(errors, counts)), (0,), RISK / STARTS)
    return Outcome(automation=float("nan"), wrong=float((laxest >= 0).mean()))


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=300)
    sets = parser.parse_args().sets
    rows: dict[str, object] = {}
    for title, options in {
        "audit, exact binomial, 4 starts": {},
        "the same, 1 start": {"one_start": True},
        "betting": {"bets": True},
    }.items():
        cells = {
            f"{'dip' if dip else 'plain'} {labels}": run_procedure(make_population(dip=dip), labels, sets, **options)
            for dip in (False, True)
            for labels in AUDITS
        }
        shown = "  ".join(f"{name} {cell.automation:.2f}" for name, cell in cells.items())
        worst = max(cell.wrong for cell in cells.values())
        print(f"{title:36} {shown}  wrong {worst:.3f}")
        rows[title] = {**{name: round(cell.automation, 3) for name, cell in cells.items()}, "worst_wrong": worst}
    for title, outcome in {
        "all labels pooled, queue under-sampled": pool_all_labels(sets, weighted=False),
        "the same labels, weighted": pool_all_labels(sets, weighted=True),
        "items of a group as independent": draw_groups(sets, one_each=False),
        "one item a group": draw_groups(sets, one_each=True),
    }.items():
        print(f"{title:40} wrong {outcome.wrong:.3f}")
        rows[title] = outcome.wrong
    write_result("certify", {"sets": sets, "items": ITEMS, "allowed": ALLOWED, "risk": RISK, "rows": rows})


if __name__ == "__main__":
    main()
