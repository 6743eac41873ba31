"""One shard, end to end: fetch, decode, score, judge, write, commit. Collaborators are passed in.

Threads fetch and decode ahead, bounded by bytes; the calling thread gathers frames into batches, scores and judges
them. Rows come out in the order of the shard's items, one row per item, whatever happens to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moderation.config.model import Config
from moderation.errors import ItemError
from moderation.pipeline.clock import Clock
from moderation.pipeline.counters import count_rows, peak_memory_bytes
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import Pools
from moderation.policy.bind import BoundPolicy
from moderation.results.escalations import publish_escalations
from moderation.results.layout import VERDICTS, VOTES
from moderation.results.receipts import Receipt, commit_shard
from moderation.results.record import RunFacts
from moderation.results.tables import encode_table, verdicts_table, votes_table
from moderation.scoring.stack import Stack
from moderation.types import (
    Shard,
)


def moderate_shard(
    shard: Shard,
    *,
    out: str,
    config: Config,
    stack: Stack,
    policy: BoundPolicy,
    facts: RunFacts,
    pools: Pools,
    poison: Mapping[str, ItemError] | None = None,
    judged: Callable[[], None] = lambda: None,
) -> Receipt:
    """Judge a shard and commit it. judged: called for each row.

    poison: item id -> why, for items known to kill or stall the process; they are not touched.
    Raises ShardError (retried by the driver), FatalError.
    """
    clock = Clock()
    rows = []
    for row in moderate_items(
        shard.items, config=config, stack=stack, policy=policy, pools=pools, clock=clock, poison=poison or {}
    ):
        rows.append(row)
        judged()
    checks = tuple(policy.policy.checks)

    def encode() -> tuple[dict[str, bytes], dict[str, int]]:
        metadata = facts.metadata()
        votes = votes_table(rows, stack.labels, stack.blob_sizes, stack.embedding_dims, metadata)
        verdicts = verdicts_table(rows, checks, metadata)
        parts = {VOTES: encode_table(votes, config.output), VERDICTS: encode_table(verdicts, config.output)}
        return parts, {VOTES: votes.num_rows, VERDICTS: verdicts.num_rows}

    # Before the receipt: what has to be reported is on disk when the shard counts as done.
    found = [row.escalation for row in rows if row.escalation is not None]
    publish_escalations(out, shard.shard_id, found, facts.run_id)
    parts, counts = clock.timed("write", encode)
    return commit_shard(
        out,
        shard,
        parts=parts,
        rows=counts,
        format_=config.output.format,
        facts={
            "counts": count_rows(rows),
            "seconds": {step: round(s, 4) for step, s in clock.seconds.items()},
            "waits": {wait: round(s, 4) for wait, s in clock.waits.items()},
            "slowest": clock.slowest(),
            "bytes_read": clock.bytes_read,
            "peak_memory_bytes": peak_memory_bytes(),
        },
    )
