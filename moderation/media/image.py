"""One still picture: bytes -> an upright RGB frame of canvas size.

Pillow's format classes are opened by the sniffed type, not through `Image.open`: only these formats can be reached,
and Pillow's process-wide pixel limit stays unchanged while ours is checked before decoding.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from moderation.config.installing import install_command
from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType, sniff
from moderation.media.bmp import leaves_gaps, read_bmp_colours, with_fourth_channel
from moderation.media.camera_raw import has_depth, is_camera_raw
from moderation.media.colour import CODE_POINTS
from moderation.media.container import find_code_points, mend_webp, webp_size, with_alpha
from moderation.media.jpeg import decode_jpeg_image
from moderation.media.limits import Deadline, TimedBytes, check_pixels, start_deadline
from moderation.media.pixels import (
    DECODER_ERRORS,
    Picture,
    corrupt,
    describe,
    drop_xmp,
    load_partly,
    still_media,
    to_picture,
)
from moderation.media.png import keep_what_shows
from moderation.types import ErrorCode, Media

_OPENERS: dict[MediaType, Callable[[TimedBytes], ImageFile]] = {
    MediaType.JPEG: JpegImageFile,
    MediaType.PNG: PngImageFile,
    MediaType.WEBP: WebPImageFile,
    MediaType.AVIF: AvifImageFile,
    MediaType.GIF: GifImageFile,
    MediaType.BMP: BmpImageFile,
    MediaType.TIFF: TiffImageFile,
    MediaType.JPEG2000: Jpeg2KImageFile,
}


def decode_image(data: bytes, config: MediaConfig) -> Media:
    """The first picture of `data` as one frame: uint8 RGB [H,W,3], converted by `show`, scaled to the canvas.

    A transparent picture is followed by its `backdrop`.
    Raises ItemError: EMPTY, TOO_MANY_PIXELS, UNSUPPORTED_TYPE, TIMEOUT, CORRUPT (nothing could be decoded).
    A picture of which only the first part decodes is returned with `error=TRUNCATED`.
    """
    media_type = sniff(data)
    if not data:
        raise ItemError(ErrorCode.EMPTY, "0 bytes")
    if media_type is None or media_type.is_video:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"not a picture: {media_type or 'unknown content'}")
    deadline = start_deadline(config.decode_timeout_s)
    if media_type is MediaType.JPEG:
        return decode_jpeg_image(data, config, deadline)
    opened = open_picture(data, media_type, config, deadline)
    return read_still(opened, config)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPicture:
    """A Pillow image whose header alone has been read.

    data: the bytes that it was opened from. mended: TRUNCATED where its end had to be added. note: what was ignored in
    the file, or "".
    """

    image: ImageFile
    data: bytes
    mended: ErrorCode | None = None
    note: str = ""


def open_header(data: bytes, media_type: MediaType, deadline: Deadline) -> ImageFile | None:
    """A picture of which only the header is read, for its size and mode; None where that is unreadable."""
    try:
        opener = _heif_opener() if media_type is MediaType.HEIC else _OPENERS.get(media_type)
        return None if opener is None else opener(TimedBytes(data, deadline))
    except (*DECODER_ERRORS, ItemError, MemoryError):
        return None


def open_picture(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> OpenedPicture:
    """Open a picture. Raises ItemError: TOO_MANY_PIXELS, UNSUPPORTED_TYPE, CORRUPT, TIMEOUT."""
    opener = _heif_opener() if media_type is MediaType.HEIC else _OPENERS.get(media_type)
    if opener is None:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"no decoder for {media_type}")
    prepared = _prepare(data, media_type, config)
    try:
        image = opener(TimedBytes(prepared.data, deadline))
    except DECODER_ERRORS as error:
        if media_type is MediaType.TIFF and isinstance(error, SyntaxError) and isinstance(error.msg, str):
            # Where its tags could not be read, `msg` is that error. Here they were read, and name samples for which
            # Pillow has no mode (big-endian uint32, int16 with white as zero).
            raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"tiff: {describe(error)}") from error
        raise corrupt(media_type, error) from error
    check_pixels(*image.size, config.max_pixels)
    drop_xmp(image)
    if prepared.icc is not None:
        image.info["icc_profile"] = prepared.icc
    if prepared.code_points is not None:
        image.info[CODE_POINTS] = prepared.code_points
    if prepared.gamma is not None:
        image.info["gamma"], image.info["chromaticity"] = prepared.gamma, prepared.primaries
    return OpenedPicture(image=image, data=prepared.data, mended=prepared.mended, note=prepared.note)


def mark_deep_key(image: ImageFile, data: bytes) -> None:
    """Give a loaded PNG of 16-bit RGB the alpha of its transparent colour; Pillow keeps only the high bytes of both."""
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode != "RGB" or data[24:26] != b"\x10\x02" or not isinstance(key, tuple):
        return
    low = PngImageFile(io.BytesIO(data))
    # The second byte of each sample, which is the high one of a little-endian sample.
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
    low.load()
    high, rest = np.asarray(image), np.asarray(low)
    matching = (high == [k >> 8 for k in key]).all(axis=2) & (rest == [k & 255 for k in key]).all(axis=2)
    image.putalpha(Image.fromarray(np.where(matching, 0, 255).astype(np.uint8)))
    del image.info["transparency"]


def open_layer(still: bytes, deadline: Deadline) -> ImageFile:
    """A layer of a GIF or PNG, itself a file. Raises DECODER_ERRORS."""
    return (GifImageFile if still.startswith(b"GIF8") else PngImageFile)(TimedBytes(still, deadline))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBytes:
    """The bytes for the decoder, and what was ignored: see `OpenedPicture`, `KeptPng`."""

    data: bytes
    mended: ErrorCode | None = None
    icc: bytes | None = None
    code_points: tuple[int, int] | None = None
    gamma: float | None = None
    primaries: tuple[float, ...] | None = None
    note: str = ""


def _prepare(data: bytes, media_type: MediaType, config: MediaConfig) -> PreparedBytes:
    """Prepare the decoder's input: a truncated WebP repaired, a PNG without chunks that are not shown."""
    if media_type is MediaType.PNG:
        kept = keep_what_shows(data)
        return PreparedBytes(data=kept.data, icc=kept.icc, code_points=kept.code_points, note=kept.note)
    if media_type is MediaType.BMP:
        return _prepare_bmp(data)
    if media_type is MediaType.WEBP:
        return _prepare_webp(data, config)
    if media_type in (MediaType.AVIF, MediaType.HEIC):
        return PreparedBytes(data=data, code_points=find_code_points(data))
    if media_type is MediaType.TIFF:
        _refuse_tiff(data)
    return PreparedBytes(data=data)


def _refuse_tiff(data: bytes) -> None:
    if is_camera_raw(data):
        detail = "a camera's raw file, of which only a preview could be shown: convert it to JPEG or TIFF"
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, detail)
    if has_depth(data):
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, "tiff: a picture of several layers in depth")


def _prepare_webp(data: bytes, config: MediaConfig) -> PreparedBytes:
    size = webp_size(data)
    if size:
        check_pixels(*size, config.max_pixels)
    whole = mend_webp(data)
    return PreparedBytes(data=with_alpha(whole or data), mended=ErrorCode.TRUNCATED if whole else None)


def _prepare_bmp(data: bytes) -> PreparedBytes:
    if leaves_gaps(data):
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, "bmp: its run-length encoding leaves pixels out")
    colours = read_bmp_colours(data)
    return PreparedBytes(
        data=with_fourth_channel(data), icc=colours.icc, gamma=colours.gamma, primaries=colours.primaries
    )


def read_still(opened: OpenedPicture, config: MediaConfig) -> Media:
    """One frame of an opened picture. Raises ItemError(CORRUPT) when none of its pixels decodes."""
    image = opened.image
    detail = "the end of the file is missing" if opened.mended else ""
    broken = load_partly(image)
    mark_deep_key(image, opened.data)
    picture = to_picture(image, config)
    if broken or opened.mended:
        if _is_blank(picture):
            raise corrupt(image.format or "picture", broken or detail)
        return still_media(picture, ErrorCode.TRUNCATED, broken or detail)
    return still_media(picture, detail=opened.note)


def _is_blank(picture: Picture) -> bool:
    pixels = picture.frame.pixels
    return not pixels.any() or bool((pixels == pixels[0, 0]).all())


def _heif_opener() -> Callable[[TimedBytes], ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        detail = f"HEIC needs an optional package: {install_command('heic')}"
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, detail) from error
    opener: Callable[[TimedBytes], ImageFile] = HeifImageFile
    return opener
