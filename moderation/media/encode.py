"""Pictures in memory -> bytes without loss, so that a notebook's picture is decoded like a file."""

from __future__ import annotations

import io
from typing import TypeGuard

import numpy as np
from PIL import Image

from moderation.errors import ItemError
from moderation.media.pixels import DECODER_ERRORS, describe
from moderation.types import U8, ErrorCode

# Modes kept as they are; others are converted as the decoder would do it. (Pillow cannot read back its own YCbCr
# TIFF.)
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_TIFF_MODES = frozenset({"I", "F", "CMYK"})
_WITH_ALPHA = frozenset({"PA", "La", "RGBa"})
_FASTEST = 1  # zlib's level: the bytes live until they are decoded


JPEG_QUALITY = 95


def is_pillow(value: object) -> TypeGuard[Image.Image]:
    """Whether this is a Pillow image."""
    return isinstance(value, Image.Image)


def encode_picture(picture: Image.Image | U8) -> bytes:
    """A Pillow image (all its frames, its EXIF orientation kept) or uint8 [H,W], [H,W,3] or [H,W,4] as PNG or TIFF.

    Raises ItemError: CORRUPT (an image opened lazily does not load), EMPTY (no pixels).
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) and picture.size else picture
    if isinstance(image, np.ndarray) or not all(image.size):
        raise ItemError(ErrorCode.EMPTY, "a picture without pixels")
    try:
        with io.BytesIO() as buffer:
            _save_without_loss(image, buffer)
            return buffer.getvalue()
    except DECODER_ERRORS as error:
        raise ItemError(ErrorCode.CORRUPT, f"{image.format or 'picture'}: {describe(error)}") from error


def _save_without_loss(image: Image.Image, buffer: io.BytesIO) -> None:
    if int(getattr(image, "n_frames", 1)) > 1:
        # Not APNG: Pillow would drop frames equal to the one before. The current frame is restored.
        shown = image.tell()
        image.save(buffer, "TIFF", save_all=True, compression="tiff_adobe_deflate")
        image.seek(shown)
    elif image.mode in _TIFF_MODES:
        image.save(buffer, "TIFF", exif=image.getexif())
    else:
        if image.mode not in _PNG_MODES:
            image = image.convert("RGBA" if image.mode in _WITH_ALPHA else "RGB")
        image.save(buffer, "PNG", compress_level=_FASTEST, exif=image.getexif())


def encode_jpeg(pixels_HWC: U8) -> bytes:  # noqa: N803 - shape suffix
    """uint8 [H,W,3] RGB as JPEG of quality 95 without chroma subsampling; the same pixels give the same bytes.

    It takes a fifth of the bytes of PNG; docs/backfill.md has the effect on scores.
    """
    with io.BytesIO() as buffer:
        Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()
