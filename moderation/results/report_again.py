"""The page of a run that OUT holds, written again: with another setting, or against an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moderation import storage
from moderation.config.load import validate
from moderation.config.model import ReportConfig
from moderation.results.cost import tell_cost
from moderation.results.layout import report_uri, summary_uri
from moderation.results.reader import StoredRun, open_run
from moderation.results.receipt_sums import ReceiptSums, sum_receipts
from moderation.results.receipts import read_receipts
from moderation.results.record import Output, RunFacts
from moderation.results.report import ReportExtras, make_report
from moderation.results.report_before import read_summary
from moderation.results.summary import summarise


def write_report_again(
    out: str, extras: ReportExtras | None = None, *, settings: Mapping[str, Any] | None = None, to: str | None = None
) -> str:
    """Write the report of a run, ended or not; returns the page's URI. The run's other files stay as they are.

    settings: keys of `report` other than those that the run had. to: a file; default: OUT/report.html.
    Raises UsageError where there is no run.
    """
    run = open_run(storage.canonical(out).rstrip("/"))
    output = output_of(run, settings)
    sums = sum_receipts(read_receipts(run.out, run.shard_ids))
    summary = _summary_of(run, output, sums)
    summary["cost"] = tell_cost(summary, output.config.report.price_per_gpu_hour)
    judged = bool(summary["verdicts"]) and sums.judged
    page = make_report(output, summary, sums, sums.shard_ids, extras, judged=judged)
    uri = to or report_uri(run.out)
    storage.publish(uri, page.encode())
    return uri


def output_of(run: StoredRun, settings: Mapping[str, Any] | None = None) -> Output:
    """A stored run as the output that it was. settings: keys of `report` to change. Raises UsageError."""
    config = run.load_config()
    if settings:
        report = validate(ReportConfig, {**config.report.model_dump(), **settings}, where="report")
        config = config.model_copy(update={"report": report})
    known = run.record.get("identity")
    identity: dict[str, Any] = known if isinstance(known, dict) else {}
    facts = RunFacts(
        run_id=run.run_id,
        stack_fingerprint=run.stack_fingerprint,
        policy_hash=str(identity.get("policy", "")),
    )
    source = str(run.record.get("source") or identity.get("source", ""))
    return Output(source=source, out=run.out, home=run.out, config=config, facts=facts, identity=identity)


def _summary_of(run: StoredRun, output: Output, sums: ReceiptSums) -> dict[str, Any]:
    """`summary.json`, or of a run that has none yet the sum of its receipts."""
    if storage.read_optional(summary_uri(run.out)) is not None:
        return read_summary(run.out)
    facts: dict[str, Any] = {
        "run_id": run.run_id,
        "source": storage.mask_signatures(output.source),
        "out": run.out,
        "stack_fingerprint": output.facts.stack_fingerprint,
        "policy_hash": output.facts.policy_hash,
        "state": str(run.record.get("state") or "not known"),
        "versions": run.record.get("versions") if isinstance(run.record.get("versions"), dict) else {},
    }
    return summarise(sums, facts)
