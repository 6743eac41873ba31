"""The end of a run: all receipts of its plan, summed up as numbers and as a page."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from moderation import storage
from moderation.pages.report import render_report
from moderation.results.advice import describe_problems
from moderation.results.layout import VERDICTS, part_uri, report_uri, success_uri, summary_uri
from moderation.results.reader import read_part
from moderation.results.receipts import committed_ids, read_receipts
from moderation.results.record import Output, package_versions, write_record
from moderation.results.summary import summarise

# What a person is likely to look at first; the tables hold the rest.
_REPORT_ROWS: Final = 200
_REPORT_PARTS: Final = 200
_REPORT_COLUMNS: Final = (
    "item_id", "uri", "kind", "verdict", "status", "reason", "check", "score", "error_code", "error_detail",
)  # fmt: skip


def finish_run(
    run: Output,
    shard_ids: Sequence[str],
    *,
    wall_s: float | None,
    partial: bool,
    facts: Mapping[str, Any],
    judged: bool = True,
) -> dict[str, Any]:
    """Sum up all receipts of the plan, this call's and earlier ones': `summary.json`, `report.html`, `_SUCCESS`.

    wall_s: of this call; None where there was no single one. judged: whether there are verdicts to show.
    """
    began_s = time.perf_counter()
    state = "partial" if partial else "done"
    committed = committed_ids(run.out)
    summary = summarise(
        read_receipts(run.out, committed.intersection(shard_ids)),
        {
            "run_id": run.facts.run_id,
            "source": run.source,
            "out": run.out,
            "stack_fingerprint": run.facts.stack_fingerprint,
            "policy_hash": run.facts.policy_hash,
            "state": state,
            "wall_s": None if wall_s is None else round(wall_s, 3),
            "max_error_rate": run.config.runtime.max_error_rate,
            "versions": package_versions(),
            **facts,
        },
    )
    rows = rows_to_show(run, [i for i in shard_ids if i in committed]) if judged else []
    page = render_report(summary, rows, describe_problems(summary))
    storage.publish(summary_uri(run.home), json.dumps(summary, indent=1, ensure_ascii=False).encode())
    storage.publish(report_uri(run.home), page.encode())
    write_record(run, state, finish_s=round(time.perf_counter() - began_s, 3))
    if not partial:
        storage.publish(success_uri(run.home), b"")
    return summary


def rows_to_show(run: Output, shard_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows that were not passed, for the report: from the first parts, until there are enough."""
    format_ = run.config.output.format
    rows: list[dict[str, Any]] = []
    for shard_id in shard_ids[:_REPORT_PARTS]:
        table = read_part(part_uri(run.out, VERDICTS, shard_id, format_), format_).select(_REPORT_COLUMNS)
        rows += [row for row in table.to_pylist() if row["verdict"] not in ("pass", None)]
        if len(rows) >= _REPORT_ROWS:
            break
    return rows[:_REPORT_ROWS]
