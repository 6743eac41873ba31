"""Copies of some items among the items of a stored part: the same bytes, near hashes, videos, embeddings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np

from moderation.analysis.sweep_tables import StoredFrames, StoredPart
from moderation.analysis.sweep_targets import EMBEDDING_SUFFIX, SweepTarget
from moderation.hashes.films import FilmFrames, compare_films, film_of
from moderation.hashes.nearest import KnownHashes
from moderation.hashes.part_hashes import concatenate_parts, search_sets
from moderation.hashes.search import I64
from moderation.types import F32, U8


class Copy(NamedTuple):
    """A row that is a copy of a decided item.

    relation: self, exact, pdq, video, embedding; frame: the picture is one of several frames; undone: an earlier sweep
    acted on it. distance: bits, or of an embedding 1 - cosine. share_of_target: of a video, how much of it is there.
    """

    row: int
    target: SweepTarget
    relation: str
    distance: float | None
    share_of_target: float = 0.0


# Of several relations to a row the first counts.
_ORDER: Final = ("self", "exact", "pdq", "video", "embedding", "frame", "undone")


class CopyBounds(Protocol):
    """What counts as a copy; see `sweep_by_decision.CopyLimits`."""

    @property
    def distance(self) -> int:
        """Bits in which hashes may differ."""
        ...

    @property
    def quality(self) -> int:
        """Least quality of a hash, 0..100."""
        ...

    @property
    def similarity(self) -> float:
        """Least cosine."""
        ...

    @property
    def confirm(self) -> int:
        """Bits in which the hashes of a pair by embedding may differ."""
        ...


class CopyFinder:
    """Finds copies of some items, part by part."""

    def __init__(self, targets: Sequence[SweepTarget], limits: CopyBounds) -> None:
        self._limits = limits
        self._targets = targets
        self._by_content = {t.content_hash: t for t in targets if t.content_hash}
        self._by_place = {(t.item_id, t.uri): t for t in targets}
        films = [t for t in targets if t.is_film]
        self._pictures = _TargetHashes([t for t in targets if t.frames == 1], limits.quality)
        self._films = [(t, _frames_of(t, limits.quality)) for t in films]
        self._searches = _searches(films, limits.quality)
        self._vectors = _vectors_of(targets)

    def find(self, part: StoredPart) -> Iterator[Copy]:
        """The copies in a part, each row once, by its strongest relation; by row."""
        if not self._targets:
            return
        best: dict[int, Copy] = {}
        for copy in (*self._same(part), *self._near(part), *self._videos(part), *self._alike(part)):
            if copy.row not in best or _strength(copy) < _strength(best[copy.row]):
                best[copy.row] = copy
        yield from (best[row] for row in sorted(best))

    def _same(self, part: StoredPart) -> Iterator[Copy]:
        for row, content in enumerate(part.contents):
            target = self._by_content.get(content) if content else None
            if target is not None:
                yield Copy(row, target, "exact", 0.0)
        places = zip(part.item_ids.to_pylist(), part.column("uri"), strict=True)
        for row, (item_id, uri) in enumerate(places):
            target = self._by_place.get((item_id, uri or ""))
            # Another content may lie at the same place by now.
            if target is not None and _may_be_same(target.content_hash, part.contents[row]):
                yield Copy(row, target, "self", 0.0)

    def _near(self, part: StoredPart) -> Iterator[Copy]:
        if not self._pictures.targets:
            return
        frames = part.frames
        usable = np.flatnonzero(frames.quality >= self._limits.quality)
        framed = usable[frames.parts.inner[usable].any(axis=1)]
        asked = np.append(usable, framed)  # with bars, and without
        queries = np.concatenate([frames.hashes[usable], frames.parts.inner[framed]])
        entry, bits = self._pictures.known.nearest(queries, self._limits.distance)
        for at in np.flatnonzero(entry >= 0).tolist():
            row = int(frames.item[asked[at]])
            relation = "pdq" if frames.counts[row] == 1 else "frame"
            yield Copy(row, self._pictures.targets[int(entry[at])], relation, float(bits[at]))

    def _videos(self, part: StoredPart) -> Iterator[Copy]:
        if not self._films:
            return
        frames = part.frames
        usable = np.flatnonzero((frames.quality >= self._limits.quality) & (frames.counts[frames.item] > 1))
        for row in self._candidates(frames, usable):
            own = usable[frames.item[usable] == row]
            film = film_of(frames.hashes[own], frames.time_s[own], frames.parts.take(own))
            for target, theirs in self._films:
                match = compare_films(theirs, film, self._limits.distance)
                if match.is_copy:
                    yield Copy(row, target, "video", None, match.share_left)

    def _candidates(self, frames: StoredFrames, usable: I64) -> list[int]:
        """Rows of films with a frame that is near one of a decided film: whole, within bars, or by its parts."""
        near: set[int] = set()
        for kind, searched in search_sets(frames.hashes[usable], frames.parts.take(usable)).items():
            known = self._searches.get(kind)
            if known is not None:
                entry, _ = known.nearest(searched.hashes, self._limits.distance)
                near.update(frames.item[usable[searched.row[entry >= 0]]].tolist())
        return sorted(near)

    def _alike(self, part: StoredPart) -> Iterator[Copy]:
        by_detector: defaultdict[str, list[tuple[SweepTarget, F32, U8]]] = defaultdict(list)
        for target, vector, hashes in self._vectors:
            by_detector[str(target.detector)].append((target, vector, hashes))
        for detector, known in by_detector.items():
            rows, vectors = _vectors(part, f"{detector}{EMBEDDING_SUFFIX}")
            if not len(rows):
                continue
            hash_of = {int(item): at for at, item in enumerate(part.frames.item.tolist())}
            for target, vector, hashes in known:
                if vectors.shape[1] != len(vector):
                    continue
                cosine = vectors @ vector
                for at in np.flatnonzero(cosine >= self._limits.similarity).tolist():
                    row = int(rows[at])
                    if self._is_confirmed(part, hash_of.get(row), hashes):
                        yield Copy(row, target, "embedding", max(0.0, 1 - float(cosine[at])))

    def _is_confirmed(self, part: StoredPart, at: int | None, hashes: U8) -> bool:
        """Whether the hashes of such a pair agree more than those of unrelated pictures do."""
        if at is None or not len(hashes):
            return False
        bits = int(np.bitwise_count(part.frames.hashes[at] ^ hashes[0]).sum())
        return bits <= self._limits.confirm


def _vectors_of(targets: Sequence[SweepTarget]) -> list[tuple[SweepTarget, F32, U8]]:
    """The targets with an embedding, and their hashes."""
    return [(t, vector, t.hash_rows(0)) for t in targets if (vector := t.vector()) is not None]


class _TargetHashes:
    """The hashes of some targets. targets: of each hash, so that one with many frames stands there as often."""

    def __init__(self, targets: Sequence[SweepTarget], quality: int) -> None:
        rows = [(target, row) for target in targets for row in _rows_of(target, quality)]
        self.targets = [target for target, _ in rows]
        self.known = KnownHashes(np.array([row for _, row in rows], np.uint8).reshape(-1, 32))


def _rows_of(target: SweepTarget, quality: int) -> U8:
    """Its hashes, with and without bars."""
    inner = target.part_rows(quality).inner
    return np.concatenate([target.hash_rows(quality), inner[inner.any(axis=1)]])


def _searches(films: Sequence[SweepTarget], quality: int) -> dict[str, KnownHashes]:
    """What is searched for frames of decided films, kind by kind."""
    if not films:
        return {}
    hashes = np.concatenate([t.hash_rows(quality) for t in films])
    parts = concatenate_parts([t.part_rows(quality) for t in films])
    return {kind: KnownHashes(searched.hashes) for kind, searched in search_sets(hashes, parts).items()}


def _may_be_same(content: str | None, other: str | None) -> bool:
    return not content or not other or content == other


def _strength(copy: Copy) -> tuple[int, float, float]:
    distance = 0.0 if copy.distance is None else copy.distance
    return _ORDER.index(copy.relation), -copy.share_of_target, distance


def _frames_of(target: SweepTarget, quality: int) -> FilmFrames:
    rows = target.hash_rows(quality)
    times = [t for t, q in zip(target.times_s, target.qualities, strict=True) if q >= quality]
    time_s = np.array([np.nan if t is None else t for t in times], np.float64)
    return film_of(rows, time_s, target.part_rows(quality))


def _vectors(part: StoredPart, column: str) -> tuple[I64, F32]:
    """(rows of items with one frame and an embedding, float32 [n,D], of length 1)."""
    table = part.hashed
    if column not in table.column_names or not len(table):
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    owners = part.owners
    valid = np.asarray(table[column].is_valid())
    kept = np.flatnonzero(valid & (owners >= 0) & (part.frames.counts[np.maximum(owners, 0)] == 1))
    flat = table[column].take(kept).combine_chunks()
    flat = flat.chunk(0) if hasattr(flat, "chunks") else flat
    vectors = flat.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(kept), -1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return owners[kept], vectors / np.maximum(length, 1e-12)
