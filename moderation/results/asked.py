"""Columns of questions that were asked after a run, beside its votes; committed parts are never touched.

    OUT/asks/<name>/ask.json               the question and its run; written last: without it there is no question
    OUT/asks/<name>/part-<shard>.parquet   item_id, frame, and one column per variant, named as in a stack

Because the columns are called `clip_b32.<name>`, a policy that reads them needs no change when the question moves into
the configuration of the next run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from moderation import storage
from moderation.config.canonical import canonical_json, parse_json
from moderation.config.model import OutputConfig
from moderation.errors import UsageError
from moderation.results.layout import ASK_FILE, ask_part_uri, ask_uri, asks_folder
from moderation.results.tables import decode_table, encode_table
from moderation.types import F32
from moderation.version import SCHEMA_VERSION

Digests = Mapping[str, Mapping[str, str]]  # question -> shard -> sha256 of its part


def asked_labels(out: str) -> dict[str, tuple[str, ...]]:
    """Questions kept beside the votes of OUT: name -> the columns that `with_asked` adds."""
    try:
        listed = [info.uri for info in storage.list_objects(asks_folder(out))]
    except FileNotFoundError:
        return {}
    records = [_read_record(uri) for uri in listed if uri.endswith(f"/{ASK_FILE}")]
    return {record["name"]: tuple(record["labels"]) for record in sorted(records, key=lambda r: str(r["name"]))}


def read_digests(out: str, names: Sequence[str]) -> Digests:
    """The sha256 of each question's parts by shard, from its record; empty for records older than this field."""
    return {name: _read_record(ask_uri(out, name)).get("sha256") or {} for name in names}


def _read_record(uri: str) -> dict[str, Any]:
    """The record of a kept question. Raises UsageError where there is none, or it is not one of ours."""
    data = storage.read_optional(uri)
    if data is None:
        raise UsageError(f"{uri}: there is no such question; ask it again")
    try:
        record = parse_json(data)
        sound = isinstance(record["name"], str) and all(isinstance(label, str) for label in record["labels"])
        sound = sound and isinstance(record["asked"], str) and isinstance(record.get("sha256", {}), dict)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{uri} is not readable: {error}; ask it again") from error
    if not sound:
        raise UsageError(f"{uri} is not readable: other types than ours; ask it again")
    return dict(record)


def with_asked(
    votes: pa.Table, out: str, shard_id: str, names: Sequence[str], format_: str, digests: Digests | None = None
) -> pa.Table:
    """A shard's votes with the columns of kept questions beside them; rows as they were.

    digests: from `read_digests`, for callers that read many shards. Raises UsageError when the question was not asked
    of this shard (it was committed later, or belongs to another run), or its part is not the one that was kept.
    """
    known = read_digests(out, names) if digests is None else digests
    for name in names:
        asked = _read_asked(out, name, shard_id, format_, known[name])
        if _run_id(asked) != _run_id(votes):
            # With the same items and another stack, rows would match and scores would not.
            raise UsageError(f"{out}: asks/{name} is of run {_run_id(asked)}, the votes of another; ask it again")
        if len(asked) > len(votes):
            # Items whose content has changed since have no votes any more.
            asked = asked.filter(pc.is_in(asked["item_id"], value_set=votes["item_id"].combine_chunks()))
        if not (asked["item_id"].equals(votes["item_id"]) and asked["frame"].equals(votes["frame"])):
            raise UsageError(f"{out}: the rows of asks/{name} are not those of the votes; ask it again")
        for field in asked.schema:
            if field.name not in ("item_id", "frame"):
                votes = votes.append_column(field, asked[field.name])
    return votes


def _read_asked(out: str, name: str, shard_id: str, format_: str, digests: Mapping[str, str]) -> pa.Table:
    uri = ask_part_uri(out, name, shard_id, format_)
    data = storage.read_optional(uri)
    # A question kept before there were digests has none at all.
    if data is None or (digests and shard_id not in digests):
        raise UsageError(f"{out}: {name!r} was not asked of shard {shard_id}; ask it again")
    if digests and hashlib.sha256(data).hexdigest() != digests[shard_id]:
        raise UsageError(f"{uri} is not the one that was kept (its sha256 is another); ask {name!r} again")
    return decode_table(data, format_, where=uri)


def refuse_taken(out: str, question: Mapping[str, Any], labels: Sequence[str], names: Sequence[str]) -> None:
    """Raises UsageError when a vote or another question has this name already. names: columns of the votes."""
    taken = [label for label in labels if label in names]
    if taken:
        raise UsageError(f"{out}: its votes have {taken[0]} already; choose another name")
    uri = ask_uri(out, question["name"])
    if storage.read_optional(uri) is None:
        return
    record = _read_record(uri)
    kept = [record.get("question"), record["labels"]]
    if canonical_json(kept) != canonical_json([dict(question), list(labels)]):
        raise UsageError(f"{out}: asks/{question['name']} was another question; choose another name")


def write_asked(
    out: str, name: str, shard_id: str, votes: pa.Table, scores: F32, labels: Sequence[str], output: OutputConfig
) -> str:
    """Write a shard's part; returns its sha256. votes: with item_id and frame; scores: float32 [F,L], NaN = null."""
    facts = {"table": "asks", "schema_version": SCHEMA_VERSION, "run_id": _run_id(votes)}
    schema = pa.schema(
        [("item_id", pa.string()), ("frame", pa.int32()), *((label, pa.float32()) for label in labels)],
        metadata={f"moderation.{key}": value for key, value in facts.items()},
    )
    columns = [pa.array(np.ascontiguousarray(scores[:, i]), pa.float32(), from_pandas=True) for i in range(len(labels))]
    table = pa.table([votes["item_id"], votes["frame"], *columns], schema=schema)
    data = encode_table(table, output)
    storage.publish(ask_part_uri(out, name, shard_id, output.format), data)
    return hashlib.sha256(data).hexdigest()


def write_ask_record(
    out: str, run_id: str, question: Mapping[str, Any], labels: Sequence[str], digests: Mapping[str, str]
) -> None:
    """Write a question's record, once its parts are there. question: as plain data, with its `name`.

    digests: sha256 of the part of each shard.
    """
    record: Mapping[str, Any] = {
        "name": question["name"],
        "labels": list(labels),
        "asked": _identity(run_id, question, labels),
        "run_id": run_id,
        "question": dict(question),
        "shards": len(digests),
        "sha256": dict(digests),
    }
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(ask_uri(out, question["name"]), text.encode())


def _identity(run_id: str, question: Mapping[str, Any], labels: Sequence[str]) -> str:
    # The run's id covers its variants: their weights are in the stack's fingerprint.
    return hashlib.sha256(canonical_json([run_id, dict(question), list(labels)]).encode()).hexdigest()


def _run_id(table: pa.Table) -> str:
    return bytes((table.schema.metadata or {}).get(b"moderation.run_id", b"")).decode()
