"""Pre-cut keyframes: one frame per object, as if their video had been read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.album import UNSEEN_PICTURE
from moderation.media.joining import gather_members
from moderation.media.limits import MAX_FRAMES_BYTES, Deadline, MemberLimits, spread
from moderation.media.objects import Payload, claims_media, decode_object
from moderation.media.pixels import describe
from moderation.media.sampling import frame_limit, widest_gap
from moderation.media.video import MAX_TRACKS
from moderation.types import ErrorCode, Frame, Item, Kind, Media, Role

# Prefix of attributes of keyframes that `moderation keyframes` cut.
CUT_FROM = "cut_from."
KEYFRAME_LIMITS = MemberLimits(max_frames=1, max_tiles=0)
# Of a video that many are scored: its tracks, these again as players show them that ignore edit lists, and covers.
_MAX_STRETCHES = 2 * MAX_TRACKS + 1
# The row's `reader`: anybody can write a tar with such attributes, so size, length and times are only claims.
_CLAIMED = "keyframes (claimed: times)"
_CLAIMED_AS_CUT = "keyframes (claimed: times, size, length, cut_from)"


def decode_keyframes(item: Item, payloads: Sequence[Payload], config: MediaConfig, deadline: Deadline) -> Media:
    """One frame per object, with the source's index and time; of too many some, evenly spread.

    They are held together: the pipeline decodes a set of any size object by object instead (`gather_keyframes`).
    """
    still_config = KEYFRAME_LIMITS.apply(config)
    members: dict[int, Media] = {}
    left = MAX_FRAMES_BYTES
    for position in _select_positions(item, payloads, config):
        if left <= 0:
            members[position] = Media(kind=Kind.UNKNOWN, unseen=(UNSEEN_PICTURE,))
            break
        claimed = claims_media(item.objects[position])
        members[position] = as_keyframe(decode_object(claimed, payloads[position], still_config, deadline))
        left -= sum(frame.pixels.nbytes for frame in members[position].frames)
    return gather_keyframes(item, members)


def gather_keyframes(item: Item, members: Mapping[int, Media]) -> Media:
    """The keyframes of an item: its members by their positions, each as `as_keyframe` leaves it.

    Backdrops follow after all frames. Frames may come without pixels.
    """
    frames = _place_frames(item, members)
    bare = [replace(member, frames=()) for member in members.values()]
    media = gather_members(Kind.KEYFRAMES, bare, frames, len(item.objects))
    if len(members) < len(item.objects) and not _are_timed(item):
        # In order of time the gap tells how much was left out; else one left out may be of any moment.
        media = _with_unseen_picture(media)
    if any(name.startswith(CUT_FROM) for name in item.attributes):
        return replace(_as_cut(media, item), reader=_CLAIMED_AS_CUT)
    return replace(_with_own_gap(media), reader=_CLAIMED if any(f.time_s is not None for f in media.frames) else None)


def _place_frames(item: Item, members: Mapping[int, Media]) -> list[Frame]:
    indices = _given_indices(item)
    frames: list[Frame] = []
    backdrops: list[Frame] = []
    for position, member in members.items():
        placed = [replace(f, index=indices[position], time_s=item.objects[position].time_s) for f in member.frames]
        frames.extend(placed[:1])
        backdrops.extend(placed[1:])
    beyond = max([len(item.objects), *(index + 1 for index in indices)])
    return frames + [replace(f, index=beyond + k) for k, f in enumerate(backdrops)]


def chosen_positions(item: Item, config: MediaConfig) -> Collection[int]:
    """Which objects are decoded: as many as of a video with these tracks, evenly spread. Of those without a time, or in
    no order, the length is unknown, and it may be long. Those that could not be read are reported besides.
    """
    count = len(item.objects)
    if count <= config.max_frames:  # nearly always
        return range(count)
    lengths_s = _track_lengths(item)
    if len(lengths_s) > _MAX_STRETCHES:
        lengths_s = [math.inf]
    told_s = _number(item.attributes, "duration_s") or 0.0
    limit = sum(frame_limit(max(length_s, told_s), config) for length_s in lengths_s)
    # Of several stretches what is left out is unseen: as many are looked at as where the length is unknown.
    return frozenset(spread(count, limit if len(lengths_s) == 1 else max(limit, frame_limit(math.inf, config))))


def _track_lengths(item: Item) -> list[float]:
    """Seconds of each stretch of objects in order of time, as those of one track are; infinite for all without a time.

    Of two with one time either may show anything, so there a stretch ends, too.
    """
    times_s = [o.time_s for o in item.objects if o.time_s is not None]
    begins = [n for n in range(len(times_s)) if n == 0 or times_s[n] <= times_s[n - 1]]
    lengths_s = [times_s[stop - 1] - times_s[start] for start, stop in pairwise([*begins, len(times_s)])]
    return lengths_s if len(times_s) == len(item.objects) else [*lengths_s, math.inf]


def _are_timed(item: Item) -> bool:
    """Whether the objects are in order of time: the frames of one track would close the gaps of another."""
    lengths_s = _track_lengths(item)
    return len(lengths_s) == 1 and lengths_s[0] < math.inf


def _with_unseen_picture(media: Media) -> Media:
    return replace(media, unseen=tuple(dict.fromkeys([*media.unseen, UNSEEN_PICTURE])))


def _given_indices(item: Item) -> list[int]:
    """The source's index of each object, or its position where an index is missing or repeated."""
    given = [o.frame for o in item.objects if o.frame is not None]
    if len(given) == len(item.objects) == len(set(given)):
        return given
    return list(range(len(item.objects)))


def _select_positions(item: Item, payloads: Sequence[Payload], config: MediaConfig) -> Iterator[int]:
    chosen = chosen_positions(item, config)
    for position, payload in enumerate(payloads):
        if position in chosen or isinstance(payload, ItemError):
            yield position


def as_keyframe(member: Media) -> Media:
    """A decoded object as a keyframe: its first frame as viewers show it; whatever else it has is unseen."""
    member = _refuse_moving(member)
    # Of a further picture in the file none is kept.
    own = member.frames_total == 1
    extras = [f for f in member.frames[1:] if own and f.role in (Role.BACKDROP, Role.VARIANT)]
    member = replace(member, frames=(*member.frames[:1], *extras))
    return _with_unseen_picture(member) if member.frames_total > 1 else member


def _refuse_moving(member: Media) -> Media:
    """A keyframe is one picture: one frame of a video or animation would stand for all its frames."""
    if member.kind not in (Kind.VIDEO, Kind.ANIMATION) or (member.error is not None and not member.frames):
        return member
    detail = f"{'a video' if member.kind is Kind.VIDEO else 'an animation'} among keyframes"
    return Media(kind=member.kind, error=ErrorCode.UNSUPPORTED_TYPE, error_detail=detail)


def _with_own_gap(media: Media) -> Media:
    """With the widest gap between frames that have a time; one without may be of any moment, so it closes no gap."""
    times_s = [f.time_s for f in media.frames if f.time_s is not None]
    if len(times_s) < 2:
        return media
    begin_s = min(times_s)
    return replace(media, widest_gap_s=widest_gap([t - begin_s for t in times_s], max(times_s) - begin_s))


def _as_cut(media: Media, item: Item) -> Media:
    """Keyframes with the facts about their video from when they were cut: its size, length and problems.

    Attributes may come from strangers: an invalid number is left out, and a code can only make a verdict harsher.
    """
    attributes = item.attributes
    media = _with_cut_size(media, attributes)
    total = _number(attributes, "frames_total")
    if total and total >= media.frames_total:
        media = replace(media, frames_total=int(total))
    if (_number(attributes, "frames") or 0) > len(item.objects):
        media = _with_unseen_picture(media)  # some that were cut did not come
    media = _with_cut_duration(media, attributes)
    # What the cutting job did not see is unseen here, too; this can only make a verdict harsher.
    unseen = (describe(name) for name in attributes.get(CUT_FROM + "unseen", "").split(",") if name)
    media = replace(media, unseen=tuple(dict.fromkeys([*media.unseen, *unseen])))
    code = attributes.get(CUT_FROM + "error_code")
    if media.error is None and code in frozenset(ErrorCode) and code != ErrorCode.NOT_MEDIA:
        detail = describe(attributes.get(CUT_FROM + "error_detail", ""))
        media = replace(media, error=ErrorCode(code), error_detail=detail)
    return media


def _with_cut_size(media: Media, attributes: Mapping[str, str]) -> Media:
    width, height = _number(attributes, "width"), _number(attributes, "height")
    if not width or not height or min(width, height) < 1:
        return media
    frames = tuple(replace(f, width=int(width), height=int(height)) for f in media.frames)
    return replace(media, frames=frames, width=int(width), height=int(height))


def _with_cut_duration(media: Media, attributes: Mapping[str, str]) -> Media:
    duration_s = _number(attributes, "duration_s")
    if duration_s is None:
        return _with_own_gap(media)
    # Frames without times may all be of one moment: then nothing is known of the rest of the video.
    times_s = [f.time_s for f in media.frames if f.time_s is not None]
    gap_s = widest_gap(times_s, duration_s)
    # That of each track, where there were several: here their times are mingled.
    claimed_s = min(_number(attributes, "widest_gap_s") or 0.0, duration_s)
    return replace(media, duration_s=duration_s, widest_gap_s=max(gap_s, claimed_s))


def _number(attributes: Mapping[str, str], name: str) -> float | None:
    """The attribute `cut_from.<name>` as a number of 0 or more that the tables can hold."""
    text = attributes.get(CUT_FROM + name)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if 0 <= value < 2**31 else None
