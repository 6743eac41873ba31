"""Backgrounds for marks: photographs of a source, and plain drawn grounds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.training.reading import READ_THREADS, read_items
from moderation.types import U8

_Heights = npt.NDArray[np.float32]
_MAX_BACKGROUNDS: Final = 4000  # held in memory, at 0.6 MB each
_DRAWN_SHARE: Final = 0.08  # of all: screens, drawings and cards have plain grounds
_SIDE_PX: Final = 448


def read_backgrounds(sources: Sequence[str], config: Config, *, seed: int) -> list[U8]:
    """Pictures of the sources as decoded, then drawn grounds.

    Raises UsageError where a source has no picture that can be read.
    """
    photographs: list[U8] = []
    for source in sources:
        items = list(islice(open_source(source, config.source), _MAX_BACKGROUNDS - len(photographs)))
        before = len(photographs)
        with (
            ThreadPoolExecutor(READ_THREADS) as pool,
            closing(read_items(items, lambda _name: False, config, pool)) as reading,
        ):
            photographs += [read.frame.pixels for read in reading if read.frame is not None]
        if len(photographs) == before:
            raise UsageError(f"--backgrounds {source}: no picture that can be read")
    drawn = round(len(photographs) * _DRAWN_SHARE) + 1
    return [*photographs, *(draw_ground(np.random.default_rng([seed, 3, number])) for number in range(drawn))]


def draw_ground(rng: np.random.Generator) -> U8:
    """A gradient between two colours with some shapes and a little noise, uint8 [448,448,3]."""
    y, x = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX].astype(np.float32) / _SIDE_PX
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x + np.sin(angle) * y)[..., None] * rng.uniform(0, 0.8)
    first, second = rng.uniform(0, 255, (2, 3))
    pixels = first + (second - first) * slope
    for _ in range(int(rng.integers(0, 5))):
        x0, y0 = rng.uniform(-0.2, 0.8, 2)
        w, h = rng.uniform(0.1, 0.7, 2)
        inside = (x > x0) & (x < x0 + w) & (y > y0) & (y < y0 + h)
        if rng.random() < 0.5:
            inside = ((x - x0) / w) ** 2 + ((y - y0) / h) ** 2 < 1
        pixels[inside] = rng.uniform(0, 255, 3)
    pixels += rng.normal(0, rng.uniform(0, 8), pixels.shape)
    drawn: U8 = pixels.clip(0, 255).astype(np.uint8)
    return drawn


def draw_texture(rng: np.random.Generator) -> U8:
    """A pattern as of cloth, carpet or stone in two colours, uint8 [448,448,3]: most false alarms were on such."""
    y, x = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX].astype(np.float32) / _SIDE_PX
    height = _band_noise(rng)
    if rng.random() < 0.6:
        height = height * rng.uniform(0.2, 1) + 2 * _lattice(x, y, rng)
    share = 1 / (1 + np.exp(-height * rng.uniform(0.4, 3)))
    first, second = rng.uniform(0, 255, (2, 3))
    second = first + (second - first) * rng.uniform(0.15, 1)
    light = 1 + rng.uniform(-0.4, 0.4) * (x - 0.5)
    pixels = (first + (second - first) * share[..., None]) * light[..., None] + rng.normal(0, 4, (*x.shape, 3))
    drawn: U8 = pixels.clip(0, 255).astype(np.uint8)
    return drawn


def _band_noise(rng: np.random.Generator) -> _Heights:
    """Noise of one band of frequencies, longer in one direction, of deviation 1."""
    fy, fx = np.fft.fftfreq(_SIDE_PX)[:, None] * _SIDE_PX, np.fft.rfftfreq(_SIDE_PX)[None] * _SIDE_PX
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 5)
    along, across = np.cos(angle) * fx + np.sin(angle) * fy, stretch * (np.cos(angle) * fy - np.sin(angle) * fx)
    centre = np.exp(rng.uniform(np.log(4), np.log(90)))
    band = np.exp(-(np.log((np.hypot(along, across) + 0.5) / centre) ** 2) / rng.uniform(0.1, 1.5))
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(_SIDE_PX, _SIDE_PX))) * band, s=(_SIDE_PX, _SIDE_PX))
    heights: _Heights = (noise / max(1e-6, float(noise.std()))).astype(np.float32)
    return heights


def _lattice(x: _Heights, y: _Heights, rng: np.random.Generator) -> _Heights:
    """Stripes, checks or dots, -1..1."""
    turn, count = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(60)))
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    waves = np.sin(2 * np.pi * count * u)
    if rng.random() < 0.6:
        waves = waves * np.sin(2 * np.pi * count * rng.uniform(0.5, 1) * v)
    heights: _Heights = np.tanh(waves * rng.uniform(1, 6)).astype(np.float32)
    return heights
