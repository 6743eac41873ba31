"""JPEG and back: the lossy step of a detector whose reference scores re-encoded pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from moderation.types import U8

_QUALITY = 75  # Pillow's default, which the reference relies on


def jpeg_roundtrip(pixels: U8) -> U8:
    """uint8 [H,W,3] RGB, encoded as JPEG (quality 75, 4:2:0) and decoded again; same shape."""
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY)
        buffer.seek(0)
        with Image.open(buffer) as image:
            return np.array(image, dtype=np.uint8)
