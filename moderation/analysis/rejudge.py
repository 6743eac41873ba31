"""Another policy over the votes of a finished run: no pictures, no GPU; also over questions asked afterwards.

    TO/verdicts/part-<shard>.parquet   as the run's own, with the new verdicts and the new checks' scores
    TO/rejudge.json                    which run, which policy, which questions; counts; first as `running`, then `done`

What the run wrote stays as it is. The same call over an unfinished TO goes on with it; another call's TO is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from moderation import storage
from moderation.errors import UsageError
from moderation.policy.bind import BoundPolicy
from moderation.policy.judge import judge_item
from moderation.policy.model import WITHOUT_ENTRIES, Policy, policy_hash
from moderation.results.certificates import certify_policy, describe_certification
from moderation.results.layout import REJUDGE_FILE, VERDICTS, list_part_ids, part_uri, run_uri
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.schema import verdicts_schema
from moderation.results.tables import encode_table, judgement_cells
from moderation.results.votes import item_votes, read_bound_votes
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Judgement, Kind, Seen, Status
from moderation.version import __version__

# `unseen` is missing in tables of version 2.
JUDGED_BY = (
    "item_id", "status", "error_code", "kind", "duration_s", "widest_gap_s", "unseen", "attributes", "content_hash",
    "pdq",
)  # fmt: skip
_PREFIX = "moderation."  # of the keys in a table's metadata
_OF_TABLE = ("table", "schema_version")  # those that a schema sets itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """What became of a rejudge. moved: (verdict before, after) -> items, of those whose verdict is another now."""

    to: str
    asks: tuple[str, ...]
    items: int
    verdicts: Mapping[str, int]
    moved: Mapping[tuple[str, str], int]
    doubts: tuple[str, ...] = ()  # what no certificate covers, in sentences


def rejudge(out: str, policy_path: str | None, to: str, *, as_of: date | None = None) -> Rejudged:
    """Judge the votes of OUT by another policy, into `to`. policy_path: None: by the one that OUT keeps.

    as_of: the day by which lists have ended; None: that of the run, so that the rows are those of a full run.
    Votes that the policy names and the run did not cast are looked for among the questions asked afterwards
    (`moderation ask --as-check`). Raises UsageError naming the vote and the nearest right one, and where `to` holds
    something else.
    """
    run = open_run(out)
    if storage.canonical(to).rstrip("/") == storage.canonical(out).rstrip("/"):
        raise UsageError(f"--to {to}: is the run itself; its verdicts stay as they are")
    whole = load_policy_of_run(run, policy_path)
    policy, certification = certify_policy(whole, policy_path or run.load_config().policy, run.stack_fingerprint)
    _check_target(to, run, policy, run.day(policy, as_of))
    output = run.load_config().output
    verdicts: Counter[str] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    asks: tuple[str, ...] = ()
    items = 0
    bound: BoundPolicy | None = None
    for part in read_bound_votes(run, policy, as_of=as_of):
        asks = part.asks
        before = run.read_verdicts(part.shard_id)
        table = _judge_again(before, dict(item_votes(part.votes, part.policy.labels)), part.policy)
        if bound is None:
            # Only now is it known that the policy fits.
            _write_record(Rejudged(to=to, asks=asks, items=0, verdicts={}, moved={}), run, part.policy, state="running")
        bound = part.policy
        storage.publish(part_uri(to, VERDICTS, part.shard_id, run.format), encode_table(table, output))
        pairs = list(zip(before["verdict"].to_pylist(), table["verdict"].to_pylist(), strict=True))
        items += len(pairs)
        verdicts.update(str(after) for _, after in pairs if after is not None)
        moved.update((str(a), str(b)) for a, b in pairs if a != b)
    rejudged = Rejudged(
        to=to,
        asks=asks,
        items=items,
        verdicts=dict(verdicts),
        moved=dict(moved),
        doubts=tuple(describe_certification(certification.as_json())),
    )
    assert bound is not None  # a run has a part at least
    _write_record(rejudged, run, bound, state="done")
    return rejudged


def _judge_again(before: pa.Table, votes: Mapping[str, ItemVotes], bound: BoundPolicy) -> pa.Table:
    """The verdicts of a part with new judgements; every other column as it was."""
    checks = tuple(bound.policy.checks)
    cells = [judgement_cells(judgement, checks) for judgement in judge_rows(before, votes, bound)]
    judged = judgement_cells(None, checks).keys()
    schema = verdicts_schema(checks, _metadata(before, bound))
    columns = [
        pa.array([row[field.name] for row in cells], field.type) if field.name in judged else _column_of(before, field)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def judge_rows(rows: pa.Table, votes: Mapping[str, ItemVotes], bound: BoundPolicy) -> Iterator[Judgement | None]:
    """What a policy makes of the items of a part; None of those that were skipped.

    rows: their verdicts, at least those of `JUDGED_BY` that the table has. votes: by item id.
    """
    for row in rows.select([name for name in JUDGED_BY if name in rows.column_names]).to_pylist():
        yield judge_row(row, votes.get(row["item_id"]), bound)


def judge_row(row: Mapping[str, Any], votes: ItemVotes | None, bound: BoundPolicy) -> Judgement | None:
    """What a policy makes of a row of the verdicts, by the item's votes; None of what was skipped."""
    if row["status"] == Status.SKIPPED:
        return None
    seen = Seen(
        kind=Kind(row["kind"]),
        duration_s=row["duration_s"],
        widest_gap_s=row["widest_gap_s"],
        unseen=tuple(row.get("unseen") or ()),
    )
    facts = ItemFacts(
        item_id=row["item_id"],
        attributes=dict(row["attributes"] or ()),
        content_hash=row["content_hash"],
        pdq=row["pdq"],
    )
    return judge_item(votes, None if row["error_code"] is None else ErrorCode(row["error_code"]), bound, seen, facts)


def _column_of(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """A column of the run's table; nulls where it was written before there was such a column."""
    return table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)


def _metadata(before: pa.Table, bound: BoundPolicy) -> dict[str, str]:
    """What the table said of its origin, with the new policy."""
    entries = ((key.decode(), value.decode()) for key, value in (before.schema.metadata or {}).items())
    kept = {key.removeprefix(_PREFIX): value for key, value in entries if key.startswith(_PREFIX)}
    of_run = {key: value for key, value in kept.items() if key not in _OF_TABLE}
    of_run.pop("as_of", None)
    day = {} if bound.as_of is None else {"as_of": bound.as_of.isoformat()}
    return {**of_run, "policy_hash": policy_hash(bound.policy), **day, "rejudged_by": __version__}


def _check_target(to: str, run: StoredRun, policy: Policy, day: date | None) -> None:
    """Raises UsageError where `to` holds anything but what an earlier call of the same kind has left."""
    if storage.read_optional(run_uri(to)) is not None:
        raise UsageError(f"--to {to}: is the output of a run; choose another folder")
    data = storage.read_optional(storage.join(to, REJUDGE_FILE))
    if data is None:
        if list_part_ids(to, VERDICTS, run.format):
            raise UsageError(f"--to {to}: holds verdicts of something else; choose another folder")
        return
    try:
        record = json.loads(data)
        before = (record["run_id"], record["policy_hash"], record.get("as_of"))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{to}/{REJUDGE_FILE}: not readable; choose another folder") from error
    now = (run.run_id, policy_hash(policy), None if day is None else day.isoformat())
    if before != now:
        what = "another run" if before[0] != now[0] else "another policy" if before[1] != now[1] else "another day"
        raise UsageError(f"--to {to}: holds the verdicts by {what}; choose another folder")


def _write_record(rejudged: Rejudged, run: StoredRun, bound: BoundPolicy, *, state: str) -> None:
    policy = bound.policy
    record: dict[str, Any] = {
        "state": state,
        "run": run.out,
        "run_id": run.run_id,
        "as_of": None if bound.as_of is None else bound.as_of.isoformat(),
        "policy_hash": policy_hash(policy),
        "policy": policy.model_dump(mode="json", by_alias=True, exclude=WITHOUT_ENTRIES),
        "asks": list(rejudged.asks),
        "items": rejudged.items,
        "verdicts": rejudged.verdicts,
        "moved": {f"{a} -> {b}": n for (a, b), n in sorted(rejudged.moved.items())},
        "code_version": __version__,
    }
    text = json.dumps(record, indent=1, sort_keys=True)
    storage.publish(storage.join(rejudged.to, REJUDGE_FILE), text.encode())
