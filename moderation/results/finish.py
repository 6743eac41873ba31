"""The end of a run: all receipts of its plan, summed up as numbers and as a page."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from moderation import storage
from moderation.errors import FatalError
from moderation.planning.names import plan_uri
from moderation.planning.plan import read_shard_sizes
from moderation.results.cost import tell_cost
from moderation.results.ffmpeg import decoder_versions, describe_below_floor
from moderation.results.layout import report_uri, success_uri, summary_uri
from moderation.results.receipt_sums import ReceiptSums, sum_receipts
from moderation.results.receipts import committed_ids, intact_receipts, read_receipts
from moderation.results.record import Output, package_versions, write_record
from moderation.results.report import ReportExtras, make_report
from moderation.results.summary import summarise


def finish_run(
    run: Output,
    shard_ids: Sequence[str],
    *,
    wall_s: float | None,
    partial: bool,
    facts: Mapping[str, Any],
    judged: bool = True,
    extras: ReportExtras | None = None,
) -> dict[str, Any]:
    """Sum up all receipts of the plan, this call's and earlier ones': `summary.json`, `report.html`, `_SUCCESS`.

    wall_s: of this call; None where there was no single one. judged: whether there are verdicts to show. extras: what
    the page shows besides.
    Raises FatalError where the run ended and its receipts are not those of its plan; its state is `partial` then.
    """
    began_s = time.perf_counter()
    planned = set(shard_ids)
    present = committed_ids(run.out)
    receipts = read_receipts(run.out, filter(present.__contains__, planned))
    sums = sum_receipts(intact_receipts(run.out, receipts, read_shard_sizes(plan_uri(run.home))))
    # A slice leaves other slices' receipts alone.
    mismatch = (
        None if partial else _describe_mismatch(planned, len(sums.shard_ids), present if run.home == run.out else set())
    )
    state = "partial" if partial or mismatch else "done"
    summary = _sum_up(run, sums, {"state": state, "wall_s": None if wall_s is None else round(wall_s, 3), **facts})
    page = make_report(run, summary, sums, sums.shard_ids, extras, judged=judged)
    storage.publish(summary_uri(run.home), json.dumps(summary, indent=1, ensure_ascii=False).encode())
    storage.publish(report_uri(run.home), page.encode())
    pool = {"pool": facts["pool"]} if "pool" in facts else {}
    write_record(run, state, finish_s=round(time.perf_counter() - began_s, 3), **pool)
    if state == "done":
        storage.publish(success_uri(run.home), b"")
        return summary
    # An earlier call may have ended the run before a shard was lost or taken back.
    storage.delete_tree(success_uri(run.home))
    if mismatch:
        raise FatalError(f"{run.out}: {mismatch}")
    return summary


def _sum_up(run: Output, sums: ReceiptSums, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of `summary.json`."""
    summary = summarise(
        sums,
        {
            "run_id": run.facts.run_id,
            "source": storage.mask_signatures(run.source),
            "out": run.out,
            "stack_fingerprint": run.facts.stack_fingerprint,
            "policy_hash": run.facts.policy_hash,
            "state": facts["state"],
            "wall_s": facts["wall_s"],
            "max_error_rate": run.config.runtime.max_error_rate,
            "versions": package_versions(),
            "certificates": run.certification,
            "decoders": decoder_versions(run.config.media),
            "decoder_warning": describe_below_floor(run.config.media),
            **facts,
        },
    )
    return summary | {"cost": tell_cost(summary, run.config.report.price_per_gpu_hour)}


def _describe_mismatch(planned: set[str], committed: int, present: set[str]) -> str | None:
    """How the receipts differ from the plan, in words; None where they are the same.

    committed: planned shards with a readable receipt.
    """
    missing, unplanned = len(planned) - committed, len(present - planned)
    if missing:
        what = "have no receipt that fits the plan and its parts, so the run is not done"
        return f"{missing:,} of {len(planned):,} planned shards {what}"
    if unplanned:
        return (
            f"{unplanned:,} committed shards are in no plan, so their rows would count twice;"
            " `moderation verify OUT --repair` deletes them"
        )
    return None
