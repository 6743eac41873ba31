"""One item: the bytes of its objects -> its frames, or the code of what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL.Image import DecompressionBombError

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.animation import decode_picture
from moderation.media.image import decode_jpeg_image, describe
from moderation.media.limits import Deadline, decode_with_deadline, spread, start_deadline
from moderation.media.sniff import HEAD_BYTES, MediaType, names_media, sniff
from moderation.media.tiles import add_tiles, detailed, stitch_frames
from moderation.media.video import decode_video, widest_gap
from moderation.types import ErrorCode, Frame, Item, Kind, Media, MediaObject, Role

Payload = bytes | ItemError

MIN_MEMBER_FRAMES = 4  # of an animation or video in a large album, so that each is looked at more than once

# Attributes of keyframes that `moderation keyframes` cut.
CUT_FROM = "cut_from."

_IN_STRIPS = frozenset({MediaType.JPEG, MediaType.BMP})  # read piece by piece: the deadline is seen without a thread


def decode_item(item: Item, payloads: Sequence[Payload], config: MediaConfig) -> Media:
    """The frames of one item; `payloads` are its objects' bytes (or why there are none), in order.

    Every frame's `index` is unique in the item. An ItemError, a decoder's error or a MemoryError becomes
    `Media(error=..., error_detail=...)`; an album or a set of keyframes of which some members fail has the frames of
    the others and the first failure's code. The whole item has `config.decode_timeout_s` seconds.
    Raises ValueError when there is not one payload an object (a mistake of the caller).
    """
    if item.error is not None:
        return Media(kind=item.kind or Kind.UNKNOWN, error=item.error, error_detail=item.error_detail)
    if len(payloads) != len(item.objects):
        raise ValueError(f"{len(payloads)} payloads for {len(item.objects)} objects of {item.item_id}")
    deadline = start_deadline(config.decode_timeout_s)
    claims = [_claims_media(o) for o in item.objects]
    if item.kind is Kind.KEYFRAMES:
        return _decode_keyframes(item, payloads, config, deadline)
    if item.kind is Kind.ALBUM or len(payloads) != 1:
        return _decode_album(claims, payloads, config, deadline)
    return _decode_object(claims[0], payloads[0], config, deadline)


def _claims_media(source: MediaObject) -> bool:
    """Whether it is said to be a picture or a video: by its name, or as a nameless cell of the column of pictures."""
    return names_media(source.name) or (source.column is not None and not source.name)


def _decode_object(claimed: bool, payload: Payload, config: MediaConfig, deadline: Deadline) -> Media:
    """One object as Media; every failure is in its `error`."""
    media_type = None if isinstance(payload, ItemError) else sniff(payload[:HEAD_BYTES])
    try:
        if isinstance(payload, ItemError):
            raise payload
        return _decode_bytes(claimed, payload, media_type, config, deadline)
    except ItemError as error:
        code, detail = error.code, error.detail
    except DecompressionBombError as error:
        code, detail = ErrorCode.TOO_MANY_PIXELS, describe(error)
    except MemoryError:
        code, detail = ErrorCode.OUT_OF_MEMORY, "not enough memory to decode it"
    except Exception as error:  # noqa: BLE001 - decoders of strangers' bytes raise anything; only this item is lost
        code, detail = ErrorCode.CORRUPT, f"{type(error).__name__}: {describe(error)}"
    kind = Kind.VIDEO if media_type and media_type.is_video else Kind.IMAGE if media_type else Kind.UNKNOWN
    return Media(kind=kind, error=code, error_detail=detail)


def _decode_bytes(
    claimed: bool, data: bytes, media_type: MediaType | None, config: MediaConfig, deadline: Deadline
) -> Media:
    if not data:
        raise ItemError(ErrorCode.EMPTY, "0 bytes")
    if len(data) > config.max_bytes:
        raise ItemError(ErrorCode.TOO_LARGE, f"{len(data)} bytes are more than {config.max_bytes}")
    if media_type is None:
        if claimed:
            raise ItemError(ErrorCode.UNSUPPORTED_TYPE, "said to be a picture or a video, but its content is neither")
        raise ItemError(ErrorCode.NOT_MEDIA, "neither by content nor by name")
    deadline.check()
    if media_type is MediaType.JPEG:
        return add_tiles(decode_jpeg_image(data, detailed(config), deadline), config)
    if media_type in _IN_STRIPS:
        return decode_picture(data, media_type, config, deadline)
    decode = decode_video if media_type.is_video else decode_picture
    return decode_with_deadline(lambda: decode(data, media_type, config, deadline), deadline)


def _decode_album(
    claims: Sequence[bool], payloads: Sequence[Payload], config: MediaConfig, deadline: Deadline
) -> Media:
    """All members' frames, numbered on. Every still is scored; animations and videos share what max_frames leaves.

    Behind them, numbered on too, the tiles of its stills (at most max_frames in all), and the whole that they make up.
    """
    member_config = _with_tiles(
        _with_max_frames(config, _frames_each(payloads, config.max_frames)), config.max_frames // max(1, len(payloads))
    )
    members: list[Media] = []
    frames: list[Frame] = []
    tiles: list[Frame] = []
    total = 0
    for claimed, payload in zip(claims, payloads, strict=True):
        member = _decode_object(claimed, payload, member_config, deadline)
        own = [f for f in member.frames if f.role is Role.FRAME]
        frames.extend(replace(f, index=total + f.index) for f in own)
        tiles.extend(replace(f, parent=total + (f.parent or 0)) for f in member.frames if f.role is not Role.FRAME)
        # At least 1, and beyond every index used: a failed member keeps its number.
        total += max(1, member.frames_total, *(f.index + 1 for f in own))
        members.append(replace(member, frames=()))
    if len(frames) == len(members) and all(m.kind is Kind.IMAGE and m.error is None for m in members):
        frames = list(stitch_frames(frames, total, config))
    # What is a tile of another picture already needs none of its own.
    apart = {f.index for f in frames if f.parent is None}
    beyond = total + sum(f.role is Role.WHOLE for f in frames)
    kept = [t for t in tiles if t.parent in apart]
    frames.extend(replace(t, index=beyond + k) for k, t in enumerate(kept))
    return _gather(Kind.ALBUM, members, frames, total)


def _decode_keyframes(item: Item, payloads: Sequence[Payload], config: MediaConfig, deadline: Deadline) -> Media:
    """One frame an object, with the index and time that the source gave; at most max_frames, evenly spread."""
    given = [o.frame for o in item.objects]
    distinct = None not in given and len(set(given)) == len(given)
    one = _with_tiles(_with_max_frames(config, 1), 0)
    chosen = frozenset(spread(len(payloads), config.max_frames))
    members: list[Media] = []
    frames: list[Frame] = []
    for position, (source, payload) in enumerate(zip(item.objects, payloads, strict=True)):
        if position not in chosen and not isinstance(payload, ItemError):
            continue
        member = _decode_object(_claims_media(source), payload, one, deadline)
        if member.kind is Kind.VIDEO and member.error is None:
            member = Media(kind=Kind.VIDEO, error=ErrorCode.UNSUPPORTED_TYPE, error_detail="a video among keyframes")
        index = source.frame if distinct and source.frame is not None else position
        frames.extend(replace(f, index=index, time_s=source.time_s) for f in member.frames[:1])
        members.append(replace(member, frames=()))
    media = _gather(Kind.KEYFRAMES, members, frames, len(payloads))
    if any(name.startswith(CUT_FROM) for name in item.attributes):
        return _as_cut(media, item.attributes)
    times_s = [f.time_s for f in frames if f.time_s is not None]
    if len(times_s) < max(2, len(frames)):
        return media
    return replace(media, widest_gap_s=widest_gap([t - min(times_s) for t in times_s], max(times_s) - min(times_s)))


def _as_cut(media: Media, attributes: Mapping[str, str]) -> Media:
    """Keyframes with what was known of their video when they were cut: its size and length, and what was wrong with it.

    The attributes may be a stranger's: a number that is none is left out, and a code can only make a verdict harsher.
    """
    names = ("width", "height", "duration_s", "frames_total")
    width, height, duration_s, total = (_number(attributes.get(CUT_FROM + name)) for name in names)
    times_s = [f.time_s for f in media.frames if f.time_s is not None]
    if width and height and min(width, height) >= 1:
        wide, high = int(width), int(height)
        frames = tuple(replace(f, width=wide, height=high) for f in media.frames)
        media = replace(media, frames=frames, width=wide, height=high)
    if total and total >= media.frames_total:
        media = replace(media, frames_total=int(total))
    if duration_s is not None and times_s and len(times_s) == len(media.frames):
        media = replace(media, duration_s=duration_s, widest_gap_s=widest_gap(times_s, duration_s))
    code = attributes.get(CUT_FROM + "error_code")
    if media.error is None and code in frozenset(ErrorCode) and code != ErrorCode.NOT_MEDIA:
        detail = describe(attributes.get(CUT_FROM + "error_detail", ""))
        media = replace(media, error=ErrorCode(code), error_detail=detail)
    return media


def _number(text: str | None) -> float | None:
    """A number that the tables can hold, 0 or more."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if 0 <= value < 2**31 else None


def _gather(kind: Kind, members: Sequence[Media], frames: Sequence[Frame], total: int) -> Media:
    failures = [m for m in members if m.error is not None]
    code, detail = None, ""
    if failures:
        code = failures[0].error
        if code is ErrorCode.NOT_MEDIA and any(m.error is not code for m in members):
            code = ErrorCode.UNSUPPORTED_TYPE  # the item is media: it must not be skipped for the text beside a picture
        what = failures[0].error_detail
        detail = f"{len(failures)} of {len(members)} members: {code}" + (f" ({what})" if what else "")
    return Media(
        kind=kind,
        frames=tuple(frames),
        frames_total=total,
        width=frames[0].width if frames else None,
        height=frames[0].height if frames else None,
        error=code,
        error_detail=detail,
    )


def _frames_each(payloads: Sequence[Payload], max_frames: int) -> int:
    """How many frames an animation or a video of an album may have."""
    moving = sum(1 for p in payloads if isinstance(p, bytes) and _may_move(sniff(p[:HEAD_BYTES])))
    left = max_frames - (len(payloads) - moving)
    return min(max_frames, max(MIN_MEMBER_FRAMES, left // max(1, moving)))


def _may_move(media_type: MediaType | None) -> bool:
    still = (MediaType.JPEG, MediaType.BMP, MediaType.JPEG2000, MediaType.OTHER)
    return media_type is not None and media_type not in still


def _with_tiles(config: MediaConfig, most: int) -> MediaConfig:
    """The same limits with at most so many tiles of a picture; none where that leaves fewer than two."""
    if config.tiles == "off" or most >= config.max_tiles:
        return config
    return config.model_copy(update={"max_tiles": most} if most >= 2 else {"tiles": "off"})


def _with_max_frames(config: MediaConfig, max_frames: int) -> MediaConfig:
    """The same limits with another number of frames."""
    return config if config.max_frames == max_frames else config.model_copy(update={"max_frames": max_frames})
