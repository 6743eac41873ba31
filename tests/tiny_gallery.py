"""Galleries and faces for tests: made-up people, and a face where the test says."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from moderation.detectors.base import FrameBatch, Scored
from moderation.detectors.faces.alignment import TARGET
from moderation.detectors.faces.gallery import FACE_WEIGHTS
from moderation.detectors.faces.gallery_file import Gallery, encode_gallery
from moderation.detectors.faces.parts import DEFAULT_PARTS, check_parts, width_of
from moderation.types import Region


def made_up(people: int, faces_each: int = 1, parts: Mapping[str, float] | None = None, seed: int = 0) -> Gallery:
    """People with embeddings of the length that dlib's have (1.4), in random directions: 2 apart, nobody alike."""
    checked = check_parts(parts or DEFAULT_PARTS)
    noise = np.random.default_rng(seed).normal(size=(people * faces_each, width_of(checked))).astype(np.float32)
    return Gallery(
        names=tuple(f"person {i}" for i in range(people)),
        person=np.repeat(np.arange(people, dtype=np.int32), faces_each),
        embeddings=1.4 * noise / np.linalg.norm(noise, axis=1, keepdims=True),
        parts=checked,
        network=FACE_WEIGHTS.sha256,
    )


@lru_cache(maxsize=1)
def gallery_file() -> str:
    """The path of a gallery of five made-up people; it lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="gallery-"))
    path = folder / "people.safetensors"
    path.write_bytes(encode_gallery(made_up(5)))
    return str(path)


def faces_of(batch: FrameBatch, counts: Sequence[int] | None = None) -> Scored:
    """What `faces` would say had each frame so many faces (default: one) that fill it upright."""
    counts = [1] * len(batch) if counts is None else counts
    whole = Region(detector="faces", label="face", score=0.9, x0=0.0, y0=0.0, x1=1.0, y1=1.0)
    return Scored(
        scores=torch.tensor([[n, float(n > 0), 0.9 * (n > 0)] for n in counts], dtype=torch.float32).reshape(-1, 3),
        regions=[[whole] * n for n in counts],
        points=[np.tile(np.array(TARGET, dtype=np.float32), (n, 1, 1)).reshape(n, 5, 2) for n in counts],
    )
