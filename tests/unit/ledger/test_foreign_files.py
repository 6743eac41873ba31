"""A ledger's folder is shared: a foreign file gives an error message, never a traceback, and deletes nothing."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.errors import FatalError
from moderation.ledger.index import Provenance, load_index
from moderation.ledger.listing import read_listing
from moderation.ledger.rows import LEDGER_SCHEMA
from moderation.ledger.store import open_log
from moderation.runtime.night_run import _read_unfinished

FACTS = Provenance(source="s", stack_fingerprint="f", policy_hash="p")
FILE = {"name": "entries/n/00000.parquet", "rows": 1}


def put(ledger: Path, name: str, data: bytes) -> None:
    (ledger / name).parent.mkdir(parents=True, exist_ok=True)
    (ledger / name).write_bytes(data)


@pytest.mark.parametrize(
    "head",
    [
        [],
        {},
        {"generation": "1", "snapshot": [], "compacted": []},
        {"generation": 1, "snapshot": {}, "compacted": []},
        {"generation": 1, "snapshot": [], "compacted": "all"},
        {"generation": 1, "snapshot": [], "compacted": ["../../out"]},
        {"generation": 1, "snapshot": [{"name": "../secret.parquet", "rows": 1}], "compacted": []},
        {"generation": 1, "snapshot": [{"name": "snapshots/000001/00000.parquet", "rows": 1e9}], "compacted": []},
        {"generation": 1, "snapshot": [{"name": "snapshots/000001/00000.parquet", "rows": 2**40}], "compacted": []},
        {"generation": 1, "snapshot": ["snapshots/000001/00000.parquet"], "compacted": []},
    ],
)
def test_a_head_of_strange_types_is_a_sentence(tmp_path: Path, head: object) -> None:
    put(tmp_path, "head.json", json.dumps(head).encode())
    with pytest.raises(FatalError, match=r"head\.json is not readable"):
        open_log(str(tmp_path))


@pytest.mark.parametrize("entry", [[], {"files": 3}, {"files": [3]}, {"files": [{"name": 1, "rows": 2}]}])
def test_an_entry_of_strange_types_is_a_sentence(tmp_path: Path, entry: object) -> None:
    put(tmp_path, "entries/n.json", json.dumps(entry).encode())
    with pytest.raises(FatalError, match=r"entries/n\.json is not readable"):
        open_log(str(tmp_path))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


ROW = {f.name: [None] for f in LEDGER_SCHEMA}
TABLES = {
    "gone": None,
    "no parquet": b"PAR1 not",
    "other columns": parquet(pa.table({"key": [b"1"]})),
    "another type": parquet(pa.table({f.name: pa.array(["x"]) for f in LEDGER_SCHEMA})),
    "another number of rows": parquet(LEDGER_SCHEMA.empty_table()),
    "no key": parquet(pa.table(ROW, schema=LEDGER_SCHEMA)),
}


@pytest.mark.parametrize("what", list(TABLES))
def test_a_file_of_rows_that_is_none_is_a_sentence(tmp_path: Path, what: str) -> None:
    put(tmp_path, "entries/n.json", json.dumps({"files": [FILE]}).encode())
    data = TABLES[what]
    if data is not None:
        put(tmp_path, "entries/n/00000.parquet", data)
    with pytest.raises(FatalError, match=r"entries/n/00000\.parquet is not readable"):
        load_index(open_log(str(tmp_path)), FACTS)


@pytest.mark.parametrize(
    "night", ["../../elsewhere", "20261122-021500", "20261322-021500-0e9c0f", "99991231-000000-0e9c0f", 7, None]
)
def test_an_unfinished_night_that_is_none_is_a_sentence(tmp_path: Path, night: object) -> None:
    uri = storage.join(str(tmp_path), "unfinished.json")
    storage.publish(uri, json.dumps({"night": night, "out": "o"}).encode())
    with pytest.raises(FatalError, match="delete it to begin a new night"):
        _read_unfinished(uri, {"out": "o"})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"copy_chunks": "2", "counts": {}}', '{"copy_chunks": 1, "counts": 2}']
)
def test_a_listing_that_is_none_is_a_sentence(tmp_path: Path, text: str) -> None:
    put(tmp_path, "night/listing.json", text.encode())
    with pytest.raises(FatalError, match=r"listing\.json is not readable"):
        read_listing(str(tmp_path))
    put(tmp_path, "night/listing.json", b'{"copy_chunks": 1, "counts": {"new": 2}}')
    listing = read_listing(str(tmp_path))
    assert listing is not None
    assert Counter(listing.counts) == Counter(new=2)
