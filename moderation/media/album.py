"""Items of several objects: the members of an album as one Media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moderation.config.model import MediaConfig
from moderation.file_types import HEAD_BYTES, MediaType, names_moving, sniff
from moderation.media.joining import Numbering, gather_members
from moderation.media.limits import MAX_FRAMES_BYTES, Deadline, MemberLimits
from moderation.media.objects import Payload, decode_object
from moderation.media.seams import ALBUM_LAYOUTS
from moderation.media.tiles import stitch_frames
from moderation.types import Kind, Media, MediaObject

UNSEEN_PICTURE = "picture"
MIN_MEMBER_FRAMES = 4  # of each animation or video, so that in a large album each gets more than one frame


def decode_album(claims: Sequence[bool], payloads: Sequence[Payload], config: MediaConfig, deadline: Deadline) -> Media:
    """All members' frames, numbered consecutively. Every still is scored; animations and videos share the rest.

    After them come the picture that the stills were cut from, if any, and the tiles of the stills (at most max_frames
    in all). claims: for each member, whether it `claims_media`. The frames are held together: the pipeline decodes an
    album of any size member by member instead (`gather_album`).
    """
    member_config = member_limits(payloads, config).apply(config)
    members: list[Media] = []
    left = MAX_FRAMES_BYTES
    for claimed, payload in zip(claims, payloads, strict=True):
        if left <= 0:
            # Pictures beyond the limit are unseen, and prevent a pass.
            members.append(Media(kind=Kind.UNKNOWN, unseen=(UNSEEN_PICTURE,)))
            break
        member = decode_object(claimed, payload, member_config, deadline)
        left -= sum(frame.pixels.nbytes for frame in member.frames)
        members.append(member)
    return gather_album(members, config)


def gather_album(members: Sequence[Media], config: MediaConfig) -> Media:
    """The album of these members, in order.

    Frames follow each other in the order of the members, and after all of them their tiles and backdrops. Frames may
    come without pixels, except where `may_be_cut`.
    """
    numbering = Numbering()
    for member in members:
        numbering.add(member)
    bare = [replace(member, frames=()) for member in members]
    frames = tuple(numbering.frames)
    if len(frames) == len(members) and all(m.kind is Kind.IMAGE and m.error is None for m in members):
        frames = stitch_frames(frames, numbering.total, config)
    return gather_members(Kind.ALBUM, bare, numbering.append_extras(frames), numbering.total)


def may_be_cut(count: int, config: MediaConfig) -> bool:
    """Whether an album of so many pictures is compared, picture by picture, to find that it was cut from one."""
    return config.wholes != "off" and count in ALBUM_LAYOUTS


def member_limits(payloads: Sequence[Payload], config: MediaConfig) -> MemberLimits:
    """What each member of an album may have, by the content of all of them."""
    moving = sum(1 for p in payloads if isinstance(p, bytes) and _may_move(sniff(p[:HEAD_BYTES])))
    return _share(len(payloads), moving, config)


def claimed_limits(objects: Sequence[MediaObject], config: MediaConfig) -> MemberLimits:
    """The same by the names of the members, for an album that is too large to be read before it is decoded."""
    return _share(len(objects), sum(1 for o in objects if names_moving(o.name)), config)


def _share(count: int, moving: int, config: MediaConfig) -> MemberLimits:
    left = config.max_frames - (count - moving)
    each = min(config.max_frames, max(MIN_MEMBER_FRAMES, left // max(1, moving)))
    return MemberLimits(max_frames=each, max_tiles=config.max_frames // max(1, count))


def _may_move(media_type: MediaType | None) -> bool:
    still = (MediaType.JPEG, MediaType.BMP, MediaType.JPEG2000, MediaType.OTHER)
    return media_type is not None and media_type not in still
