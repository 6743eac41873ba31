"""Read back what a run left in OUT: its record, its parts, its votes, or some of their columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from moderation import storage
from moderation.config.load import validate
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.model import Policy, policy_hash
from moderation.results.decided import describe_drift, read_kept_policy
from moderation.results.intact import read_intact
from moderation.results.joined import read_joined
from moderation.results.layout import RUN_FILE, VERDICTS, VOTES
from moderation.results.receipts import committed_ids
from moderation.results.record import day_of, extensions_of, format_of, read_record
from moderation.results.tables import decode_table, reading_table

_LOG = logging.getLogger(__name__)

READERS: Final = 4  # threads that read parts ahead
EXTENDING_ADVICE: Final = "the command with --extend brings that to its end"
AHEAD_BYTES: Final = 256 << 20  # of parts read ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run in OUT. format: of its parts. record: `run.json`. shard_ids: those with a receipt, sorted."""

    out: str
    record: Mapping[str, Any]
    format: str
    shard_ids: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The run's id, from its record."""
        return str(self.record["run_id"])

    @property
    def stack_fingerprint(self) -> str:
        """The stack's fingerprint, from the record; empty where that does not have it."""
        identity = self.record.get("identity")
        return str(identity.get("stack", "")) if isinstance(identity, dict) else ""

    @property
    def votes_out(self) -> str:
        """The OUT that has the votes: another one for a rejudge, which has none of its own."""
        return str(self.record.get("votes_of") or self.out)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions whose votes count, in order: of detectors that were added after the run."""
        return extensions_of(self.record, self.out)

    def load_config(self) -> Config:
        """The configuration that the run had. Raises UsageError where this version does not accept it."""
        return validate(Config, self.record["config"], where=f"{self.out}/{RUN_FILE}")

    def day(self, policy: Policy, as_of: date | None = None) -> date | None:
        """The day that decides which list entries of a policy count; None where the policy needs no day.

        as_of: the wanted day; None: the day of the run, from its record. Raises UsageError where that has none.
        """
        if not policy.dated or as_of is not None:
            return as_of if policy.dated else None
        noted = day_of(self.record, self.out) or _day_of_text(self.record.get("updated_at"))
        if noted is None:
            raise UsageError(f"{self.out}/{RUN_FILE}: tells no day by which lists end; say --as-of 2026-12-31")
        return noted

    def read_verdicts(self, shard_id: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard's verdicts, or some of their columns. Raises UsageError naming a column that they lack.

        Raises PartMissingError, PartChangedError where the part is not the committed one.
        """
        return read_intact(self.out, VERDICTS, shard_id, self.format, columns)

    def read_votes(self, shard_id: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard's votes with those of all extensions, or some of their columns; like `read_verdicts`."""
        return read_joined(self.votes_out, shard_id, self.format, columns, extensions=self.extensions)

    def read_present(self, table: str, shard_id: str, columns: Sequence[str]) -> pa.Table:
        """A shard's part with those of the columns that it has. Raises PartMissingError, PartChangedError."""
        if table == VOTES:
            extensions = self.extensions
            return read_joined(self.votes_out, shard_id, self.format, columns, strict=False, extensions=extensions)
        return read_intact(self.out, table, shard_id, self.format, columns, strict=False)


def _day_of_text(stamp: object) -> date | None:
    try:
        return datetime.fromisoformat(str(stamp)).date()
    except ValueError:
        return None


def open_run(out: str) -> StoredRun:
    """The run in OUT, perhaps still running. Raises UsageError when there is none, or nothing of it is committed."""
    record = read_record(out)
    if record is None:
        raise UsageError(f"{out}: no {RUN_FILE}; not the output of a run")
    format_ = format_of(record, f"{out}/{RUN_FILE}")
    shard_ids = tuple(sorted(committed_ids(out)))
    if not shard_ids:
        raise UsageError(f"{out}: no shard is committed there")
    extensions_of(record, out)
    if record.get("extending"):
        _LOG.warning("%s: new verdicts were being put in place; %s", out, EXTENDING_ADVICE)
    return StoredRun(out=out, record=record, format=format_, shard_ids=shard_ids)


def load_policy_of_run(run: StoredRun, path: str | None = None) -> Policy:
    """The policy of a run as it was when it decided, or the one in `path`.

    Logs a warning where the file that the run was called with has changed since. Raises UsageError where OUT does not
    have the policy (a run of an earlier version) and its file is gone.
    """
    if path is not None:
        return load_whole_policy(Path(path))
    kept = read_kept_policy(run.out, run.record)
    if kept is not None:
        if (drift := describe_drift(run.out, run.record)) is not None:
            _LOG.warning("%s", drift)
        return kept
    file = Path(run.load_config().policy)
    if not file.is_file():
        raise UsageError(f"{file}: the policy of this run is not there any more; name one by --policy")
    policy = load_whole_policy(file)
    decided = (run.record.get("identity") or {}).get("policy")
    if decided and decided != policy_hash(policy):
        _LOG.warning("%s: has changed since this run, which did not keep what it said then", file)
    return policy


def read_part(uri: str, format_: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A part, or some of its columns (only they are read of a Parquet file).

    Raises FileNotFoundError, UsageError naming a column that it lacks, StorageError.
    """
    if columns is None:
        return decode_table(storage.read_bytes(uri), format_, where=uri)
    table = read_present(uri, format_, columns)
    for column in columns:
        if column not in table.column_names:
            raise UsageError(f"{uri}: has no column {column}")
    return table


def read_present(uri: str, format_: str, columns: Sequence[str]) -> pa.Table:
    """A part with those of the columns that it has; of a Parquet file only they are read.

    Raises FileNotFoundError, StorageError.
    """

    def read() -> pa.Table:
        with storage.open_input(uri) as file, reading_table(uri):
            if format_ == "arrow":
                table = pa.ipc.open_file(file).read_all()
                return table.select([name for name in columns if name in table.column_names])
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            return parquet.read(columns=[name for name in columns if name in names])

    return storage.retrying(read, what=uri)


def read_column_names(uri: str, format_: str) -> tuple[str, ...]:
    """The columns of a part."""
    with storage.open_input(uri) as file, reading_table(uri):
        return tuple(pa.ipc.open_file(file).schema.names if format_ == "arrow" else pq.read_schema(file).names)
