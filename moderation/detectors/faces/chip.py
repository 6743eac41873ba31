"""The chip of a face, a square that its network reads, and what the network makes of it. Loads without torch."""

from __future__ import annotations

from typing import Final

CHIP: Final = 150  # pixels
EMBEDDING: Final = 128
DISTANCE: Final = 0.6  # below it two faces are one person's, in training
