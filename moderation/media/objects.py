"""One object: its bytes -> Media, or the code of what is wrong with it."""

from __future__ import annotations

from PIL.Image import DecompressionBombError

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.animation import decode_picture
from moderation.media.jpeg import decode_jpeg_image
from moderation.media.limits import Deadline, decode_with_deadline
from moderation.media.pixels import describe
from moderation.media.sniff import HEAD_BYTES, MediaType, names_media, sniff
from moderation.media.still_movie import decode_still_movie, holds_movie
from moderation.media.tiles import add_tiles, detailed
from moderation.media.video import decode_video
from moderation.types import ErrorCode, Kind, Media, MediaObject

Payload = bytes | ItemError

_IN_STRIPS = frozenset({MediaType.JPEG, MediaType.BMP})  # read piece by piece: the deadline is seen without a thread


def claims_media(source: MediaObject) -> bool:
    """Whether its name says picture or video, or it is a nameless cell of the column of pictures."""
    return names_media(source.name) or (source.column is not None and not source.name)


def decode_object(claimed: bool, payload: Payload, config: MediaConfig, deadline: Deadline) -> Media:
    """One object as Media; every failure is in its `error`. claimed: whether it `claims_media`."""
    media_type = None if isinstance(payload, ItemError) else sniff(payload[:HEAD_BYTES])
    try:
        if isinstance(payload, ItemError):
            raise payload
        return _decode_bytes(claimed, payload, media_type, config, deadline)
    except Exception as error:  # noqa: BLE001 - decoders of strangers' bytes raise anything; only this item is lost
        code, detail = _name_failure(error)
    return Media(kind=_kind_of(media_type), error=code, error_detail=detail)


def _name_failure(error: Exception) -> tuple[ErrorCode, str]:
    if isinstance(error, ItemError):
        return error.code, error.detail
    if isinstance(error, DecompressionBombError):
        return ErrorCode.TOO_MANY_PIXELS, describe(error)
    if isinstance(error, MemoryError):
        return ErrorCode.OUT_OF_MEMORY, "not enough memory to decode it"
    return ErrorCode.CORRUPT, f"{type(error).__name__}: {describe(error)}"


def _kind_of(media_type: MediaType | None) -> Kind:
    if media_type is None:
        return Kind.UNKNOWN
    return Kind.VIDEO if media_type.is_video else Kind.IMAGE


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
    if holds_movie(data, media_type):
        decode = decode_still_movie
    return decode_with_deadline(lambda: decode(data, media_type, config, deadline), deadline)
