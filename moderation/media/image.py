"""One still picture: bytes -> an upright RGB frame of canvas size.

Pillow's format classes are opened by the sniffed type, not through `Image.open`: only these formats can be reached,
and Pillow's process-wide pixel limit stays as it is while ours is checked before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.container import mend_webp, webp_size
from moderation.media.jpeg import decode_jpeg_image
from moderation.media.limits import Deadline, TimedBytes, check_pixels, start_deadline
from moderation.media.pixels import DECODER_ERRORS, corrupt, load_partly, still_media, to_frame
from moderation.media.sniff import MediaType, sniff
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
    """The first picture of `data` as one frame: uint8 RGB [H,W,3], upright, alpha over white, scaled to the canvas.

    Raises ItemError: EMPTY, TOO_MANY_PIXELS, UNSUPPORTED_TYPE, TIMEOUT, CORRUPT (nothing could be decoded).
    A picture of which the head decodes is returned with `error=TRUNCATED`.
    """
    media_type = sniff(data)
    if not data:
        raise ItemError(ErrorCode.EMPTY, "0 bytes")
    if media_type is None or media_type.is_video:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"not a picture: {media_type or 'unknown content'}")
    deadline = start_deadline(config.decode_timeout_s)
    if media_type is MediaType.JPEG:
        return decode_jpeg_image(data, config, deadline)
    image, mended = open_picture(data, media_type, config, deadline)
    return read_still(image, config, mended=mended)


def open_picture(
    data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline
) -> tuple[ImageFile, ErrorCode | None]:
    """A Pillow image of which only the header has been read, and TRUNCATED when its end had to be made up.

    Raises ItemError: TOO_MANY_PIXELS, UNSUPPORTED_TYPE, CORRUPT, TIMEOUT.
    """
    mended: ErrorCode | None = None
    if media_type is MediaType.WEBP:
        size = webp_size(data)
        if size:
            check_pixels(*size, config.max_pixels)
        whole = mend_webp(data)
        if whole is not None:
            data, mended = whole, ErrorCode.TRUNCATED
    opener = _heif_opener() if media_type is MediaType.HEIC else _OPENERS.get(media_type)
    if opener is None:
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"no decoder for {media_type}")
    try:
        image = opener(TimedBytes(data, deadline))
    except DECODER_ERRORS as error:
        raise corrupt(media_type, error) from error
    check_pixels(*image.size, config.max_pixels)
    return image, mended


def read_still(image: ImageFile, config: MediaConfig, *, mended: ErrorCode | None = None) -> Media:
    """One frame of an opened picture. Raises ItemError(CORRUPT) when no pixel of it decodes."""
    detail = "the end of the file is missing" if mended else ""
    broken = load_partly(image)
    frame = to_frame(image, config)
    if broken or mended:
        if not frame.pixels.any() or (frame.pixels == frame.pixels[0, 0]).all():
            raise corrupt(image.format or "picture", broken or detail)
        return still_media(frame, ErrorCode.TRUNCATED, broken or detail)
    return still_media(frame)


def _heif_opener() -> Callable[[TimedBytes], ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        detail = "HEIC needs an optional package: pip install 'moderation[heic]'"
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, detail) from error
    opener: Callable[[TimedBytes], ImageFile] = HeifImageFile
    return opener
