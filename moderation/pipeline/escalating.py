"""A match with an illegal list: the row that is left of the item, and what the escalation keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moderation.detectors.hashing.known import ENTRY, LISTED
from moderation.results.escalations import ESCALATED_JUDGEMENT, Escalation
from moderation.results.tables import ItemRow
from moderation.scoring.batching import Decoded
from moderation.scoring.votes import BatchVotes
from moderation.types import F32, ItemVotes, Role, Status


def escalate(decoded: Decoded, batch: BatchVotes, labels: tuple[str, ...], illegal: Sequence[str]) -> ItemRow | None:
    """The row of an item that matches an illegal list; None where it does not.

    Its votes are null but for the match, without hashes, regions and embeddings; one row per frame stays, so that
    counts of frames agree. illegal: names of the detectors.
    """
    columns = {name: labels.index(f"{name}.match") for name in illegal if f"{name}.match" in labels}
    matches = {name: batch.scores[:, column] == 1.0 for name, column in columns.items()}
    rule = next((name for name, frames in matches.items() if frames.any()), None)
    if rule is None:
        return None
    scores: F32 = np.full_like(batch.scores, np.nan)
    for column in columns.values():
        scores[:, column] = batch.scores[:, column]
    media = decoded.media
    frames = media.frames
    related = any(frame.parent is not None or frame.role is not Role.FRAME for frame in frames)
    votes = ItemVotes(
        labels=labels,
        frames=tuple(frame.index for frame in frames),
        times_s=tuple(frame.time_s for frame in frames),
        scores=scores,
        roles=tuple(frame.role for frame in frames) if related else (),
        parents=tuple(frame.parent for frame in frames) if related else (),
        boxes=tuple(None for _ in frames) if related else (),
    )
    return ItemRow(
        item=decoded.item,
        status=Status.ESCALATED,
        kind=media.kind,
        judgement=ESCALATED_JUDGEMENT,
        votes=votes,
        frames_total=media.frames_total,
        size_bytes=decoded.size_bytes,
        escalation=_escalation(decoded, batch, labels, rule, np.flatnonzero(matches[rule])),
    )


def _escalation(
    decoded: Decoded, batch: BatchVotes, labels: tuple[str, ...], rule: str, matched: np.ndarray
) -> Escalation:
    column = f"{rule}.distance"
    bits = batch.scores[:, labels.index(column)] if column in labels else np.zeros(len(batch.scores), np.float32)
    nearest = int(matched[np.argmin(np.nan_to_num(bits[matched], nan=256.0))])
    frame = decoded.media.frames[nearest]
    hashes = batch.blobs.get("pdq.hash", ())
    found = hashes[nearest] if nearest < len(hashes) else None
    objects = decoded.item.objects
    told = _told(batch, rule, nearest)
    return Escalation(
        item_id=decoded.item.item_id,
        uri=decoded.item.uri,
        rule=rule,
        etag=objects[0].etag if len(objects) == 1 else None,
        content_hash=decoded.content_hash,
        pdq=None if found is None else found.hex(),
        distance=None if np.isnan(bits[nearest]) else int(bits[nearest]),
        frame=frame.index,
        time_s=frame.time_s,
        frames_matched=len(matched),
        **told,
    )


def _told(batch: BatchVotes, rule: str, row: int) -> Mapping[str, str | None]:
    """Label, entry and hash of the list, from the regions of the frame."""
    names = [region.label for region in batch.regions[row] if region.detector == rule and region.label != "match"]
    entry = next((name.removeprefix(ENTRY) for name in names if name.startswith(ENTRY)), None)
    listed = next((name.removeprefix(LISTED) for name in names if name.startswith(LISTED)), None)
    label = next((name for name in names if not name.startswith((ENTRY, LISTED))), None)
    return {"list_label": label, "list_entry": entry or None, "list_hash": listed}
