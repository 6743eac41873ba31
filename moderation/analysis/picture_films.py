"""The frames of videos and animations among the items that are searched for duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderation.hashes.film_pairs import FilmPairs, film_pairs
from moderation.hashes.films import make_films
from moderation.hashes.part_hashes import PartHashes, concatenate_parts, no_parts
from moderation.hashes.search import HASH_BYTES, I16, I64
from moderation.results.frame_hashes import frame_hashes
from moderation.types import U8, Kind, Status

_FILMS = (Kind.VIDEO.value, Kind.ANIMATION.value, Kind.KEYFRAMES.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmHashes:
    """Frames with a hash of items that move. item: int64 [F], ascending, their rows; hashes: uint8 [F,32].

    quality: int16 [F], 0..100; time_s: float64 [F]; parts: of F frames. About 160 bytes per frame.
    """

    item: I64
    hashes: U8
    quality: I16
    time_s: npt.NDArray[np.float64]
    parts: PartHashes

    @property
    def nbytes(self) -> int:
        """Their size."""
        return int(self.item.nbytes + self.hashes.nbytes + self.quality.nbytes + self.time_s.nbytes) + self.parts.nbytes


NO_FILMS = FilmHashes(
    item=np.empty(0, np.int64),
    hashes=np.empty((0, HASH_BYTES), np.uint8),
    quality=np.empty(0, np.int16),
    time_s=np.empty(0),
    parts=no_parts(0),
)


def read_films(verdicts: pa.Table, votes: pa.Table) -> FilmHashes:
    """The frames of the items of a part that move and were judged whole; several frames of an album are no film."""
    if "pdq.hash" not in votes.column_names or not len(votes) or not len(verdicts):
        return NO_FILMS
    moving = pc.and_(
        pc.is_in(verdicts["kind"], value_set=pa.array(_FILMS)),
        pc.fill_null(pc.equal(verdicts["status"], Status.OK.value), False),
    )
    rows = np.flatnonzero(np.asarray(moving))
    ids = verdicts["item_id"].take(pa.array(rows, pa.int64())).combine_chunks()
    places = np.asarray(pc.fill_null(pc.index_in(votes["item_id"], value_set=ids), -1)).astype(np.int64)
    frames = frame_hashes(votes).within_bars()
    kept = np.flatnonzero((places >= 0) & (frames.quality >= 0))
    if not len(kept):
        return NO_FILMS
    item = rows[places[kept]]
    time_s = votes["time_s"].to_numpy().astype(np.float64)[kept]
    # Frames of a second picture track follow those of the first.
    order = np.argsort(item, kind="stable")
    frames = frames.take(kept[order])
    return FilmHashes(
        item=item[order],
        hashes=frames.hashes,
        quality=frames.quality,
        time_s=time_s[order],
        parts=frames.parts,
    )


def concatenate_films(parts: Sequence[FilmHashes], sizes: Sequence[int]) -> FilmHashes:
    """The frames of several parts. sizes: items of each."""
    starts: I64 = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    return FilmHashes(
        item=np.concatenate([part.item + start for part, start in zip(parts, starts, strict=True)]),
        hashes=np.concatenate([part.hashes for part in parts]),
        quality=np.concatenate([part.quality for part in parts]),
        time_s=np.concatenate([part.time_s for part in parts]),
        parts=concatenate_parts([part.parts for part in parts]),
    )


def usable_films(films: FilmHashes, quality: int) -> I64:
    """int64: the items with a frame of enough content; one with a single frame is compared as a picture."""
    several = np.bincount(films.item, minlength=1) > 1
    items = np.unique(films.item[films.quality >= quality])
    return items[several[items]]


def pairs_of_films(films: FilmHashes, node_of: I64, quality: int, distance: int) -> FilmPairs:
    """The pairs of copies. node_of: int64, the number under which an item is compared, -1: it is not."""
    node = node_of[films.item]
    kept = np.flatnonzero((films.quality >= quality) & (node >= 0))
    kept = kept[np.argsort(node[kept], kind="stable")]
    made = make_films(node[kept], films.hashes[kept], films.time_s[kept], films.parts.take(kept))
    return film_pairs(made, distance)
