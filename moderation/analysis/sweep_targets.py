"""The items that a sweep starts from: what was decided of them, and the hashes and embeddings that their runs kept."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from moderation.analysis.sweep_sources import SweepSources
from moderation.analysis.sweep_tables import ROW, StoredPart
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.hashes.part_hashes import PartHashes, no_parts
from moderation.labels.decisions import ContentKey, Decision
from moderation.labels.effective import effective_decisions
from moderation.ledger.parts import find_in_ledger
from moderation.pages.text import plain
from moderation.results.find_item import find_item
from moderation.results.reader import StoredRun
from moderation.types import F32, U8, Kind

MAX_TARGETS: Final = 1000
EMBEDDING_SUFFIX: Final = ".embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTarget:
    """An item that was decided, as plain data.

    verdict: `block`, `pass`, `none`: what was decided was taken back; `held`: see `sweep_by_decision`.
    cause: `decision` or `appeal`. entry: the decision's id, or the item's where the caller decided.
    hashes: 64 hexadecimal digits, of its frames; qualities: 0..100, -1 without a hash; parts: 192 digits of each, see
    `part_hashes`. frames: how many it has. embedding: float32, base64, of its only frame, by `detector`.
    """

    item_id: str
    uri: str
    run: str
    verdict: str
    cause: str
    entry: str
    content_hash: str | None
    hashes: tuple[str, ...]
    qualities: tuple[int, ...]
    times_s: tuple[float | None, ...]
    frames: int
    is_film: bool
    detector: str | None = None
    embedding: str | None = None
    parts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The target as plain data."""
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> SweepTarget:
        """The inverse of `as_json`."""
        lists = {name: tuple(record[name]) for name in ("hashes", "qualities", "times_s", "parts")}
        return SweepTarget(**{**record, **lists})

    def hash_rows(self, least_quality: int) -> U8:
        """uint8 [n,32]: the hashes of its frames with enough content."""
        good = [h for h, q in zip(self.hashes, self.qualities, strict=True) if q >= least_quality]
        return np.frombuffer(bytes.fromhex("".join(good)), np.uint8).reshape(-1, 32)

    def part_rows(self, least_quality: int) -> PartHashes:
        """Of the same frames as `hash_rows`."""
        if not self.parts:
            return no_parts(len(self.hash_rows(least_quality)))
        good = [p for p, q in zip(self.parts, self.qualities, strict=True) if q >= least_quality]
        rows = np.frombuffer(bytes.fromhex("".join(good)), np.uint8).reshape(-1, 3, 32)
        return PartHashes(inner=rows[:, 0], quarters=rows[:, 1], edges=rows[:, 2])

    def vector(self) -> F32 | None:
        """float32 [D], of length 1; None where its run kept none."""
        if self.embedding is None:
            return None
        vector = np.frombuffer(base64.b64decode(self.embedding), np.float32)
        length = float(np.linalg.norm(vector))
        return vector / np.float32(length) if np.isfinite(length) and length > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundItem:
    """Where an item was judged. run: index of the run."""

    run: int
    shard_id: str
    item_id: str
    uri: str


def find_targets(
    sources: SweepSources, wanted: Sequence[str], verdict: str | None, *, embedding: str | None
) -> list[SweepTarget]:
    """The items that `wanted` names (id, URI, or the end of it), with what was decided of them.

    verdict: what the caller decides of all of them; None: what reviewers have decided, in any of the runs.
    embedding: the detector whose kept embeddings are used; `auto`: one that was kept; None: no embeddings.
    Raises UsageError where an item is not there, or nobody decided, or what was decided has no effect on others.
    """
    names = list(dict.fromkeys(wanted))
    if len(names) > MAX_TARGETS:
        raise UsageError(f"--decision: {len(names):,} items, {MAX_TARGETS:,} at most in one call")
    found = [_find(sources, name) for name in names]
    holding = {} if verdict is not None else effective_decisions([run.out for run in sources.runs])
    targets = []
    for place in found:
        run = sources.runs[place.run]
        if verdict is not None:
            said, cause, entry = verdict, "decision", place.item_id
        else:
            decision = _decision_of(run, place, holding)
            said, entry = decision.decision.value, decision.decision_id
            cause = "appeal" if decision.source == "appeal" else "decision"
        targets.append(read_target(run, place, verdict=said, cause=cause, entry=entry, embedding=embedding))
    return targets


def _find(sources: SweepSources, wanted: str) -> FoundItem:
    places: list[FoundItem] = []
    index = {run.out: place for place, run in enumerate(sources.runs)}
    for ledger in sources.ledgers:
        for item in find_in_ledger(ledger, wanted):
            if item.run_out in index:
                at = FoundItem(run=index[item.run_out], shard_id=item.part, item_id=item.item_id, uri=item.uri)
                places.append(at)
    if not places:
        places = _find_in_runs(sources, wanted)
    distinct = {(place.item_id, place.uri): place for place in places}
    if len(distinct) > 1:
        shown = "\n".join(f"  {plain(place.item_id)}  {plain(place.uri)}" for place in list(distinct.values())[:5])
        raise UsageError(f"--decision: {len(distinct):,} items are meant by {plain(wanted)!r}, such as\n{shown}")
    if not distinct:
        raise UsageError(f"--decision: no item {plain(wanted)!r} in what is swept")
    return _last_known(sources, places)


def _last_known(sources: SweepSources, places: Sequence[FoundItem]) -> FoundItem:
    """The last place of an item where its content is known: a night that could not fetch it says nothing of it."""
    for place in reversed(places) if len(places) > 1 else ():
        part = StoredPart(sources.runs[place.run], place.shard_id, {place.item_id}, columns=ROW)
        if len(part) and part.contents[0]:
            return place
    return places[-1]


def _find_in_runs(sources: SweepSources, wanted: str) -> list[FoundItem]:
    """The item in each run that has it; the newest run is the last and wins."""
    places, hints = [], []
    for place, run in enumerate(sources.runs):
        if not run.shard_ids:
            continue  # known by the ledger alone
        try:
            item = find_item(run, wanted)
        except UsageError as error:
            if "items are meant" in str(error):
                raise
            hints.append(str(error))
            continue
        places.append((item.rank, FoundItem(run=place, shard_id=item.shard_id, item_id=item.item_id, uri=item.uri)))
    if not places and hints:
        raise UsageError(f"--decision: {hints[0]}")
    best = min((rank for rank, _ in places), default=0)
    return [place for rank, place in places if rank == best]


def _decision_of(run: StoredRun, place: FoundItem, holding: Mapping[ContentKey, Decision]) -> Decision:
    """The decision that holds for what lies there. Raises UsageError where there is none, or it saw other content."""
    shown = f"--decision {plain(place.item_id)}"
    advice = "--as block or --as pass decides"
    part = StoredPart(run, place.shard_id, {place.item_id}, columns=ROW)
    content = part.contents[0] if len(part) else None
    decision = holding.get((place.item_id, content)) or holding.get((place.item_id, None))
    if decision is not None:
        return decision
    ids = list(dict.fromkeys(item_id for item_id, _ in holding))
    if place.item_id in ids:
        raise UsageError(f"{shown}: what was decided is other content than {run.out} has of it; {advice} this one")
    hint = did_you_mean(place.item_id, ids[:1000], otherwise="decided are", cutoff=0.8)
    raise UsageError(f"{shown}: nobody has decided it{hint}; {advice} it here")


def read_target(
    run: StoredRun, place: FoundItem, *, verdict: str, cause: str, entry: str, embedding: str | None
) -> SweepTarget:
    """An item with its hashes, and its embedding where one is asked for and was kept."""
    detector = _detector(run, place.shard_id, embedding)
    part = StoredPart(run, place.shard_id, {place.item_id}, columns=ROW, embedding=detector)
    if not len(part):
        raise UsageError(f"{run.out}: item {plain(place.item_id)} is not in its part any more")
    frames, count = part.frames, int(part.frames.counts[0])
    kind = part.column("kind")[0]
    vector = _embedding_of(part, detector) if count == 1 else None
    return SweepTarget(
        item_id=place.item_id,
        uri=place.uri,
        run=run.out,
        verdict=verdict,
        cause=cause,
        entry=entry,
        content_hash=part.contents[0],
        hashes=tuple(row.tobytes().hex() for row in frames.hashes),
        qualities=tuple(frames.quality.tolist()),
        times_s=tuple(None if np.isnan(t) else t for t in frames.time_s.tolist()),
        frames=count,
        is_film=count > 1 and kind != Kind.ALBUM,
        detector=detector if vector is not None else None,
        embedding=vector,
        parts=tuple(map(_hex, frames.parts.inner, frames.parts.quarters, frames.parts.edges)),
    )


def _hex(*hashes: U8) -> str:
    return "".join(row.tobytes().hex() for row in hashes)


def _detector(run: StoredRun, shard_id: str, embedding: str | None) -> str | None:
    """The detector whose embeddings the run kept, if asked for. Raises UsageError for a named one that kept none."""
    if embedding is None:
        return None
    names = [name for name in run.read_votes(shard_id).column_names if name.endswith(EMBEDDING_SUFFIX)]
    kept = [name.removesuffix(EMBEDDING_SUFFIX) for name in names]
    if embedding == "auto":
        return kept[0] if kept else None
    if embedding not in kept:
        advice = did_you_mean(embedding, kept, otherwise="it kept those of", cutoff=0.5) if kept else "; it kept none"
        raise UsageError(f"--embedding {embedding}: {run.out} kept no such embeddings{advice}")
    return embedding


def _embedding_of(part: StoredPart, detector: str | None) -> str | None:
    if detector is None:
        return None
    rows = part.hashed.filter(np.asarray(part.owners) >= 0)
    value = rows[f"{detector}{EMBEDDING_SUFFIX}"][0].as_py() if len(rows) else None
    return None if value is None else base64.b64encode(np.array(value, np.float32).tobytes()).decode()
