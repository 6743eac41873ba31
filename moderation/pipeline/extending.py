"""One shard of an extension: the items of a run again, scored by detectors that the run lacks, beside its votes.

The bytes are those that the run judged, by their hash; an item whose content is another one now gets no votes. Rows
come out in the order of the run's parts, one per frame that it scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from moderation.config.model import Config
from moderation.errors import ItemError, UsageError
from moderation.pipeline.clock import Clock
from moderation.pipeline.counters import peak_memory_bytes
from moderation.pipeline.items import score_fetched
from moderation.pipeline.pools import Pools
from moderation.results.escalations import is_escalated
from moderation.results.extension_tables import (
    ExtensionRow,
    ExtensionVotes,
    extension_items_table,
    extension_votes_table,
)
from moderation.results.joined import read_joined
from moderation.results.layout import EXTENSION_ITEMS, VOTES
from moderation.results.reader import StoredRun
from moderation.results.receipts import Receipt, commit_shard
from moderation.results.tables import encode_table
from moderation.results.votes import adjacent_runs
from moderation.scoring.batching import Decoded
from moderation.scoring.extending import ExtendingStack, with_known
from moderation.scoring.votes import BatchVotes
from moderation.types import ErrorCode, Item, Kind, Media, Role, Shard

_PLACE = ("frame", "role", "parent")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedFrames:
    """The frames that a run scored of an item. votes: of the labels that conditions read, a mapping per frame.

    places: index, role and parent of each.
    """

    content_hash: str | None
    error_code: str | None
    frames: tuple[int, ...] = ()
    times_s: tuple[float | None, ...] = ()
    places: tuple[tuple[int, str, int | None], ...] = ()
    votes: tuple[Mapping[str, float], ...] = ()
    is_escalated: bool = False

    @property
    def extendable(self) -> bool:
        """Whether votes can be added: the run scored frames, nothing was escalated, and its content is the same."""
        return bool(self.frames) and not self.is_escalated and self.error_code != ErrorCode.CHANGED


_NOT_JUDGED: Final = JudgedFrames(content_hash=None, error_code=None)


def read_judged_frames(run: StoredRun, shard_id: str, labels: Sequence[str]) -> dict[str, JudgedFrames]:
    """What a run has of a shard's items, by item id, in the order of its verdicts. labels: votes that are needed.

    Raises UsageError where a part is not the committed one, StorageError.
    """
    verdicts = run.read_verdicts(shard_id, ["item_id", "status", "content_hash", "error_code"]).to_pylist()
    names = ("item_id", "time_s", *_PLACE, *labels)
    votes = read_joined(
        run.votes_out, shard_id, run.format, names, strict=False, extensions=run.extensions, with_changed=True
    )
    own = _by_item(votes, labels)
    return {
        row["item_id"]: replace(
            own.get(row["item_id"], _NOT_JUDGED),
            content_hash=row["content_hash"],
            error_code=row["error_code"],
            is_escalated=is_escalated(row),
        )
        for row in verdicts
    }


def _by_item(votes: pa.Table, labels: Sequence[str]) -> dict[str, JudgedFrames]:
    rows = votes.to_pylist()
    known = [label for label in labels if label in votes.column_names]
    runs = adjacent_runs(votes["item_id"].to_pylist())
    return {rows[own.start]["item_id"]: _judged_frames(rows[own], known) for own in runs}


def _judged_frames(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> JudgedFrames:
    return JudgedFrames(
        content_hash=None,
        error_code=None,
        frames=tuple(row["frame"] for row in rows),
        times_s=tuple(row["time_s"] for row in rows),
        # Votes of version 1 have neither role nor parent.
        places=tuple((row["frame"], row.get("role") or str(Role.FRAME), row.get("parent")) for row in rows),
        votes=tuple({label: row[label] for label in labels if row[label] is not None} for row in rows),
    )


def extend_items(
    items: Sequence[Item],
    judged: Mapping[str, JudgedFrames],
    *,
    config: Config,
    stack: ExtendingStack,
    pools: Pools,
    clock: Clock | None = None,
    poison: Mapping[str, ItemError] | None = None,
) -> Iterator[ExtensionRow]:
    """What becomes of each item, in their order, one row per item. judged: of the run. Writes nothing.

    Raises UsageError for a stack with an illegal list.
    """
    if stack.illegal:
        raise UsageError(
            "an illegal list cannot be added to a run that was judged without it, because what that run keeps of its"
            " matches would stay: judge the source again into a new OUT (docs/illegal.md)"
        )
    owns = [judged.get(item.item_id, _NOT_JUDGED) for item in items]
    wanted = [_unversioned(item) for item, own in zip(items, owns, strict=True) if own.extendable]
    scored = score_fetched(
        wanted,
        config=config,
        stack=stack,
        pools=pools,
        clock=clock or Clock(),
        poison=poison or {},
        changed=lambda decoded: _as_judged(decoded, judged[decoded.item.item_id]),
    )
    with closing(scored):
        for item, own in zip(items, owns, strict=True):
            if own.extendable:
                yield _row_of(*next(scored), own, stack)
            else:
                # What an earlier extension found to be changed stays so.
                code = ErrorCode.CHANGED if own.frames and not own.is_escalated else None
                yield ExtensionRow(item_id=item.item_id, frames=own.frames, times_s=own.times_s, error_code=code)


def _unversioned(item: Item) -> Item:
    """The item without the versions that were listed: the hash of its content decides whether it is the same."""
    return replace(item, objects=tuple(replace(source, etag=None) for source in item.objects))


def _as_judged(decoded: Decoded, judged: JudgedFrames) -> Decoded:
    """Decoded frames with the run's votes on them; without frames where they are not those that the run judged."""
    media = decoded.media
    if not media.frames:
        return decoded
    if decoded.content_hash is None and judged.content_hash is not None:
        # One of several pictures could not be read.
        code = media.error or ErrorCode.FETCH_FAILED
        return replace(decoded, media=Media(kind=media.kind, error=code, error_detail=media.error_detail))
    if judged.content_hash not in (None, decoded.content_hash):
        problem = f"its content is another one now: sha256 {decoded.content_hash}, judged was {judged.content_hash}"
        return replace(decoded, media=_without_frames(media.kind, problem))
    places = tuple((frame.index, str(frame.role), frame.parent) for frame in media.frames)
    if places != judged.places:
        if media.error is not None:
            # Some could not be decoded this time: that is no other content.
            return replace(decoded, media=replace(media, frames=()))
        problem = f"its frames are others now: {len(places)}, judged were {len(judged.places)}"
        return replace(decoded, media=_without_frames(media.kind, problem))
    frames = tuple(with_known(frame, known) for frame, known in zip(media.frames, judged.votes, strict=True))
    return replace(decoded, media=replace(media, frames=frames))


def _without_frames(kind: Kind, problem: str) -> Media:
    return Media(kind=kind, error=ErrorCode.CHANGED, error_detail=problem)


def _row_of(
    decoded: Decoded, scored: BatchVotes | ItemError | None, judged: JudgedFrames, stack: ExtendingStack
) -> ExtensionRow:
    row = ExtensionRow(
        item_id=decoded.item.item_id,
        frames=judged.frames,
        times_s=judged.times_s,
        content_hash=decoded.content_hash,
    )
    if isinstance(scored, ItemError):
        return replace(row, error_code=scored.code, error_detail=scored.detail)
    if scored is None:
        media = decoded.media
        return replace(row, error_code=media.error or ErrorCode.NO_FRAMES, error_detail=media.error_detail)
    kept = stack.kept_votes(scored)
    votes = ExtensionVotes(scores=kept.scores, regions=kept.regions, blobs=kept.blobs, embeddings=kept.embeddings)
    return replace(row, votes=votes)


def extend_shard(
    shard: Shard,
    *,
    run: StoredRun,
    home: str,
    config: Config,
    stack: ExtendingStack,
    metadata: Mapping[str, str],
    pools: Pools,
    poison: Mapping[str, ItemError] | None = None,
    extended: Callable[[], None] = lambda: None,
) -> Receipt:
    """Score a shard of a run by the detectors that it lacks, and commit what they say below `home`.

    metadata: of the parts. extended: called for each item. Raises ShardError (retried by the driver), FatalError.
    """
    clock = Clock()
    judged = read_judged_frames(run, shard.shard_id, stack.known_labels)
    rows = []
    for row in extend_items(
        shard.items, judged, config=config, stack=stack, pools=pools, clock=clock, poison=poison or {}
    ):
        rows.append(row)
        extended()
    # The rows of the votes are those of the run's part, whatever the order of the plan.
    by_id = {row.item_id: row for row in rows}
    ordered = [by_id[item_id] for item_id in judged if item_id in by_id]

    def encode() -> dict[str, pa.Table]:
        sizes, dims = stack.kept_blob_sizes(), stack.kept_embedding_dims()
        return {
            VOTES: extension_votes_table(ordered, stack.kept_labels, sizes, dims, metadata),
            EXTENSION_ITEMS: extension_items_table(rows, metadata),
        }

    tables = clock.timed("write", encode)
    return commit_shard(
        home,
        shard,
        parts={name: encode_table(table, config.output) for name, table in tables.items()},
        rows={name: table.num_rows for name, table in tables.items()},
        counted=EXTENSION_ITEMS,
        format_=config.output.format,
        facts={
            "counts": count_extended(rows, stack.kept_labels),
            "seconds": {step: round(s, 4) for step, s in clock.seconds.items()},
            "waits": {wait: round(s, 4) for wait, s in clock.waits.items()},
            "slowest": clock.slowest(),
            "bytes_read": clock.bytes_read,
            "peak_memory_bytes": peak_memory_bytes(),
        },
    )


def count_extended(rows: Sequence[ExtensionRow], labels: Sequence[str]) -> dict[str, int]:
    """Count the rows of a shard; `asked:<detector>`: frames on which it cast a vote."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[f"status:{'ok' if row.error_code is None else 'error'}"] += 1
        if row.error_code is not None:
            counts[f"error:{row.error_code}"] += 1
        if row.votes is None:
            continue
        counts["frames"] += len(row.frames)
        asked = (~np.isnan(row.votes.scores)).sum(axis=0).tolist()
        most: dict[str, int] = {}
        for label, frames in zip(labels, asked, strict=True):
            name = f"asked:{label.partition('.')[0]}"
            most[name] = max(frames, most.get(name, 0))
        counts.update(most)
    return dict(sorted(counts.items()))
