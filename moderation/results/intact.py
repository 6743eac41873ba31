"""Parts read only as they were committed: by the sha256 in the receipt of their shard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from moderation import storage
from moderation.errors import UsageError
from moderation.results.layout import VERDICTS, VOTES, part_uri
from moderation.results.receipts import Receipt, read_receipt
from moderation.results.record import read_record
from moderation.results.schema import verdicts_schema, votes_schema
from moderation.results.tables import decode_table

ADVICE: Final = "`moderation verify OUT --repair`, then the command of the run, judge it again"


# Columns that every version of our tables has and any reader of them uses.
_FIELDS: Final = {
    VERDICTS: [verdicts_schema((), {}).field(name) for name in ("item_id", "uri", "kind", "verdict", "status")],
    VOTES: [votes_schema((), {}, {}, {}).field(name) for name in ("item_id", "frame", "time_s")],
}


class PartMissingError(UsageError):
    """A part, or the receipt of its shard, is not there."""


class PartChangedError(UsageError):
    """A part is not the one that was committed."""


def describe_difference_of_part(receipt: Receipt, table: str, data: bytes | None) -> str | None:
    """What is wrong with a part's bytes, in words; None where they are the committed ones."""
    if data is None:
        return "is gone"
    if hashlib.sha256(data).hexdigest() != receipt.sha256[table]:
        return "is not the one that was committed (its sha256 is another)"
    return None


def read_intact(
    out: str, table: str, shard_id: str, format_: str, columns: Sequence[str] | None = None, *, strict: bool = True
) -> pa.Table:
    """A part as it was committed, or some of its columns. strict: a missing column is an error, else it is left out.

    The whole part is read, for its sha256. Raises PartMissingError, PartChangedError, UsageError naming a column,
    StorageError.
    """
    uri = part_uri(out, table, shard_id, format_)
    receipt = read_receipt(out, shard_id)
    if receipt is not None and table == VOTES and table not in receipt.sha256:
        # A rejudge has no votes of its own.
        out, receipt = _follow_votes(out, shard_id)
        uri = part_uri(out, table, shard_id, format_)
    if receipt is None or table not in receipt.sha256:
        raise PartMissingError(f"{uri}: there is no receipt of it; {ADVICE}")
    data = storage.read_optional(uri)
    problem = describe_difference_of_part(receipt, table, data)
    if data is None:
        raise PartMissingError(f"{uri} {problem}; {ADVICE}")
    if problem is not None:
        raise PartChangedError(f"{uri} {problem}; {ADVICE}")
    part = decode_table(data, format_, columns, where=uri)
    _check_fields(uri, table, part, columns)
    return part if columns is None else _select(uri, part, columns, strict=strict)


def _check_fields(uri: str, table: str, part: pa.Table, columns: Sequence[str] | None) -> None:
    """Raises UsageError where a part lacks a column that readers rely on, or has it with another type."""
    for field in _FIELDS.get(table, ()):
        if field.name not in part.column_names:
            if columns is None or field.name in columns:
                raise UsageError(f"{uri}: has no column {field.name}")
        elif part.schema.field(field.name).type != field.type:
            raise UsageError(f"{uri}: column {field.name} is {part.schema.field(field.name).type}, not {field.type}")


def _follow_votes(out: str, shard_id: str) -> tuple[str, Receipt | None]:
    """Where the votes of a rejudge lie, and their receipt."""
    votes_of = (read_record(out) or {}).get("votes_of")
    if not isinstance(votes_of, str):
        return out, None
    return votes_of, read_receipt(votes_of, shard_id)


def _select(uri: str, part: pa.Table, columns: Sequence[str], *, strict: bool) -> pa.Table:
    missing = [name for name in columns if name not in part.column_names]
    if missing and strict:
        raise UsageError(f"{uri}: has no column {missing[0]}")
    return part.select([name for name in columns if name not in missing])
