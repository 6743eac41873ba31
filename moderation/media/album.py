"""Items of several objects: the members of an album as one Media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moderation.config.model import MediaConfig
from moderation.media.joining import Numbering, gather_members
from moderation.media.limits import MAX_FRAMES_BYTES, Deadline, with_max_frames
from moderation.media.objects import Payload, decode_object
from moderation.media.sniff import HEAD_BYTES, MediaType, sniff
from moderation.media.tiles import stitch_frames
from moderation.types import Kind, Media

UNSEEN_PICTURE = "picture"
MIN_MEMBER_FRAMES = 4  # of each animation or video, so that in a large album each gets more than one frame


def decode_album(claims: Sequence[bool], payloads: Sequence[Payload], config: MediaConfig, deadline: Deadline) -> Media:
    """All members' frames, numbered consecutively. Every still is scored; animations and videos share the rest.

    After them come the picture that the stills were cut from, if any, and the tiles of the stills (at most max_frames
    in all). claims: for each member, whether it `claims_media`.
    """
    member_config = with_max_tiles(
        with_max_frames(config, _frames_each(payloads, config.max_frames)), config.max_frames // max(1, len(payloads))
    )
    numbering = Numbering()
    members: list[Media] = []
    left = MAX_FRAMES_BYTES
    for claimed, payload in zip(claims, payloads, strict=True):
        if left <= 0:
            # Frames are held until they are scored together: pictures beyond the limit are unseen, and prevent a pass.
            members.append(Media(kind=Kind.UNKNOWN, unseen=(UNSEEN_PICTURE,)))
            break
        member = decode_object(claimed, payload, member_config, deadline)
        left -= sum(frame.pixels.nbytes for frame in member.frames)
        numbering.add(member)
        members.append(replace(member, frames=()))
    frames = tuple(numbering.frames)
    if len(frames) == len(members) and all(m.kind is Kind.IMAGE and m.error is None for m in members):
        frames = stitch_frames(frames, numbering.total, config)
    return gather_members(Kind.ALBUM, members, numbering.append_extras(frames), numbering.total)


def _frames_each(payloads: Sequence[Payload], max_frames: int) -> int:
    """How many frames each animation or video of an album may have."""
    moving = sum(1 for p in payloads if isinstance(p, bytes) and _may_move(sniff(p[:HEAD_BYTES])))
    left = max_frames - (len(payloads) - moving)
    return min(max_frames, max(MIN_MEMBER_FRAMES, left // max(1, moving)))


def _may_move(media_type: MediaType | None) -> bool:
    still = (MediaType.JPEG, MediaType.BMP, MediaType.JPEG2000, MediaType.OTHER)
    return media_type is not None and media_type not in still


def with_max_tiles(config: MediaConfig, max_tiles: int) -> MediaConfig:
    """The same limits with at most `max_tiles` tiles per picture; no tiles where fewer than two remain."""
    if config.tiles == "off" or max_tiles >= config.max_tiles:
        return config
    return config.model_copy(update={"max_tiles": max_tiles} if max_tiles >= 2 else {"tiles": "off"})
