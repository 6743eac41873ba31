"""Other views of a background, as a camera or a person might have made them. Pure: a seed gives the same views."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from moderation.types import U8

_SMALLEST: Final = 0.6  # of each side that a view keeps: a smaller part often lacks what the label says
_COLOUR: Final = 0.25  # largest change of brightness, contrast and the balance of colours


def augment_frame(pixels: U8, name: str, view: int, seed: int) -> U8:
    """View number `view` of a picture, uint8 [h,w,3]; view 0 is the picture itself.

    A crop of it, perhaps mirrored, with other brightness and colours. The same name, view and seed give the same
    pixels, whatever was asked before.
    """
    if view == 0:
        return pixels
    digest = hashlib.sha256(f"{seed} {view} {name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    height, width = pixels.shape[:2]
    h, w = (max(1, round(side * rng.uniform(_SMALLEST, 1))) for side in (height, width))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    part = pixels[top : top + h, left : left + w]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    light = part.astype(np.float32) * rng.uniform(1 - _COLOUR, 1 + _COLOUR, 3).astype(np.float32) ** 0.5
    middle = light.mean()
    light = (light - middle) * np.float32(rng.uniform(1 - _COLOUR, 1 + _COLOUR)) + middle
    light *= np.float32(rng.uniform(1 - _COLOUR, 1 + _COLOUR))
    augmented: U8 = np.ascontiguousarray(light.clip(0, 255).astype(np.uint8))
    return augmented
