"""One still picture: bytes -> an upright RGB frame of canvas size.

Pillow's format classes are opened by the sniffed type, not through `Image.open`: only these formats can be reached,
and Pillow's process-wide pixel limit stays as it is while ours is checked before anything is decoded.
An ordinary JPEG is decoded by simplejpeg where that is installed: equal pixels to Pillow's on all 200 sample
photographs at 1.4 times its speed (torchvision's decoder: 1.2 times, and deprecated since 0.29). One of twice the
canvas or more is decoded by Pillow with DCT scaling (24 MP: 105 ms against 381).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

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

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.container import mend_webp, webp_size
from moderation.media.limits import Deadline, TimedBytes, canvas_size, check_pixels, start_deadline
from moderation.media.sniff import MediaType, sniff
from moderation.types import U8, ErrorCode, Frame, Kind, Media

try:
    import simplejpeg
except ImportError:  # only speed is lost: Pillow decodes to the same pixels
    simplejpeg = None

# What Pillow's parsers raise on bytes that lie; anything else is caught (and named) by decode_item.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)

FAST_JPEG_BYTES = 8 * 1024 * 1024  # simplejpeg cannot be interrupted; baseline JPEGs up to here take < 0.2 s
FAST_JPEG_PIXELS = 8_000_000

# A scan of a progressive JPEG may take 40 bytes and a walk over all its pixels; Pillow's 64 KiB a read are 1,600 of
# them, which overran a deadline of 5 s by 14.
PROGRESSIVE_BLOCK_BYTES = 2048

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
        return _media(frame, ErrorCode.TRUNCATED, broken or detail)
    return _media(frame)


def load_partly(image: ImageFile) -> str:
    """Decode; what broke, or "". The rows before the break stay in the image, the rest is black.

    Pillow keeps them when it raises; its switch LOAD_TRUNCATED_IMAGES is of the whole process, so it is not used.
    Raises ItemError(CORRUPT) when there is not even an image buffer.
    """
    try:
        image.load()
    except DECODER_ERRORS as error:
        image.tile = []
        try:
            image.load()
        except DECODER_ERRORS:
            raise corrupt(image.format or "picture", error) from error
        return describe(error)
    return ""


def to_frame(image: Image.Image, config: MediaConfig, *, index: int = 0, time_s: float | None = None) -> Frame:
    """A loaded Pillow image as a frame. Raises ItemError(CORRUPT) when its mode cannot be converted."""
    orientation = read_orientation(image)
    size = canvas_size(*image.size, config.canvas_px)
    try:
        pixels = _to_rgb(image, size)
    except DECODER_ERRORS as error:
        raise corrupt(image.format or "picture", error) from error
    return make_frame(pixels, image.size, orientation, index=index, time_s=time_s)


def make_frame(
    pixels: U8, stored: tuple[int, int], orientation: int, *, index: int = 0, time_s: float | None = None
) -> Frame:
    """A frame from pixels as stored, turned upright; `stored` is (width, height) before scaling."""
    width, height = stored if orientation < 5 else stored[::-1]
    return Frame(index=index, pixels=turn_upright(pixels, orientation), width=width, height=height, time_s=time_s)


def scale_array(pixels: U8, size: tuple[int, int]) -> U8:
    """uint8 [H,W,3] scaled to (width, height) by Pillow's antialiased bilinear filter, if it is not."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_upright(pixels: U8, orientation: int) -> U8:
    """uint8 [H,W,3] as stored -> as meant to be seen (EXIF 2.32, tag 0x0112); contiguous and writable."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def decode_jpeg_image(data: bytes, config: MediaConfig, deadline: Deadline) -> Media:
    """A JPEG, as `decode_image` describes it."""
    image = _open_jpeg(data, config, deadline)
    target = canvas_size(*image.size, config.canvas_px)
    by_dct = min(s // t for s, t in zip(image.size, target, strict=True)) >= 2
    if simplejpeg is not None and not by_dct and image.mode in ("RGB", "L") and _is_short_work(image, len(data)):
        try:
            return _decode_fast(data, image, target)
        except ValueError:
            pass  # broken somewhere: Pillow below tells where, and keeps the head
    image.draft(image.mode, target)
    stored = image.size if not by_dct else _stored_size(data, deadline)
    return _read_jpeg(image, stored, target, data, config, deadline)


def _read_jpeg(
    image: JpegImageFile,
    stored: tuple[int, int],
    target: tuple[int, int],
    data: bytes,
    config: MediaConfig,
    deadline: Deadline,
) -> Media:
    error: ErrorCode | None = None
    detail = ""
    orientation = read_orientation(image)
    try:
        image.load()
    except DECODER_ERRORS as problem:
        # With an end marker put on, libjpeg fills the rest with grey, and shows the scans of a progressive JPEG so far.
        error, detail = ErrorCode.TRUNCATED, describe(problem)
        image = _open_jpeg(data + b"\xff\xd9", config, deadline)
        image.draft(image.mode, target)
        detail = load_partly(image) or detail
    pixels = _to_rgb(image, target)
    if error and (pixels == pixels[0, 0]).all():
        raise ItemError(ErrorCode.CORRUPT, f"jpeg: {detail}")
    return _media(make_frame(pixels, stored, orientation), error, detail)


def _open_jpeg(data: bytes, config: MediaConfig, deadline: Deadline) -> JpegImageFile:
    try:
        image = JpegImageFile(TimedBytes(data, deadline))
    except DECODER_ERRORS as error:
        raise corrupt(MediaType.JPEG, error) from error
    check_pixels(*image.size, config.max_pixels)
    if image.info.get("progressive"):
        image.decodermaxblock = PROGRESSIVE_BLOCK_BYTES
    return image


def _stored_size(data: bytes, deadline: Deadline) -> tuple[int, int]:
    return JpegImageFile(TimedBytes(data, deadline)).size  # draft() has overwritten it; a header read takes 0.03 ms


def _is_short_work(image: JpegImageFile, size_bytes: int) -> bool:
    # A progressive JPEG may hold 100,000 scans of the whole picture: that goes through Pillow and its deadline checks.
    few = image.size[0] * image.size[1] <= FAST_JPEG_PIXELS and size_bytes <= FAST_JPEG_BYTES
    return few and not image.info.get("progressive")


def _decode_fast(data: bytes, header: JpegImageFile, target: tuple[int, int]) -> Media:
    pixels: U8 = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return _media(make_frame(scale_array(pixels, target), header.size, read_orientation(header)))


def _to_rgb(image: Image.Image, size: tuple[int, int]) -> U8:
    """uint8 [H,W,3] of any Pillow mode at `size` (width, height)."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_eight_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or _has_transparent_colour(image):
        return _over_white(image, size)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image)


def _over_white(image: Image.Image, size: tuple[int, int]) -> U8:
    # Premultiplied, so that the colour of invisible pixels does not bleed in when scaling.
    image = (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.array(image)
    pixels[..., :3] += 255 - pixels[..., 3:]  # cannot overflow: a premultiplied colour is at most its alpha
    return np.ascontiguousarray(pixels[..., :3])


def _has_transparent_colour(image: Image.Image) -> bool:
    if "transparency" not in image.info:
        return False
    return image.mode == "P" or (image.format == "PNG" and image.mode in ("1", "L", "RGB"))


def _to_eight_bits(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> U8:
    """[H,W] of 16 or 32 bit or float -> uint8: the high byte, as Pillow does for 16-bit colour; never clipped.

    32-bit and float files do not say their range; it is taken to be the smallest of 8, 16, 32 bits (0..1, 0..255 for
    floats) that holds the largest value.
    """
    if values.dtype.itemsize == 2:
        return (values.astype(np.uint16, copy=False) >> 8).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    top = float(finite.max(initial=0.0))
    ranges = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0, 2.0**32 - 1)
    full = next((r for r in ranges if top <= r), max(top, 1.0))
    return (finite * (255.0 / full)).astype(np.uint8)


def _heif_opener() -> Callable[[TimedBytes], ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        detail = "HEIC needs an optional package: pip install 'moderation[heic]'"
        raise ItemError(ErrorCode.UNSUPPORTED_TYPE, detail) from error
    opener: Callable[[TimedBytes], ImageFile] = HeifImageFile
    return opener


def describe(error: BaseException | str) -> str:
    """One short line of an error, for `error_detail`."""
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__


def corrupt(what: str, error: BaseException | str) -> ItemError:
    """ItemError(CORRUPT) that names the format and what its decoder said."""
    return ItemError(ErrorCode.CORRUPT, f"{what}: {describe(error)}")


def _media(frame: Frame, error: ErrorCode | None = None, detail: str = "") -> Media:
    return Media(
        kind=Kind.IMAGE,
        frames=(frame,),
        frames_total=1,
        width=frame.width,
        height=frame.height,
        error=error,
        error_detail=detail,
    )
