"""A run and its output folder: who it is, whether it may resume there, and what it leaves when it ends."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.pipeline.shard import RunFacts
from moderation.planning.plan import plan_uri, read_shard_sizes
from moderation.planning.slices import Slice, find_slices, slice_home
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy, load_policy, policy_hash
from moderation.results.receipts import committed_ids, part_name, read_receipts
from moderation.results.summary import render_report, summarise
from moderation.results.tables import decode_table
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.version import __version__

_FILES = ("run.json", "plan.parquet", "summary.json", "report.html", "_SUCCESS")
_FOLDERS = ("plan", "verdicts", "votes", "tars", "receipts", "slices", "asks")
_PACKAGES = ("ray", "torch", "torchvision", "pyarrow", "pillow", "decord2", "fsspec", "s3fs", "numpy")
# What a person is likely to look at first; the tables hold the rest.
_REPORT_ROWS = 200
_REPORT_PARTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The output of a run: whose it is and where it lies. Enough to sum it up, on a machine that cannot judge."""

    source: str
    out: str  # the tables and receipts
    home: str  # plan, run.json, summary.json, report.html, _SUCCESS: `out`, or the folder of a slice in it
    config: Config
    facts: RunFacts
    identity: Mapping[str, Any]  # what must be the same for a call to resume another's output


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Output):
    """One execution over one plan: what it reads, how it judges, where it writes."""

    policy: Policy
    limit: int | None
    part: Slice | None = None


def prepare_run(source: str, out: str, config: Config, limit: int | None = None, part: Slice | None = None) -> Run:
    """Check everything that can be wrong before any work starts. Reads the policy, loads no weights, writes nothing.

    The id is a hash of what decides the rows, so that the same call writes the same bytes anywhere; a slice has the
    id of the whole.
    Raises UsageError.
    """
    source, out = storage.canonical(source), storage.canonical(out).rstrip("/")
    stack = build_stack(config)
    policy = load_policy_of(config)
    bind_policy(policy, stack)
    identity = {
        "source": source,
        "limit": limit,
        "source_config": config.source.model_dump(mode="json"),
        "shards": config.shards.model_dump(mode="json"),
        "media": config.media.model_dump(mode="json"),
        "output": config.output.model_dump(mode="json"),
        "stack": stack.fingerprint,
        "policy": policy_hash(policy),
    }
    facts = RunFacts(run_id=run_id_of(identity), stack_fingerprint=stack.fingerprint, policy_hash=policy_hash(policy))
    return Run(
        source=source,
        out=out,
        home=out if part is None else slice_home(out, part),
        config=config,
        policy=policy,
        limit=limit,
        facts=facts,
        identity=identity,
        part=part,
    )


def run_id_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits: a hash of what decides the rows."""
    return sha256(canonical_json(identity).encode()).hexdigest()[:16]


def load_policy_of(config: Config) -> Policy:
    """The policy that a configuration names. Raises UsageError."""
    return load_policy(Path(config.policy))


def bind_policy(policy: Policy, stack: Stack) -> BoundPolicy:
    """A policy with its votes resolved to the stack's columns. Raises UsageError naming what is missing."""
    return bind(policy, stack.labels, gated=stack.gated, disabled=stack.disabled)


def check_output(run: Output) -> set[str]:
    """Whether this run may write to its OUT; the ids of the shards that are committed there.

    Raises UsageError when another run's tables are there: of the whole, or of any slice.
    """
    homes = [run.out, *(slice_home(run.out, part) for part in find_slices(run.out))]
    records = [(home, record) for home in homes if (record := read_state(home)) is not None]
    for home, record in records:
        if record["identity"] != run.identity:
            raise UsageError(
                f"{home}: belongs to another run: {difference(record['identity'], dict(run.identity))}."
                " Choose another OUT, or --fresh to delete these tables and start over"
            )
    ids = committed_ids(run.out)
    if ids and not records:
        raise UsageError(f"{run.out}: holds receipts but no run.json, so not this run's; choose another OUT")
    return ids


def read_state(home: str) -> dict[str, Any] | None:
    """`run.json` of a run or a slice; None without one. Raises UsageError when it is not one of ours."""
    data = storage.read_optional(storage.join(home, "run.json"))
    if data is None:
        return None
    try:
        record: dict[str, Any] = json.loads(data)
        known = isinstance(record["identity"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UsageError(f"{home}/run.json: not readable; choose another OUT, or --fresh to start over")
    return record


def start_over(out: str) -> None:
    """Delete what a run wrote to OUT, and nothing else that lies there."""
    for folder in _FOLDERS:
        storage.delete_tree(storage.join(out, folder))
    for file in _FILES:
        storage.delete_tree(storage.join(out, file))


def write_state(run: Output, state: str, **facts: object) -> None:
    """`run.json`. state: running, partial, done, failed."""
    record = {
        "run_id": run.facts.run_id,
        "state": state,
        "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": run.identity,
        "config": run.config.model_dump(mode="json"),
        "versions": versions(),
        **facts,
    }
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(storage.join(run.home, "run.json"), text.encode())


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "moderation": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def nothing_left(run: Output, committed: set[str]) -> bool:
    """Whether the plan is complete and all of its shards are committed."""
    if not committed:
        return False
    planned = read_shard_sizes(plan_uri(run.home))
    return planned is not None and committed.issuperset(planned)


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
    began = time.perf_counter()
    committed = committed_ids(run.out)
    receipts = read_receipts(run.out, committed.intersection(shard_ids))
    summary = summarise(
        receipts,
        {
            "run_id": run.facts.run_id,
            "source": run.source,
            "out": run.out,
            "stack_fingerprint": run.facts.stack_fingerprint,
            "policy_hash": run.facts.policy_hash,
            "state": "partial" if partial else "done",
            "wall_s": None if wall_s is None else round(wall_s, 3),
            "max_error_rate": run.config.runtime.max_error_rate,
            "versions": versions(),
            **facts,
        },
    )
    notable = notable_rows(run, [i for i in shard_ids if i in committed]) if judged else []
    page = render_report(summary, notable)
    storage.publish(storage.join(run.home, "summary.json"), json.dumps(summary, indent=1, ensure_ascii=False).encode())
    storage.publish(storage.join(run.home, "report.html"), page.encode())
    write_state(run, "partial" if partial else "done", finish_s=round(time.perf_counter() - began, 3))
    if not partial:
        storage.publish(storage.join(run.home, "_SUCCESS"), b"")
    return summary


def notable_rows(run: Output, shard_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows that were not passed, for the report: from the first parts, until there are enough."""
    found: list[dict[str, Any]] = []
    columns = ["item_id", "uri", "kind", "verdict", "status", "reason", "check", "score", "error_code", "error_detail"]
    for shard_id in shard_ids[:_REPORT_PARTS]:
        name = part_name(shard_id, run.config.output.format)
        table = decode_table(storage.read_bytes(storage.join(run.out, "verdicts", name)), run.config.output.format)
        found += [r for r in table.select(columns).to_pylist() if r["verdict"] not in ("pass", None)]
        if len(found) >= _REPORT_ROWS:
            break
    return found[:_REPORT_ROWS]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which two identities differ, in words."""
    for key in now:
        old, new = before.get(key), now[key]
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return difference({f"{key}.{k}": v for k, v in old.items()}, {f"{key}.{k}": v for k, v in new.items()})
        return f"{key} was {old}, is {new} now"
    return "it has settings that this version does not know"
