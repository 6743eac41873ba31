"""The steps of `benchmarks.scale`, each in a process of its own: what the driver does for so many shards, counted.

Processor seconds are of all threads of the process, without those of the simulated workers and of making up objects.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ledger import memory
from benchmarks.simulated_pool import ShardSupply, SimulatedClock, SimulatedPool, listed_item, shard_receipt
from moderation.config.model import Config
from moderation.planning.names import plan_uri
from moderation.planning.plan import plan_shards, read_shard_sizes
from moderation.results.finish import finish_run
from moderation.results.layout import VERDICTS, part_uri, receipt_uri
from moderation.results.output import check_output
from moderation.results.record import Output, RunFacts, write_record
from moderation.results.report_rows import MAX_PARTS, sample_evenly
from moderation.results.status import read_status
from moderation.types import Shard

MIB = 1 << 20
_SLOWEST = 10


class Spent:
    """Processor milliseconds a shard by phase, and the peak of the process after it."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self.record: dict[str, Any] = {}

    @contextmanager
    def phase(self, name: str, apart_s: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
        """Count what a block takes. apart_s: processor seconds within it that are not the driver's."""
        began_s, wall_s = time.process_time(), time.perf_counter()
        yield
        cpu_s = time.process_time() - began_s - apart_s()
        self.record[name] = {
            "cpu_ms_a_shard": round(cpu_s / self._shards * 1e3, 4),
            "cpu_s": round(cpu_s, 1),
            "wall_s": round(time.perf_counter() - wall_s, 1),
            "peak_mib": memory(),
        }


def output_of(folder: Path, items: int) -> Output:
    """The run in a folder, as the driver knows it; its policy is that of `benchmarks.rejudge`."""
    from benchmarks.rejudge import make_policy

    folder.mkdir(parents=True, exist_ok=True)
    policy = folder / "policy.yaml"
    policy.write_text(json.dumps(make_policy(0.95)))
    config = Config.model_validate({"policy": str(policy), "shards": {"max_items": items}})
    facts = RunFacts(run_id="0" * 16, stack_fingerprint="stack", policy_hash="")
    out = str(folder / "out")
    return Output(source="s3://bucket/photos", out=out, home=out, config=config, facts=facts, identity={"run": "scale"})


def plan(folder: Path, shards: int, items: int) -> dict[str, Any]:
    """List a source of `shards * items` objects, cut it, and write its plan; then read that again, as a resume does."""
    run, spent = output_of(folder, items), Spent(shards)
    made_s = [0.0]

    def objects() -> Iterator[Any]:
        for number in range(shards * items):
            began_s = time.thread_time()
            item = listed_item(number)
            made_s[0] += time.thread_time() - began_s
            yield item

    with spent.phase("listed, cut, written", lambda: made_s[0]):
        listed = sum(1 for _ in plan_shards(run.source, run.out, run.config, open_items=objects))
    with spent.phase("read again"):
        again = sum(1 for _ in plan_shards(run.source, run.out, run.config))
    assert listed == again == shards
    size = Path(plan_uri(run.out)).stat().st_size
    return {**spent.record, "plan_bytes_an_item": round(size / shards / items, 1)}


def fill(folder: Path, shards: int, items: int) -> dict[str, Any]:
    """Make up what workers leave: a receipt of each planned shard, and the parts that a report reads."""
    from benchmarks.rejudge import write_run

    run = output_of(folder, items)
    began_s = time.perf_counter()
    made = write_run(folder / "sample", items, 1)
    shard_id = f"{0:032x}"
    part = Path(part_uri(made, VERDICTS, shard_id, "parquet")).read_bytes()
    sha256 = json.loads(Path(receipt_uri(made, shard_id)).read_text())["sha256"]
    ids = sorted(read_shard_sizes(plan_uri(run.out)) or {})
    Path(receipt_uri(run.out, shard_id)).parent.mkdir(parents=True, exist_ok=True)
    shown = {*sample_evenly(ids, MAX_PARTS), *ids[:_SLOWEST]}
    # Parts that no report reads are not made up, so the receipts of their shards name none.
    plain, named = (
        json.dumps(shard_receipt(shard_id, items) | {"sha256": parts}, sort_keys=True, indent=1)
        for parts in ({}, {VERDICTS: sha256[VERDICTS]})
    )
    for each in ids:
        receipt = named if each in shown else plain
        Path(receipt_uri(run.out, each)).write_text(receipt.replace(shard_id, each))
    for each in shown:
        uri = Path(part_uri(run.out, VERDICTS, each, "parquet"))
        uri.parent.mkdir(parents=True, exist_ok=True)
        uri.write_bytes(part)
    write_record(run, "running")
    return {"wall_s": round(time.perf_counter() - began_s, 1)}


def call(folder: Path, shards: int, items: int, workers: int = 1000) -> dict[str, Any]:
    """All that a driver does in one process: what is committed, the plan, the loop, the end with its report.

    Workers are simulated; one answer comes a round, which is the dearest way. All receipts of the run lie there
    already: they are read at the start, as of a run that resumes, and at the end.
    """
    run, spent = output_of(folder, items), Spent(shards)
    start_mib = memory()
    with spent.phase("receipts read at the start"):
        committed = check_output(run)
    assert len(committed) == shards
    supply = iter(plan_shards(run.source, run.out, run.config))
    with spent.phase("plan read, shards handed out, receipts taken"):
        ids, pool_s = drive_simulated(supply, run, workers, 1)
    spent.record["plan read, shards handed out, receipts taken"]["of_that_simulated_workers_s"] = round(pool_s, 1)
    with spent.phase("receipts summed up, report"):
        summary = finish_run(run, ids, wall_s=1.0, partial=False, facts={})
    assert len(ids) == summary["shards"] == shards
    whole = sum(phase["cpu_s"] for phase in spent.record.values())
    return {
        **spent.record,
        "cpu_ms_a_shard": round((whole - pool_s) / shards * 1e3, 4),
        "peak_mib": memory(),
        "start_mib": start_mib,
        "report_bytes": Path(run.out, "report.html").stat().st_size,
    }


def status(folder: Path, shards: int, items: int) -> dict[str, Any]:
    """`moderation status` beside it."""
    run, spent = output_of(folder, items), Spent(shards)
    with spent.phase("status"):
        found = read_status(run.out, now_s=time.time())
    assert found.shards_done == shards
    return spent.record["status"]  # type: ignore[no-any-return] # a record of one phase


def loop(folder: Path, shards: int, items: int, workers: int = 1000) -> dict[str, Any]:
    """The driver's loop alone, by how many answers have come when it looks; with counters and lines of the log."""
    record: dict[str, Any] = {}
    for together in (1, 10):
        supply = ShardSupply(shards=shards, items=items)
        began_s = time.process_time()
        _, pool_s = drive_simulated(iter(supply), output_of(folder, items), workers, together)
        cpu_s = time.process_time() - began_s - pool_s - supply.spent_s
        record[f"{together} answers a round"] = {"cpu_ms_a_shard": round(cpu_s / shards * 1e3, 4), "peak_mib": memory()}
    return record


def drive_simulated(supply: Iterator[Shard], run: Output, workers: int, together: int) -> tuple[list[str], float]:
    """The real driver over these shards; ids of all planned, and processor seconds of the simulated workers."""
    from moderation.runtime.driver import drive
    from moderation.runtime.metrics import Meters
    from moderation.runtime.plan_run import MAX_WAITING_SHARDS
    from moderation.runtime.progress import LineProgress, ProgressGroup
    from moderation.runtime.shard_queue import ShardQueue
    from moderation.runtime.state import Stop

    clock = SimulatedClock()
    pool = SimulatedPool(clock=clock, wanted=workers, together=together)
    queue = ShardQueue(lambda: supply, set(), MAX_WAITING_SHARDS)
    with Path(os.devnull).open("w") as nowhere:
        progress = ProgressGroup((LineProgress("run", nowhere), Meters("run")))
        tally = drive(pool, queue, run.config.runtime, progress, Stop(clock=clock), clock=clock)
    assert tally.receipts == len(queue.ids)
    return queue.ids, pool.spent_s


STEPS: Mapping[str, Callable[[Path, int, int], dict[str, Any]]] = {
    "loop": loop,
    "plan": plan,
    "fill": fill,
    "call": call,
    "status": status,
}
