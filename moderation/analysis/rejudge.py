"""Another policy over the votes of a finished run: no pictures, no GPU; also over questions asked afterwards.

    TO/verdicts/part-<shard>.parquet   as the run's own, with the new verdicts and the new checks' scores
    TO/rejudge.json                    which run, which policy, which questions; counts; written last

What the run wrote stays as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from moderation import storage
from moderation.analysis.ask import read_run
from moderation.errors import UsageError
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy, load_policy, policy_hash
from moderation.results.asked import read_part
from moderation.results.receipts import committed_ids, part_name
from moderation.results.schema import score_column, verdicts_schema
from moderation.results.tables import encode_table
from moderation.results.votes import disabled_votes, item_votes, needed_asks, read_votes, vote_labels
from moderation.types import ErrorCode, ItemVotes, Judgement
from moderation.version import __version__

_OF_JUDGEMENT = ("verdict", "reason", "check", "score", "confidence", "evidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """What became of a rejudge. moved: (verdict before, after) -> items, of those whose verdict is another now."""

    to: str
    asks: tuple[str, ...]
    items: int
    verdicts: Mapping[str, int]
    moved: Mapping[tuple[str, str], int]


def rejudge(out: str, policy_path: str, to: str) -> Rejudged:
    """Judge the votes of OUT by another policy, into `to`.

    Votes that the policy names and the run did not cast are looked for among the questions asked afterwards
    (`moderation ask --as-check`). Raises UsageError naming the vote and the nearest right one.
    """
    record = read_run(out)
    config = record["config"]
    if storage.canonical(to).rstrip("/") == storage.canonical(out).rstrip("/"):
        raise UsageError(f"--to {to}: is the run itself; its verdicts stay as they are")
    policy = load_policy(Path(policy_path))
    ids = sorted(committed_ids(out))
    if not ids:
        raise UsageError(f"{out}: no shard is committed there")
    format_ = config.output.format
    first = vote_labels(read_votes(out, ids[0], format_))
    asks = needed_asks(out, wanted_votes(policy), first)
    bound: BoundPolicy | None = None
    verdicts: Counter[str] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    items = 0
    for shard_id in ids:
        votes = read_votes(out, shard_id, format_, asks)
        labels = vote_labels(votes)
        if bound is None or bound.labels != labels:
            bound = bind(policy, labels, disabled=disabled_votes(config, wanted_votes(policy)))
        before = read_part(storage.join(out, "verdicts", part_name(shard_id, format_)), None, format_)
        table = _judged(before, dict(item_votes(votes, labels)), bound)
        storage.publish(storage.join(to, "verdicts", part_name(shard_id, format_)), encode_table(table, config.output))
        pairs = list(zip(before["verdict"].to_pylist(), table["verdict"].to_pylist(), strict=True))
        items += len(pairs)
        verdicts.update(str(after) for _, after in pairs if after is not None)
        moved.update((str(a), str(b)) for a, b in pairs if a != b)
    found = Rejudged(to=to, asks=asks, items=items, verdicts=dict(verdicts), moved=dict(moved))
    _write_record(found, out, record["run_id"], policy)
    return found


def wanted_votes(policy: Policy) -> tuple[str, ...]:
    """Every vote that a policy names."""
    return tuple(sorted({label for check in policy.checks.values() for label in check.votes}))


def _judged(before: pa.Table, votes: Mapping[str, ItemVotes], bound: BoundPolicy) -> pa.Table:
    checks = tuple(bound.policy.checks)
    columns: dict[str, list[Any]] = {name: [] for name in (*_OF_JUDGEMENT, *map(score_column, checks))}
    ids, statuses, codes = (before[name].to_pylist() for name in ("item_id", "status", "error_code"))
    for item_id, status, code in zip(ids, statuses, codes, strict=True):
        judged = None
        if status != "skipped":
            judged = judge_item(votes.get(item_id), None if code is None else ErrorCode(code), bound)
        _append(columns, judged, checks)
    facts = {
        key.decode().removeprefix("moderation."): value.decode()
        for key, value in (before.schema.metadata or {}).items()
        if key.startswith(b"moderation.") and key not in (b"moderation.table", b"moderation.schema_version")
    }
    schema = verdicts_schema(checks, {**facts, "policy_hash": policy_hash(bound.policy), "rejudged_by": __version__})
    return pa.table(
        [
            pa.array(columns[field.name], field.type) if field.name in columns else before[field.name]
            for field in schema
        ],
        schema=schema,
    )


def _append(columns: Mapping[str, list[Any]], judged: Judgement | None, checks: Sequence[str]) -> None:
    columns["verdict"].append(str(judged.verdict) if judged else None)
    columns["reason"].append(judged.reason if judged else None)
    columns["check"].append(judged.check if judged else None)
    columns["score"].append(judged.score if judged else None)
    columns["confidence"].append(judged.confidence if judged else None)
    columns["evidence"].append(
        [
            {"detector": e.detector, "label": e.label, "score": e.score, "frame": e.frame, "time_s": e.time_s}
            | {"box": list(e.box) if e.box else None}
            for e in (judged.evidence if judged else ())
        ]
    )
    for check in checks:
        columns[score_column(check)].append(judged.scores.get(check) if judged else None)


def _write_record(found: Rejudged, out: str, run_id: str, policy: Policy) -> None:
    record = {
        "run": out,
        "run_id": run_id,
        "policy_hash": policy_hash(policy),
        "policy": policy.model_dump(mode="json", by_alias=True),
        "asks": list(found.asks),
        "items": found.items,
        "verdicts": found.verdicts,
        "moved": {f"{a} -> {b}": n for (a, b), n in sorted(found.moved.items())},
        "code_version": __version__,
    }
    storage.publish(storage.join(found.to, "rejudge.json"), json.dumps(record, indent=1, sort_keys=True).encode())
