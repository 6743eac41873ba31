"""The parts of a rejudge: votes in, verdicts and a receipt out; by any process that reaches both folders.

A process gets plain data, `RejudgeSettings`, and commits part by part, so that a kill loses only the parts in progress.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.config.model import OutputConfig
from moderation.errors import FatalError
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy, policy_hash
from moderation.results.asked import read_digests
from moderation.results.extended_rows import extend_counts, extend_verdicts
from moderation.results.intact import read_intact
from moderation.results.judged import judge_columns
from moderation.results.judged_columns import JUDGED_COLUMNS
from moderation.results.layout import EXTENSION_ITEMS, VERDICTS, extension_home
from moderation.results.reader import StoredRun
from moderation.results.receipts import Receipt, commit_parts, read_receipt
from moderation.results.schema import verdicts_schema
from moderation.results.tables import encode_table
from moderation.results.votes import read_votes, vote_labels
from moderation.version import __version__

_PREFIX: Final = "moderation."  # of the keys in a table's metadata
_OF_TABLE: Final = ("table", "schema_version")  # those that a schema sets itself
MOVED: Final = "moved"  # prefix of counters in a receipt: `moved:review:block`, items by old and new verdict
_JUDGED: Final = ("verdict:", "check:", f"{MOVED}:")  # counters that a policy changes
# Remote storage answers in tens of milliseconds, as long as judging a part takes: so many parts are in flight.
_REMOTE_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgeSettings:
    """The settings of a process, as plain data. policy: as JSON, with the entries of its lists.

    extensions: whose votes are joined to the run's. added: those of them of which the verdicts do not know yet what
    became of their items. stack_fingerprint: of the verdicts; None: that of the run.
    """

    out: str
    votes_out: str
    to: str
    run_id: str
    format: str
    compression: str
    policy: str
    policy_hash: str
    asks: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    as_of: str | None = None
    extensions: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    stack_fingerprint: str | None = None

    def to_json(self) -> str:
        """The settings as text, for another process."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> RejudgeSettings:
        """The inverse of `to_json`."""
        record: dict[str, Any] = json.loads(text)
        return RejudgeSettings(
            **{**record, **{name: tuple(record[name]) for name in ("asks", "disabled", "extensions", "added")}}
        )


class PartJudge:
    """Judges parts. The policy is bound once per set of columns."""

    def __init__(self, settings: RejudgeSettings) -> None:
        self._settings = settings
        self._policy = Policy.model_validate_json(settings.policy)
        self._hash = policy_hash(self._policy)
        if self._hash != settings.policy_hash:
            raise FatalError("the policy is another one once it is told to a process")
        self._output = OutputConfig.model_validate({"format": settings.format, "compression": settings.compression})
        self._run = _run_at(settings)
        # Columns that a policy decides are not read, except the verdict, to count the items whose verdict changes.
        self._kept = ("verdict", *(n for n in verdicts_schema((), {}).names if n not in JUDGED_COLUMNS))
        self._digests = read_digests(settings.votes_out, settings.asks)
        self._bound: dict[tuple[str, ...], BoundPolicy] = {}
        self._lock = threading.Lock()

    def judge(self, shard_id: str) -> Receipt:
        """Judge a part again, and commit it."""
        settings = self._settings
        before = self._run.read_present(VERDICTS, shard_id, self._kept)
        votes = read_votes(self._run, shard_id, settings.asks, self._digests, labels=self._policy.votes())
        counted = {} if (told := read_receipt(settings.out, shard_id)) is None else told.counts
        for name in settings.added:
            home = extension_home(settings.votes_out, name)
            before = extend_verdicts(before, read_intact(home, EXTENSION_ITEMS, shard_id, settings.format), votes)
            counted = extend_counts(counted, before, read_receipt(home, shard_id))
        table = self._judged(before, votes, self._bind(vote_labels(votes)))
        facts = {
            "counts": count_judged(before, table, counted),
            "worker": told.worker if told is not None else "",
            "made_of": dict(told.sha256) if told is not None else {},
        }
        return commit_parts(
            settings.to,
            shard_id,
            items=before.num_rows,
            parts={VERDICTS: encode_table(table, self._output)},
            rows={VERDICTS: table.num_rows},
            format_=settings.format,
            facts=facts,
        )

    def _bind(self, labels: tuple[str, ...]) -> BoundPolicy:
        with self._lock:
            if labels not in self._bound:
                day = None if self._settings.as_of is None else date.fromisoformat(self._settings.as_of)
                self._bound[labels] = bind(self._policy, labels, disabled=self._settings.disabled, as_of=day)
            return self._bound[labels]

    def _judged(self, before: pa.Table, votes: pa.Table, bound: BoundPolicy) -> pa.Table:
        """The verdicts of a part with new judgements; all other columns stay."""
        judged = judge_columns(before, votes, bound)
        schema = verdicts_schema(tuple(bound.policy.checks), self._metadata(before))
        columns = [judged[field.name] if field.name in judged else _column_of(before, field) for field in schema]
        return pa.table(columns, schema=schema)

    def _metadata(self, before: pa.Table) -> dict[str, str]:
        """The table's metadata about its origin, with the new policy."""
        entries = ((key.decode(), value.decode()) for key, value in (before.schema.metadata or {}).items())
        kept = {key.removeprefix(_PREFIX): value for key, value in entries if key.startswith(_PREFIX)}
        of_run = {key: value for key, value in kept.items() if key not in (*_OF_TABLE, "as_of")}
        day = {} if self._settings.as_of is None else {"as_of": self._settings.as_of}
        own = {"run_id": self._settings.run_id, "policy_hash": self._hash, "rejudged_by": __version__}
        if self._settings.stack_fingerprint is not None:
            own["stack_fingerprint"] = self._settings.stack_fingerprint
        return {**of_run, **day, **own}


def rejudge_shards(settings_json: str, shard_ids: Sequence[str]) -> int:
    """Judge these parts again and commit each; returns how many. Settings are text, for calls by other processes."""
    settings = RejudgeSettings.from_json(settings_json)
    judge = PartJudge(settings)
    if storage.scheme_of(settings.out) == storage.scheme_of(settings.to) == "file":
        for shard_id in shard_ids:
            judge.judge(shard_id)
        return len(shard_ids)
    with ThreadPoolExecutor(_REMOTE_THREADS, "rejudge") as pool:
        return sum(1 for _ in pool.map(judge.judge, shard_ids))


def count_judged(before: pa.Table, after: pa.Table, counted: Mapping[str, int]) -> dict[str, int]:
    """A part's counters: those of its receipt that do not depend on the policy, and the new ones."""
    counts: Counter[str] = Counter({name: n for name, n in counted.items() if not name.startswith(_JUDGED)})
    verdicts, was = after["verdict"].to_pylist(), before["verdict"].to_pylist()
    counts.update(f"verdict:{verdict}" for verdict in verdicts if verdict is not None)
    checks = after["check"].to_pylist()
    counts.update(f"check:{check}:{v}" for check, v in zip(checks, verdicts, strict=True) if check is not None)
    counts.update(f"{MOVED}:{a}:{b}" for a, b in zip(was, verdicts, strict=True) if a != b)
    return dict(sorted(counts.items()))


def _column_of(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """A column of the run's table; nulls where the table is older than the column."""
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    return column if column.type == field.type else pc.cast(column, field.type)


def _run_at(settings: RejudgeSettings) -> StoredRun:
    record = {"votes_of": settings.votes_out, "extensions": list(settings.extensions)}
    return StoredRun(out=settings.out, record=record, format=settings.format, shard_ids=())
