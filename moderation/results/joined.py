"""Votes of a run joined with those of detectors that were added afterwards; committed parts are never touched.

    OUT/extensions/<id>/run.json, plan.parquet, receipts/   like those of a run
    OUT/extensions/<id>/votes/part-<shard>.parquet          the rows of the run's part, with columns of some detectors
    OUT/extensions/<id>/items/part-<shard>.parquet          one row per item: what became of it

The run record names the extensions whose votes count, in order: of two columns of one name the later one counts. An
item whose content has changed since it was judged has no votes: half of them would be of another picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import UsageError
from moderation.results.intact import read_intact
from moderation.results.layout import VOTES, extension_home, newest_extension_uri
from moderation.results.record import extensions_of, read_record
from moderation.results.schema import REGION_TYPE

# Of an extension's votes: whether the content of the item has changed since the run judged it.
CHANGED: Final = "changed"
REGIONS: Final = "regions"
_KEYS: Final = ("item_id", "frame")
_META: Final = b"moderation.extension"


def extension_metadata(
    *, scored: Sequence[str], detectors: Sequence[str], columns: Sequence[str], replaces: bool
) -> dict[str, str]:
    """What a reader needs to join a part of an extension, for its schema's metadata.

    scored: the detectors whose columns it holds. detectors, columns: of the whole stack, in order. replaces: whether
    some of the columns take the place of older ones.
    """
    facts = {
        "scored": list(scored), "detectors": list(detectors), "columns": list(columns), "replaces": replaces,
    }  # fmt: skip
    return {"extension": json.dumps(facts, sort_keys=True)}


def read_joined(
    out: str,
    shard_id: str,
    format_: str,
    columns: Sequence[str] | None = None,
    *,
    strict: bool = True,
    extensions: Sequence[str] | None = None,
    with_changed: bool = False,
) -> pa.Table:
    """A shard's votes with those of all extensions, or some of their columns.

    strict: a missing column is an error, else it is left out. extensions: None: those that the record of OUT names.
    with_changed: also rows of items whose content has changed; their votes are of two pictures.
    Raises PartMissingError, PartChangedError, UsageError, StorageError, as `read_intact`.
    """
    if extensions is None:
        out, extensions = _find_extensions(out)
    if not extensions:
        return read_intact(out, VOTES, shard_id, format_, columns, strict=strict)
    votes = _read_and_join(out, shard_id, format_, columns, extensions, with_changed=with_changed)
    return votes if columns is None else _select(votes, columns, out, strict=strict)


def _find_extensions(out: str) -> tuple[str, tuple[str, ...]]:
    """Where the votes of a run lie, and the extensions that its record names."""
    record = read_record(out) or {}
    return str(record.get("votes_of") or out), extensions_of(record, out)


def _read_and_join(
    out: str,
    shard_id: str,
    format_: str,
    columns: Sequence[str] | None,
    extensions: Sequence[str],
    *,
    with_changed: bool,
) -> pa.Table:
    """The joined votes, with at least the columns that are there."""
    wanted = None if columns is None else tuple(dict.fromkeys((*columns, *_KEYS)))
    votes = read_intact(out, VOTES, shard_id, format_, wanted, strict=False)
    changed: list[pa.ChunkedArray] = []
    for name in extensions:
        home = extension_home(out, name)
        needed = None if wanted is None else (*wanted, CHANGED)
        added = read_intact(home, VOTES, shard_id, format_, needed, strict=False)
        votes = join_votes(votes, added, where=f"{home}/{VOTES}")
        changed.append(added[CHANGED])
    return votes if with_changed else votes.filter(pc.invert(reduce(pc.or_, changed)))


def note_newest(out: str, name: str) -> None:
    """Note which extension was begun last, for a status."""
    storage.publish(newest_extension_uri(out), json.dumps({"extension": name}).encode())


def read_newest(out: str) -> str | None:
    """The extension that was begun last; None where there is none."""
    data = storage.read_optional(newest_extension_uri(out))
    try:
        record = {} if data is None else parse_json(data)
        return extensions_of({"extensions": [record["extension"]]}, out)[0] if record else None
    except (ValueError, KeyError, TypeError, UsageError):
        return None


def join_votes(votes: pa.Table, added: pa.Table, *, where: str) -> pa.Table:
    """Votes with the columns of an extension, in the order that a run of the whole stack would write.

    Raises UsageError naming `where` when its rows are not those of the votes.
    """
    facts = _facts_of(added, where)
    if not all(added[key].equals(votes[key]) for key in _KEYS):
        raise UsageError(f"{where}: its rows are not those of the votes; choose another OUT, or --fresh to start over")
    own = {name: votes[name] for name in votes.column_names}
    new = {name: added[name] for name in added.column_names if name not in (*_KEYS, "time_s", CHANGED)}
    joined = own | new
    if REGIONS in own and REGIONS in new:
        joined[REGIONS] = _join_regions(votes, added, facts)
    table = pa.table({name: joined[name] for name in _ordered(joined, facts["columns"])})
    return table.replace_schema_metadata(_metadata_of(votes, added, facts))


def _ordered(names: Iterable[str], columns: Sequence[str]) -> list[str]:
    """The names in the order of the stack's columns.

    What an earlier stack had and this one has not stands before the regions, which are last in every stack.
    """
    there = list(names)
    order = [name for name in columns if name in there]
    others = [name for name in there if name not in columns]
    last = [name for name in order if name == REGIONS]
    return [*(name for name in order if name != REGIONS), *others, *last]


def _metadata_of(votes: pa.Table, added: pa.Table, facts: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Those of the run; its id is the extension's where votes were replaced: what was derived from them is old then."""
    metadata = dict(votes.schema.metadata or {})
    own = added.schema.metadata or {}
    kept = (b"moderation.stack_fingerprint", *([b"moderation.run_id"] if facts["replaces"] else []))
    return metadata | {key: own[key] for key in kept if key in own}


def _join_regions(votes: pa.Table, added: pa.Table, facts: Mapping[str, Any]) -> pa.ChunkedArray:
    """The regions of both, in the order of the stack's detectors; those of detectors that were scored again are new."""
    own, other = votes[REGIONS], added[REGIONS]
    if not facts["replaces"] and not _any_region(other):
        return own
    place = {name: nth for nth, name in enumerate(facts["detectors"])}
    scored = frozenset(facts["scored"])
    rows = [
        sorted(
            [r for r in before or () if r["detector"] not in scored] + (after or []),
            key=lambda region: place.get(region["detector"], len(place)),
        )
        for before, after in zip(own.to_pylist(), other.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(rows, pa.list_(REGION_TYPE))])


def _any_region(column: pa.ChunkedArray) -> bool:
    return bool(pc.sum(pc.list_value_length(column)).as_py())


def _facts_of(added: pa.Table, where: str) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((added.schema.metadata or {})[_META])
        sound = all(isinstance(facts[key], list) for key in ("scored", "detectors", "columns"))
        if not sound or not isinstance(facts["replaces"], bool) or added.schema.field(CHANGED).type != pa.bool_():
            raise TypeError("other types than ours")
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{where}: not readable as votes of an extension: {error}") from error
    return facts


def _select(votes: pa.Table, columns: Sequence[str], out: str, *, strict: bool) -> pa.Table:
    missing = [name for name in columns if name not in votes.column_names]
    if missing and strict:
        raise UsageError(f"{out}: its votes have no column {missing[0]}")
    return votes.select([name for name in columns if name not in missing])
