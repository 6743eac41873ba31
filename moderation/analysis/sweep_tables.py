"""A stored part as a sweep reads it: rows of the items that count, votes only where they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.hashes.part_hashes import PartHashes
from moderation.hashes.search import I16, I64
from moderation.results.frame_hashes import HASH_COLUMNS, frame_hashes, no_hashes, own_frames
from moderation.results.judged import JUDGED_BY
from moderation.results.layout import VERDICTS, VOTES
from moderation.results.reader import StoredRun
from moderation.results.votes import OF_FRAMES
from moderation.types import U8

ROW: Final = ("item_id", "uri", "verdict", "status", "reason", "etag", "content_hash", "kind")
# What judging by a policy takes besides; attributes only where it asks for facts of items.
JUDGING: Final = tuple(dict.fromkeys((*ROW, *(name for name in JUDGED_BY if name not in ("attributes", "pdq")))))
FACTS: Final = tuple(dict.fromkeys((*ROW, *JUDGED_BY)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFrames:
    """The frames of a part with a usable hash. item: int64 [F], row of the item; hashes: uint8 [F,32]; quality: int16.

    time_s: float64 [F]; parts: of F frames. counts: int64 [N], frames of each item, usable or not.
    """

    item: I64
    hashes: U8
    quality: I16
    time_s: np.ndarray
    parts: PartHashes
    counts: I64


class StoredPart:
    """One part. verdicts: its rows that count, N of them."""

    def __init__(
        self,
        run: StoredRun,
        shard_id: str,
        wanted: Collection[str] | None = None,
        *,
        columns: Sequence[str] = FACTS,
        embedding: str | None = None,
    ) -> None:
        """Read the rows. wanted: ids of the items that count; None: all. columns: ROW, JUDGING or FACTS.

        embedding: the detector whose kept embeddings are asked for. Raises PartMissingError, PartChangedError.
        """
        self.run = run
        self.shard_id = shard_id
        self._embedding = embedding
        table = run.read_present(VERDICTS, shard_id, columns)
        if wanted is not None and len(wanted) < len(table):
            table = table.filter(pc.is_in(table["item_id"], value_set=pa.array(list(wanted), pa.string())))
        self.verdicts = table

    def __len__(self) -> int:
        return len(self.verdicts)

    def votes(self, columns: Sequence[str]) -> pa.Table:
        """The votes of the part, of those columns that it has; also of items that do not count."""
        return self.run.read_present(VOTES, self.shard_id, tuple(dict.fromkeys(columns)))

    @cached_property
    def item_ids(self) -> pa.Array:
        """The ids of the rows."""
        column = self.verdicts["item_id"].combine_chunks()
        return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column

    @cached_property
    def contents(self) -> list[str | None]:
        """sha256 of each row's content, in hexadecimal."""
        listed: list[str | None] = self.column("content_hash")
        return listed

    def column(self, name: str) -> list[str | None]:
        """A column of the rows; nulls where the table is older than it."""
        if name not in self.verdicts.column_names:
            return [None] * len(self)
        listed: list[str | None] = self.verdicts[name].to_pylist()
        return listed

    @cached_property
    def hashed(self) -> pa.Table:
        """The rows of frames with their hashes, and embeddings where asked for; without tiles."""
        embedded = [] if self._embedding is None else [f"{self._embedding}.embedding"]
        return own_frames(self.votes(("item_id", "role", "time_s", *HASH_COLUMNS, *embedded)))

    @cached_property
    def owners(self) -> I64:
        """int64 [rows of `hashed`]: the row of each frame's item; -1: of an item that does not count."""
        places = pc.index_in(self.hashed["item_id"], value_set=self.item_ids)
        return np.asarray(pc.fill_null(places, -1)).astype(np.int64)

    @cached_property
    def frames(self) -> StoredFrames:
        """The frames with a hash; none where the run had no `pdq`."""
        table = self.hashed
        owner = self.owners
        counts = np.bincount(owner[owner >= 0], minlength=len(self)).astype(np.int64)
        stored, kept = no_hashes(0), np.empty(0, np.int64)
        if "pdq.hash" in table.column_names and "pdq.quality" in table.column_names and len(table):
            every = frame_hashes(table)
            kept = np.flatnonzero((owner >= 0) & (every.quality >= 0))
            stored = every.take(kept)
        return StoredFrames(
            item=owner[kept],
            hashes=stored.hashes,
            quality=stored.quality,
            time_s=table["time_s"].to_numpy().astype(np.float64)[kept] if len(kept) else np.empty(0),
            parts=stored.parts,
            counts=counts,
        )


def judging_columns(labels: Sequence[str], *, with_lists: bool) -> tuple[str, ...]:
    """The columns of the votes that judging by a policy takes. with_lists: also hashes, and who is in a picture."""
    frames = OF_FRAMES if with_lists else ("item_id", "frame", "time_s", "role", "parent", "box")
    return (*frames, *labels)
