"""Items of several objects: an album's members as one Media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moderation.config.model import MediaConfig
from moderation.media.limits import Deadline
from moderation.media.objects import Payload, decode_object
from moderation.media.sniff import HEAD_BYTES, MediaType, sniff
from moderation.media.tiles import stitch_frames
from moderation.types import ErrorCode, Frame, Kind, Media, Role

MIN_MEMBER_FRAMES = 4  # of an animation or video in a large album, so that each is looked at more than once


def decode_album(claims: Sequence[bool], payloads: Sequence[Payload], config: MediaConfig, deadline: Deadline) -> Media:
    """All members' frames, numbered on. Every still is scored; animations and videos share what max_frames leaves.

    Behind them, numbered on too, come the whole that the stills make up, and the tiles of the stills (at most
    max_frames in all). claims: of each member, whether it `claims_media`.
    """
    member_config = with_max_tiles(
        with_max_frames(config, _frames_each(payloads, config.max_frames)), config.max_frames // max(1, len(payloads))
    )
    members: list[Media] = []
    frames: list[Frame] = []
    tiles: list[Frame] = []
    total = 0
    for claimed, payload in zip(claims, payloads, strict=True):
        member = decode_object(claimed, payload, member_config, deadline)
        own, own_tiles = _renumber(member, total)
        frames.extend(own)
        tiles.extend(own_tiles)
        # At least 1, and beyond every index used: a failed member keeps its number.
        total = max([total + max(1, member.frames_total), *(f.index + 1 for f in own)])
        members.append(replace(member, frames=()))
    if len(frames) == len(members) and all(m.kind is Kind.IMAGE and m.error is None for m in members):
        frames = list(stitch_frames(frames, total, config))
    return gather_members(Kind.ALBUM, members, _append_tiles(frames, tiles, total), total)


def _renumber(member: Media, first: int) -> tuple[list[Frame], list[Frame]]:
    """A member's frames, numbered from `first`, and its tiles, of which only the parent is numbered so far."""
    own = [replace(f, index=first + f.index) for f in member.frames if f.role is Role.FRAME]
    tiles = [replace(f, parent=first + (f.parent or 0)) for f in member.frames if f.role is not Role.FRAME]
    return own, tiles


def _append_tiles(frames: Sequence[Frame], tiles: Sequence[Frame], total: int) -> list[Frame]:
    """The frames, and behind them the tiles of those that are not tiles of another picture already."""
    apart = {f.index for f in frames if f.parent is None}
    beyond = total + sum(f.role is Role.WHOLE for f in frames)
    kept = [t for t in tiles if t.parent in apart]
    return [*frames, *(replace(t, index=beyond + k) for k, t in enumerate(kept))]


def gather_members(kind: Kind, members: Sequence[Media], frames: Sequence[Frame], total: int) -> Media:
    """One Media of these frames, with the first failure's code where members failed. members: without their frames."""
    code, detail = _name_failures(members)
    return Media(
        kind=kind,
        frames=tuple(frames),
        frames_total=total,
        width=frames[0].width if frames else None,
        height=frames[0].height if frames else None,
        error=code,
        error_detail=detail,
    )


def _name_failures(members: Sequence[Media]) -> tuple[ErrorCode | None, str]:
    failures = [m for m in members if m.error is not None]
    if not failures:
        return None, ""
    code, why = failures[0].error, failures[0].error_detail
    if code is ErrorCode.NOT_MEDIA and any(m.error is not code for m in members):
        code = ErrorCode.UNSUPPORTED_TYPE  # the item is media: it must not be skipped for the text beside a picture
    return code, f"{len(failures)} of {len(members)} members: {code}" + (f" ({why})" if why else "")


def _frames_each(payloads: Sequence[Payload], max_frames: int) -> int:
    """How many frames an animation or a video of an album may have."""
    moving = sum(1 for p in payloads if isinstance(p, bytes) and _may_move(sniff(p[:HEAD_BYTES])))
    left = max_frames - (len(payloads) - moving)
    return min(max_frames, max(MIN_MEMBER_FRAMES, left // max(1, moving)))


def _may_move(media_type: MediaType | None) -> bool:
    still = (MediaType.JPEG, MediaType.BMP, MediaType.JPEG2000, MediaType.OTHER)
    return media_type is not None and media_type not in still


def with_max_tiles(config: MediaConfig, max_tiles: int) -> MediaConfig:
    """The same limits with at most so many tiles of a picture; none where that leaves fewer than two."""
    if config.tiles == "off" or max_tiles >= config.max_tiles:
        return config
    return config.model_copy(update={"max_tiles": max_tiles} if max_tiles >= 2 else {"tiles": "off"})


def with_max_frames(config: MediaConfig, max_frames: int) -> MediaConfig:
    """The same limits with another number of frames."""
    return config if config.max_frames == max_frames else config.model_copy(update={"max_frames": max_frames})
