"""Receipts of actions: OUT/actions/part-<number>-<16 hex>.arrow, appended only, one writer at a time.

Before an object is changed, a row of state `intended` says what will be done and what was there before; after it, a row
of state `done`, `refused` or `failed` says what came of it. The newest row of a key counts. What was killed in between
is done again, and knows from its intention what to give back on undo.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc

from moderation import storage
from moderation.errors import FatalError
from moderation.results.after_layout import actions_folder, actions_part_uri
from moderation.results.tables import reading_table
from moderation.version import SCHEMA_VERSION

_NAME: Final = re.compile(r"part-([0-9]{8})-[0-9a-f]{16}\.arrow")
_READERS: Final = 16


class ActionState(StrEnum):
    """What is known of an action on an object."""

    INTENDED = "intended"
    DONE = "done"
    REFUSED = "refused"  # nothing was changed, for the reason in `code`
    FAILED = "failed"  # it may be tried again
    UNDONE = "undone"


RECEIPT_SCHEMA: Final = pa.schema(
    [
        ("run_id", pa.string()),
        ("item_id", pa.string()),
        ("action", pa.string()),
        ("uri", pa.string()),
        ("do", pa.string()),
        ("state", pa.string()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("target", pa.string()),
        ("etag", pa.string()),
        ("target_etag", pa.string()),
        ("tags_before", pa.map_(pa.string(), pa.string())),
        ("tags_set", pa.map_(pa.string(), pa.string())),
        ("attempts", pa.int32()),
        ("at", pa.timestamp("us", "UTC")),
    ],
    metadata={"moderation.table": "actions", "moderation.schema_version": SCHEMA_VERSION},
)
ReceiptKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionReceipt:
    """One row. target: the copy, the manifest or the address. tags_before: of the names that were set.

    code: why it was refused or failed. etag: of the object as it was judged; target_etag: of the copy.
    """

    run_id: str
    item_id: str
    action: str
    uri: str
    do: str
    state: ActionState
    at: datetime
    code: str | None = None
    detail: str | None = None
    target: str | None = None
    etag: str | None = None
    target_etag: str | None = None
    tags_before: Mapping[str, str] = field(default_factory=dict)
    tags_set: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0

    @property
    def key(self) -> ReceiptKey:
        """Run, item, action, object: what is done once."""
        return self.run_id, self.item_id, self.action, self.uri

    @property
    def may_be_there(self) -> bool:
        """Whether it may have had its effect; a failure on a known version was one of doing, not of looking."""
        if self.state is ActionState.FAILED:
            return self.etag is not None
        return self.state in (ActionState.DONE, ActionState.INTENDED)

    def says(self) -> tuple[object, ...]:
        """All but the time and the number of attempts."""
        return (self.state, self.code, self.target, self.etag, self.target_etag)


def is_open(receipt: ActionReceipt | None, again: bool) -> bool:
    """Whether a step is still to do: what was undone only where it is asked for again."""
    if receipt is None:
        return True
    return receipt.state is not ActionState.DONE and (again or receipt.state is not ActionState.UNDONE)


class ActionJournal:
    """The receipts of an OUT in memory, newest row per key, and the only way to write more."""

    def __init__(self, out: str) -> None:
        """Read all parts. Raises FatalError for a damaged one, StorageError."""
        self._out = out
        names = sorted(name for name in storage.list_names(actions_folder(out)) if _NAME.fullmatch(name))
        self._next = 1 + max((int(name[5:13]) for name in names), default=-1)
        self._newest: dict[ReceiptKey, ActionReceipt] = {}
        self._undone: Counter[ReceiptKey] = Counter()
        with ThreadPoolExecutor(_READERS) as pool:
            for receipts in pool.map(self._read, names):
                self._keep(receipts)

    def newest(self, key: ReceiptKey) -> ActionReceipt | None:
        """The last that is known of a key."""
        return self._newest.get(key)

    def times_undone(self, key: ReceiptKey) -> int:
        """How often it was taken back so far."""
        return self._undone[key]

    def all_newest(self) -> list[ActionReceipt]:
        """The last that is known of every key."""
        return list(self._newest.values())

    def append(self, receipts: Iterable[ActionReceipt]) -> None:
        """Write what says something new; when this returns it is on disk."""
        fresh = [receipt for receipt in receipts if self._is_news(receipt)]
        if not fresh:
            return
        data = encode_receipts(fresh)
        name = f"part-{self._next:08d}-{hashlib.sha256(data).hexdigest()[:16]}.arrow"
        storage.publish(actions_part_uri(self._out, name), data)
        self._next += 1
        self._keep(fresh)

    def _keep(self, receipts: Sequence[ActionReceipt]) -> None:
        self._newest.update((receipt.key, receipt) for receipt in receipts)
        self._undone.update(receipt.key for receipt in receipts if receipt.state is ActionState.UNDONE)

    def _is_news(self, receipt: ActionReceipt) -> bool:
        known = self._newest.get(receipt.key)
        return known is None or known.says() != receipt.says()

    def _read(self, name: str) -> list[ActionReceipt]:
        uri = actions_part_uri(self._out, name)
        data = storage.read_bytes(uri)
        if hashlib.sha256(data).hexdigest()[:16] != name[14:30]:
            raise FatalError(f"{uri}: was changed: its bytes are not those that its name says")
        return decode_receipts(data, uri)


def encode_receipts(receipts: Sequence[ActionReceipt]) -> bytes:
    """Receipts as an Arrow file."""
    rows = [_receipt_cells(receipt) for receipt in receipts]
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, RECEIPT_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=RECEIPT_SCHEMA))
    return sink.getvalue()


def decode_receipts(data: bytes, where: str) -> list[ActionReceipt]:
    """The inverse of `encode_receipts`. Raises FatalError naming `where`."""
    with reading_table(where):
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    try:
        return [_receipt(cells) for cells in table.to_pylist()]
    except (KeyError, TypeError, ValueError) as error:
        raise FatalError(f"{where}: is not readable as receipts of actions") from error


def _receipt_cells(receipt: ActionReceipt) -> dict[str, Any]:
    cells = asdict(receipt)
    cells["state"] = str(receipt.state)
    for name in ("tags_before", "tags_set"):
        cells[name] = sorted(cells[name].items())
    return cells


def _receipt(cells: Mapping[str, Any]) -> ActionReceipt:
    maps = {name: dict(cells[name] or ()) for name in ("tags_before", "tags_set")}
    return ActionReceipt(**{**cells, **maps, "state": ActionState(cells["state"])})
