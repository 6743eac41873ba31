"""How long a reviewer waits for a session: opening, next items, decisions on disk; without the page.

    python -m benchmarks.review_session [--items 20000] [--batch 20]

Made-up items that the real table writers wrote, a tenth of them copies of others, two reviewers. Times are medians by
the clock, and seconds of processor time beside them: where other programs have the cores, those say what free ones
do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import median, write_result
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.review.items import Offer
from moderation.review.session import open_session
from moderation.review.settings import ReviewSettings
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.3, severity: medium}
  gore: {side: negative, votes: [a.gore], review: 0.3, block: 0.99, severity: critical}
"""
SETTINGS = ReviewSettings(second_share=0.05, hidden_share=0.0)


def main() -> None:
    """Measure, print, and write `results/review_session.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), arguments.items, arguments.batch, arguments.repeat)
    print(json.dumps(record, indent=1))
    write_result("review_session", record)


def measure(folder: Path, items: int, batch: int, repeat: int) -> dict[str, Any]:
    """Times in seconds: [by the clock, of the processor]."""
    out = write_items(folder, items)
    times: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        times.setdefault(name, []).append((time.perf_counter() - began_s, time.process_time() - cpu_s))

    for _ in range(3):
        with timed("open"):
            session = open_session(out, SETTINGS)
            session.__enter__()
        session.__exit__(None, None, None)
    with open_session(out, SETTINGS) as held:
        for turn in range(repeat):
            reviewer = ("ann", "bob")[turn % 2]
            with timed("next_items"):
                offers = held.next_items(reviewer, batch)
            decisions = [decide(offer, reviewer, turn) for offer in offers]
            with timed("decide"):
                held.decide(decisions)
            with timed("progress"):
                held.progress()
        decide_all(held.next_items, held.decide)
    with timed("open_decided"):
        session = open_session(out, SETTINGS)
        session.__enter__()
    session.__exit__(None, None, None)
    count = len(read_decisions(out))
    return {
        "items": items,
        "batch": batch,
        "decisions": count,
        **{
            name: {"clock_s": median([clock for clock, _ in own]), "cpu_s": median([cpu for _, cpu in own])}
            for name, own in times.items()
        },
    }


def decide_all(next_items: Callable[..., tuple[Offer, ...]], decide_batch: Callable[..., object]) -> None:
    """Everything that waits, by one reviewer."""
    turn = 1000
    while offers := next_items("cy", 200):
        decide_batch([decide(offer, "cy", turn) for offer in offers])
        turn += 1


def decide(offer: Offer, reviewer: str, turn: int) -> Decision:
    """A decision as a page sends it."""
    return Decision(
        decision_id=f"{reviewer}-{turn}-{offer.item.item_id}",
        item_id=offer.item.item_id,
        decision=Answer.PASS,
        reviewer=reviewer,
        decided_at=datetime.now(UTC),
        exposure_s=1.0,
        claim=offer.claim,
    )


def write_items(folder: Path, items: int) -> str:
    """A run of many items for review; every tenth has a copy."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 0.95, (items, 2))
    made = [
        Made(
            name=f"i{n}",
            votes=[(float(scores[n, 0]), float(scores[n, 1]))],
            attributes={"group": f"g{n % (items // 4)}", "camera": str(n % 7)},
            content_hash=f"{n - 1 if n % 20 == 1 else n:064x}",
        )
        for n in range(items)
    ]
    return write_run(folder, ("a.weapon", "a.gore"), made, POLICY, shard_items=256)


if __name__ == "__main__":
    main()
