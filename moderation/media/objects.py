"""One object: its bytes -> Media, or an error code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import DecompressionBombError

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import HEAD_BYTES, MediaType, names_media, sniff
from moderation.media.animation import decode_picture
from moderation.media.behind import Behind, find_behind
from moderation.media.credentials import add_credentials
from moderation.media.ends import IN_BOXES
from moderation.media.joining import Numbering, widest_of
from moderation.media.jpeg import decode_jpeg_image
from moderation.media.likeness import is_preview, is_smaller_version
from moderation.media.limits import Deadline, decode_with_deadline, with_max_frames
from moderation.media.pixels import describe
from moderation.media.still_movie import decode_still_movie, holds_movie
from moderation.media.tiles import add_tiles, detailed
from moderation.media.unknown import Looks, look_at
from moderation.media.video import decode_video
from moderation.types import ErrorCode, Kind, Media, MediaObject, Role

Payload = bytes | ItemError

# Readers of PDF accept their sign within so many bytes, also in a comment of a picture.
_PDF, _PDF_WITHIN = b"%PDF-", 1024
_IN_STRIPS = frozenset({MediaType.JPEG, MediaType.BMP})  # read in strips: the deadline is checked without a thread


def claims_media(source: MediaObject) -> bool:
    """Whether its name or the store calls it a picture or video, or it is an unnamed cell of the bytes column.

    `._photo.jpg` is not: macOS gives this name to the metadata file beside a file.
    """
    if source.content_type is not None and source.content_type.lower().startswith(("image/", "video/")):
        return True
    is_named = names_media(source.name) and not source.name.rpartition("/")[2].startswith("._")
    return is_named or (source.column is not None and not source.name)


def decode_object(claimed: bool, payload: Payload, config: MediaConfig, deadline: Deadline) -> Media:
    """One object as Media; every failure is in its `error`. claimed: whether it `claims_media`."""
    media_type = None if isinstance(payload, ItemError) else sniff(payload[:HEAD_BYTES])
    try:
        if isinstance(payload, ItemError):
            raise payload
        media = _decode_bytes(claimed, payload, media_type, config, deadline)
        return add_credentials(media, payload) if config.credentials else media
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


def _name_unknown(claimed: bool, data: bytes, config: MediaConfig) -> ItemError:
    """The error for bytes of unknown type: skipped only where they are surely no picture and no video."""
    if claimed:
        return ItemError(ErrorCode.UNSUPPORTED_TYPE, "claims to be a picture or a video, but its content is neither")
    looks = look_at(data)
    if looks is Looks.OTHER:
        return ItemError(ErrorCode.NOT_MEDIA, "not media by content or by name")
    if looks is Looks.MEDIA:
        return ItemError(ErrorCode.UNSUPPORTED_TYPE, "a picture, a video or a document without a decoder here")
    if config.unknown == "skip":
        return ItemError(ErrorCode.NOT_MEDIA, "of unknown type, and media.unknown is skip")
    return ItemError(ErrorCode.UNSUPPORTED_TYPE, "of unknown type, and not clearly something else")


def _decode_bytes(
    claimed: bool, data: bytes, media_type: MediaType | None, config: MediaConfig, deadline: Deadline
) -> Media:
    if not data:
        raise ItemError(ErrorCode.EMPTY, "0 bytes")
    if len(data) > config.max_bytes:
        raise ItemError(ErrorCode.TOO_LARGE, f"{len(data)} bytes are more than {config.max_bytes}")
    if media_type is None:
        raise _name_unknown(claimed, data, config)
    deadline.check()
    media = _decode_known(data, media_type, config, deadline)
    return replace(media, unseen=(*media.unseen, "document")) if _PDF in data[:_PDF_WITHIN] else media


def _decode_known(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    pieces = [] if media_type.is_video else find_behind(data, media_type, deadline)
    # libjpeg would read on into the next picture where the end marker is missing, and libwebp refuses what follows.
    own = data[: min((p.start for p in pieces if not p.inside), default=len(data))]
    first = _decode_one(own, media_type, config, deadline)
    if first.kind is Kind.ANIMATION and media_type in IN_BOXES:
        # The boxes of a still beside a sequence are the sequence itself.
        pieces = [piece for piece in pieces if not piece.inside]
    is_picture = first.kind in (Kind.IMAGE, Kind.ANIMATION)
    return _add_what_lies_behind(first, data, pieces, config, deadline) if pieces and is_picture else first


def _decode_one(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """Decode the picture or video that `data` begins with."""
    if media_type is MediaType.JPEG:
        return add_tiles(decode_jpeg_image(data, detailed(config), deadline), config)
    if media_type in _IN_STRIPS:
        return decode_picture(data, media_type, config, deadline)
    decode = decode_video if media_type.is_video else decode_picture
    if holds_movie(data, media_type):
        decode = decode_still_movie
    return decode_with_deadline(lambda: decode(data, media_type, config, deadline), deadline)


def _add_what_lies_behind(
    first: Media, data: bytes, pieces: Sequence[Behind], config: MediaConfig, deadline: Deadline
) -> Media:
    """Add the frames of what follows the picture in the file; pieces that do not decode are unseen."""
    numbering = Numbering()
    numbering.add(first)
    unseen = list(first.unseen)
    members = [first]
    for piece in pieces:
        left = config.max_frames - len(numbering.frames)
        member = _decode_piece(data, piece, with_max_frames(config, left), deadline) if left > 0 else None
        if (member is None or member.error is not None) and not piece.preview:
            unseen.append(piece.what)
        if member is None or _is_only_smaller(member, first, piece):
            continue
        unseen += member.unseen
        numbering.add(member)
        members.append(member)
    return replace(
        first,
        frames=tuple(numbering.append_extras(numbering.frames)),
        frames_total=numbering.total,
        widest_gap_s=widest_of(members),
        unseen=tuple(dict.fromkeys(unseen)),
    )


def _decode_piece(data: bytes, piece: Behind, config: MediaConfig, deadline: Deadline) -> Media | None:
    try:
        return _decode_one(piece.cut_from(data), piece.media_type, config, deadline)
    except Exception:  # noqa: BLE001 - as above: the first picture is whole, and the row reports the unseen piece
        return None


def _is_only_smaller(member: Media, first: Media, piece: Behind) -> bool:
    """Whether it is a preview: it shows the same as the first picture."""
    if member.kind is not Kind.IMAGE or member.frames_total != 1 or not member.frames or not first.frames:
        return False
    if any(f.role in (Role.BACKDROP, Role.VARIANT) for f in member.frames):  # other viewers show it otherwise
        return False
    frame, large = member.frames[0], first.frames[0]
    if piece.preview:
        return any(is_preview(frame.pixels, f.pixels) for f in first.frames if f.role in (Role.FRAME, Role.VARIANT))
    smaller = frame.width <= large.width and frame.height <= large.height
    return smaller and is_smaller_version(frame.pixels, large.pixels)
