"""When the receipts of a run were written, and at what rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moderation.results.receipts import Receipt

# The rate is that of the last so many receipts that were read: of the hour, not of the week. A sample uses as many:
# they span a longer time, but the rate of fewer is noisier (of 20 by a fifth, of 200 by a fifteenth).
RATE_RECEIPTS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """last_commit_s: Unix seconds of the newest receipt that was read. None: not known."""

    last_commit_s: float | None
    items_per_s: float | None


def measure_pace(
    receipts: Sequence[Receipt],
    sizes: Mapping[str, int],
    *,
    committed: int,
    now_s: float | None,
    since_s: float | None,
) -> Pace:
    """The pace of a run by its receipts, which may be a sample of the `committed` ones. sizes: items by shard.

    now_s: of a running run, so that the time since its last receipt counts. since_s: when this call began.
    """
    dated = sorted((r for r in receipts if r.committed_at), key=lambda r: r.committed_at)
    if not dated:
        return Pace(last_commit_s=None, items_per_s=None)
    last_s = dated[-1].committed_at
    begin_s, counted = _stretch(dated, since_s)
    span_s = max(last_s, now_s or 0.0) - begin_s
    if not counted or span_s <= 0:
        return Pace(last_commit_s=last_s, items_per_s=None)
    items = committed / len(receipts) * sum(sizes.get(r.shard_id, r.rows_in) for r in counted)
    return Pace(last_commit_s=last_s, items_per_s=items / span_s)


def _stretch(dated: Sequence[Receipt], since_s: float | None) -> tuple[float, Sequence[Receipt]]:
    """The begin of the measured span, and the receipts that were written in it."""
    # The pause between two calls says nothing about the rate.
    of_call = dated if since_s is None else [r for r in dated if r.committed_at >= since_s]
    recent = of_call[-RATE_RECEIPTS:]
    if not recent:
        return 0.0, []
    if since_s is not None and len(recent) == len(of_call):
        return since_s, recent
    # The span begins with the first receipt, whose items were judged before it.
    begin_s = recent[0].committed_at
    return begin_s, recent if begin_s == since_s else recent[1:]
