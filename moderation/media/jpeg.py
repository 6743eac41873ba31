"""One JPEG: bytes -> a frame.

simplejpeg decodes an ordinary JPEG where it is installed, one of twice the canvas or more with DCT scaling: the same
pixels as Pillow on all 200 sample photographs and on large ones at each scale, at 1.4 times its speed (torchvision's
decoder: 1.2 times, and deprecated since 0.29). Pillow decodes all others, and scales likewise (24 MP: 105 ms against
381).
"""

from __future__ import annotations

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from moderation.config.model import MediaConfig
from moderation.file_types import MediaType
from moderation.media.colour import OTHER_PROFILES, STORED_RGB, read_colours
from moderation.media.jpeg_segments import application_segments, read_profiles, stores_rgb
from moderation.media.limits import Deadline, TimedBytes, canvas_size, check_pixels
from moderation.media.orientation import read_orientations
from moderation.media.pixels import (
    DECODER_ERRORS,
    Picture,
    corrupt,
    describe,
    drop_xmp,
    load_partly,
    make_picture,
    read_orientation,
    scale_array,
    still_media,
)
from moderation.media.shown import ShownPicture, show, show_readings
from moderation.types import U8, ErrorCode, Media

try:
    import simplejpeg
except ImportError:  # only speed is lost: Pillow decodes the same pixels
    simplejpeg = None


FAST_JPEG_BYTES = 8 * 1024 * 1024  # simplejpeg cannot be interrupted; baseline JPEGs up to here take < 0.2 s


FAST_JPEG_PIXELS = 8_000_000
# Scaled while decoding, most of the time goes to reading the bytes: 12 megapixels of 4 MB take 30 ms.
FAST_SCALED_BYTES = 24 * 1024 * 1024
FAST_SCALED_PIXELS = 50_000_000


# One scan of a progressive JPEG may take 40 bytes, yet decoding it visits every pixel: of 12 megapixels the 1,600 scans
# that 64 KiB may hold take 14 s. Read in such blocks, decoding ends 0.3 s after its deadline; smaller ones cost more:
# between two of them the thread waits for the interpreter's lock.
_BLOCK_BYTES_TIMES_PIXELS = 16_000_000_000
_LEAST_BLOCK_BYTES, _MOST_BLOCK_BYTES = 2048, 65536

_END_MARKER = b"\xff\xd9"
_FILLER = b"\x55\xa6\x2c\x93" * 16  # varied bits without a marker


def decode_jpeg_image(data: bytes, config: MediaConfig, deadline: Deadline) -> Media:
    """Decode a JPEG, as `decode_image` describes."""
    image = _open_jpeg(data, config, deadline)
    target = canvas_size(*image.size, config.canvas_px)
    factor = _scaling_factor(image.size, target)
    if _can_decode_fast(image, len(data), factor):
        try:
            return still_media(_decode_fast(data, image, target, factor))
        except ValueError:
            pass  # broken somewhere: Pillow below tells where and keeps the head
    image.draft(image.mode, target)
    stored = image.size if factor == 1 else _stored_size(data, deadline)
    return _read_jpeg(image, stored, target, data, config, deadline)


def _read_jpeg(
    image: JpegImageFile,
    stored: tuple[int, int],
    target: tuple[int, int],
    data: bytes,
    config: MediaConfig,
    deadline: Deadline,
) -> Media:
    orientations = _read_orientations(image)
    try:
        image.load()
    except DECODER_ERRORS as problem:
        image, detail = _read_cut(data, target, config, deadline)
        picture = _show_jpeg(image, stored, orientations, target)
        if not detail and _lacks_only_its_end(data, image, target, config, deadline):
            return still_media(picture)
        pixels = picture.frame.pixels
        if (pixels == pixels[0, 0]).all():
            raise corrupt(MediaType.JPEG, problem) from problem
        return still_media(picture, ErrorCode.TRUNCATED, detail or describe(problem))
    return still_media(_show_jpeg(image, stored, orientations, target))


def _read_orientations(image: JpegImageFile) -> tuple[int, ...]:
    return read_orientations(image, read_orientation(image), tuple(application_segments(image, "APP1")))


def _show_jpeg(
    image: JpegImageFile, stored: tuple[int, int], orientations: tuple[int, ...], target: tuple[int, int]
) -> Picture:
    try:
        return make_picture(show(image, target), stored, orientations)
    except DECODER_ERRORS as error:
        raise corrupt(MediaType.JPEG, error) from error


def _read_cut(
    data: bytes, target: tuple[int, int], config: MediaConfig, deadline: Deadline
) -> tuple[JpegImageFile, str]:
    """Append an end marker: libjpeg fills the rest with grey and shows the scans of a progressive JPEG so far."""
    # Half an end marker would combine with the appended bytes into another marker.
    image = _open_jpeg(data.rstrip(b"\xff") + _END_MARKER, config, deadline)
    image.draft(image.mode, target)
    return image, load_partly(image)


def _lacks_only_its_end(
    data: bytes, image: JpegImageFile, target: tuple[int, int], config: MediaConfig, deadline: Deadline
) -> bool:
    """Whether a JPEG without an end marker has all its blocks: bytes appended to it then change no pixel."""
    other, broken = _read_cut(data.rstrip(b"\xff") + _FILLER, target, config, deadline)
    return not broken and other.size == image.size and other.tobytes() == image.tobytes()


def _open_jpeg(data: bytes, config: MediaConfig, deadline: Deadline) -> JpegImageFile:
    try:
        image = JpegImageFile(TimedBytes(data, deadline))
    except DECODER_ERRORS as error:
        raise corrupt(MediaType.JPEG, error) from error
    check_pixels(*image.size, config.max_pixels)
    drop_xmp(image)
    profiles = read_profiles(image)
    if profiles:
        image.info["icc_profile"], image.info[OTHER_PROFILES] = profiles[0], profiles[1:]
    if stores_rgb(image):
        image.info[STORED_RGB] = True
    if image.info.get("progressive"):
        block_bytes = _BLOCK_BYTES_TIMES_PIXELS // max(1, image.size[0] * image.size[1])
        image.decodermaxblock = min(max(block_bytes, _LEAST_BLOCK_BYTES), _MOST_BLOCK_BYTES)
    return image


def _stored_size(data: bytes, deadline: Deadline) -> tuple[int, int]:
    return JpegImageFile(TimedBytes(data, deadline)).size  # draft() has overwritten it; a header read takes 0.03 ms


def _scaling_factor(size: tuple[int, int], target: tuple[int, int]) -> int:
    """By how much libjpeg scales while decoding, as Pillow's `draft` chooses it: 1, 2, 4 or 8."""
    ratio = min(s // t for s, t in zip(size, target, strict=True))
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(1, ratio))


def _can_decode_fast(image: JpegImageFile, size_bytes: int, factor: int) -> bool:
    """Whether simplejpeg is there, supports the mode, and is quick enough: it cannot be interrupted."""
    if simplejpeg is None or image.mode not in ("RGB", "L"):
        return False
    # A progressive JPEG may hold 100,000 scans of the whole picture: Pillow decodes it, with deadline checks.
    if image.info.get("progressive"):
        return False
    max_pixels, max_bytes = (
        (FAST_JPEG_PIXELS, FAST_JPEG_BYTES) if factor == 1 else (FAST_SCALED_PIXELS, FAST_SCALED_BYTES)
    )
    return image.size[0] * image.size[1] <= max_pixels and size_bytes <= max_bytes


def _decode_fast(data: bytes, header: JpegImageFile, target: tuple[int, int], factor: int) -> Picture:
    # Of its scales, eighths, this asks for the one that Pillow takes: then the pixels are the same.
    width, height = (-(-side // factor) for side in header.size)
    pixels: U8 = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
    pixels, readings = scale_array(pixels, target), read_colours(header)
    plain = len(readings) == 1
    shown = ShownPicture(pixels=pixels) if plain else show_readings(Image.fromarray(pixels), readings)
    return make_picture(shown, header.size, _read_orientations(header))
