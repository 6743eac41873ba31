"""Decoded pictures -> small JPEGs to look at; nothing of the file that they came from is copied."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from moderation.types import U8

# Made to be looked at, not scored: half the bytes of `encode_jpeg`.
_QUALITY: Final = 85


def encode_preview(pixels_HWC: U8, max_side: int) -> bytes:  # noqa: N803 - shape suffix
    """uint8 [H,W,3] RGB as a JPEG whose longer side is at most `max_side` pixels; smaller pictures keep their size."""
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((max_side, max_side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    with io.BytesIO() as buffer:
        image.save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()
