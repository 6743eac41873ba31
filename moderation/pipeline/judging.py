"""An item with its votes -> its verdict row."""

from __future__ import annotations

from collections.abc import Sequence

from moderation.errors import ItemError
from moderation.pipeline.escalating import escalate
from moderation.policy.bind import BoundPolicy
from moderation.policy.judge import judge_item
from moderation.results.tables import ItemRow
from moderation.scoring.batching import Decoded
from moderation.scoring.votes import BatchVotes
from moderation.types import ErrorCode, ItemFacts, ItemVotes, Media, Role, Seen, Status


def judge_decoded(
    decoded: Decoded, scored: BatchVotes | ItemError | None, policy: BoundPolicy, illegal: Sequence[str] = ()
) -> ItemRow:
    """The row of an item. scored: its frames' votes, or why scoring failed; None where it has no frames.

    illegal: detectors of illegal lists. A match with one of them leaves a row without any trace of the picture.
    """
    if illegal and isinstance(scored, BatchVotes):
        escalated = escalate(decoded, scored, policy.labels, illegal)
        if escalated is not None:
            return escalated
    media = decoded.media
    batch = scored if isinstance(scored, BatchVotes) else None
    votes = None if batch is None else _votes_of(media, batch, policy.labels)
    code, detail = (scored.code, scored.detail) if isinstance(scored, ItemError) else (media.error, media.error_detail)
    if votes is None and code is None:
        code = ErrorCode.NO_FRAMES
    pdq = None if batch is None else _hash_of(media, batch)
    facts = ItemFacts(
        item_id=decoded.item.item_id,
        attributes=decoded.item.attributes,
        content_hash=decoded.content_hash,
        pdq=pdq,
    )
    return ItemRow(
        item=decoded.item,
        status=_status_of(code),
        kind=media.kind,
        judgement=None if code is ErrorCode.NOT_MEDIA else judge_item(votes, code, policy, _seen(media), facts),
        votes=votes,
        embeddings=None if batch is None else batch.embeddings,
        frames_total=media.frames_total,
        duration_s=media.duration_s,
        widest_gap_s=media.widest_gap_s,
        unseen=media.unseen,
        reader=media.reader,
        width=media.width,
        height=media.height,
        size_bytes=decoded.size_bytes,
        content_hash=decoded.content_hash,
        pdq=pdq,
        error_code=code,
        error_detail=detail,
    )


def _seen(media: Media) -> Seen:
    return Seen(kind=media.kind, duration_s=media.duration_s, widest_gap_s=media.widest_gap_s, unseen=media.unseen)


def _votes_of(media: Media, batch: BatchVotes, labels: tuple[str, ...]) -> ItemVotes:
    frames = media.frames
    # Nearly always no frame is part of another; then relations are left out.
    related = any(frame.parent is not None or frame.role is not Role.FRAME for frame in frames)
    return ItemVotes(
        labels=labels,
        frames=tuple(frame.index for frame in frames),
        times_s=tuple(frame.time_s for frame in frames),
        scores=batch.scores,
        regions=batch.regions,
        blobs=batch.blobs,
        roles=tuple(frame.role for frame in frames) if related else (),
        parents=tuple(frame.parent for frame in frames) if related else (),
        boxes=tuple(frame.box for frame in frames) if related else (),
    )


def _status_of(code: ErrorCode | None) -> Status:
    if code is None:
        return Status.OK
    return Status.SKIPPED if code is ErrorCode.NOT_MEDIA else Status.ERROR


def _hash_of(media: Media, batch: BatchVotes) -> str | None:
    """One PDQ hash per item, as hex digits: of the middle frame, which titles and fades leave alone."""
    hashes = batch.blobs.get("pdq.hash", ())
    hashes = tuple(h for h, frame in zip(hashes, media.frames, strict=False) if frame.role is Role.FRAME)
    middle = hashes[len(hashes) // 2] if hashes else None
    return None if middle is None else middle.hex()
