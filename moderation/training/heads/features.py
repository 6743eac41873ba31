"""Embeddings and features of labelled pictures and of augmented views of them; each computed once.

Kept in the cache folder as safetensors files of up to 256 pictures, so that a killed run goes on where it was.
Shape suffixes: N pictures, V views, C channels, D embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.views import TensorFrames
from moderation.media import DECODE_VERSION
from moderation.training.heads.backbone import LoadedBackbone
from moderation.training.heads.views import VIEWS_VERSION, draw_view
from moderation.training.reading import READ_THREADS, read_items
from moderation.types import Frame, Item

_CHUNK: Final = 256  # pictures per file, and the most that an interruption loses


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of the readable pictures, each content once.

    kept: indices of those items, int64 [N]. names: sha256 of their bytes. embeddings: float32 [N,V,D]; view 0 is the
    picture as the detector sees it. features: float16 [N,V,C,h,w] at the requested depth, None where none was.
    failed: uri -> why. repeated: (kept, left out) indices of items with the same bytes. computed: how many were not in
    the cache.
    """

    kept: np.ndarray[tuple[int], np.dtype[np.int64]]
    names: tuple[str, ...]
    embeddings: torch.Tensor
    features: torch.Tensor | None
    failed: dict[str, str]
    repeated: tuple[tuple[int, int], ...]
    computed: int


def compute_features(
    items: Sequence[Item], backbone: LoadedBackbone, config: Config, folder: Path, *, views: int, seed: int
) -> Features:
    """Embeddings, and features at `backbone.depth`, of `views` views of each item.

    Raises FatalError where the cache folder can't be written.
    """
    place = folder / _cache_key(backbone, config, views, seed)
    store = FeatureStore(place)
    failed: dict[str, str] = {}
    first: dict[str, int] = {}
    repeated: list[tuple[int, int]] = []
    computed = 0
    batch: list[tuple[str, Frame]] = []
    with (
        ThreadPoolExecutor(READ_THREADS) as pool,
        closing(read_items(items, lambda name: name in store, config, pool)) as reading,
    ):
        for index, read in enumerate(reading):
            if read.problem or read.name is None:
                failed[read.item.uri] = read.problem
                continue
            if first.setdefault(read.name, index) != index:
                repeated.append((first[read.name], index))
            elif read.frame is not None:
                batch.append((read.name, read.frame))
                computed += 1
            if len(batch) >= backbone.batch_size:
                store.add(*_compute(batch, backbone, views, seed))
                batch = []
        if batch:
            store.add(*_compute(batch, backbone, views, seed))
        store.flush()
    names = tuple(first)
    embeddings, features = store.read(names)
    return Features(
        kept=np.array(list(first.values()), dtype=np.int64),
        names=names,
        embeddings=embeddings,
        features=features,
        failed=failed,
        repeated=tuple(repeated),
        computed=computed,
    )


class FeatureStore:
    """Embeddings and features of one backbone, depth and augmentation in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, tuple[Path, int]] = {}
        self._fresh: list[tuple[str, torch.Tensor, torch.Tensor | None]] = []
        for path in sorted(folder.glob("*.safetensors")):
            self._rows.update({name: (path, row) for row, name in enumerate(_names_of(path))})

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def add(self, names: Sequence[str], embeddings: torch.Tensor, features: torch.Tensor | None) -> None:
        """Add those of a batch: float32 [B,V,D] and float16 [B,V,C,h,w]."""
        for row, name in enumerate(names):
            self._fresh.append((name, embeddings[row], None if features is None else features[row]))
        if len(self._fresh) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written. Raises FatalError."""
        from safetensors.torch import save

        if not self._fresh:
            return
        names = [name for name, _, _ in self._fresh]
        tensors = {"embeddings": torch.stack([e for _, e, _ in self._fresh])}
        if self._fresh[0][2] is not None:
            tensors["features"] = torch.stack([f for _, _, f in self._fresh if f is not None])
        path = self._folder / f"{hashlib.sha256(' '.join(names).encode()).hexdigest()[:32]}.safetensors"
        storage.publish(str(path), save(tensors, metadata={"names": " ".join(names)}))
        self._rows.update({name: (path, row) for row, name in enumerate(names)})
        self._fresh.clear()

    def read(self, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(float32 [N,V,D], float16 [N,V,C,h,w] or None), in the order of the names."""
        from safetensors import safe_open

        rows: dict[Path, list[tuple[int, int]]] = {}
        for place, name in enumerate(names):
            path, row = self._rows[name]
            rows.setdefault(path, []).append((place, row))
        whole: dict[str, torch.Tensor] = {}
        for path, wanted in rows.items():
            places, chosen = (torch.tensor(side) for side in zip(*wanted, strict=True))
            with safe_open(str(path), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - an open file is not a mapping
                    part = file.get_tensor(key)
                    if key not in whole:
                        whole[key] = torch.empty((len(names), *part.shape[1:]), dtype=part.dtype)
                    whole[key][places] = part[chosen]
        return whole.get("embeddings", torch.zeros((0, 1, 0))), whole.get("features")


def _compute(
    batch: Sequence[tuple[str, Frame]], backbone: LoadedBackbone, views: int, seed: int
) -> tuple[list[str], torch.Tensor, torch.Tensor | None]:
    names = [name for name, _ in batch]
    by_view = [_look(batch, backbone, view, seed) for view in range(views)]
    embeddings = torch.stack([e for e, _ in by_view], dim=1)
    deep = [f for _, f in by_view if f is not None]
    return names, embeddings, torch.stack(deep, dim=1) if deep else None


def _look(
    batch: Sequence[tuple[str, Frame]], backbone: LoadedBackbone, view: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if view == 0:
        frames, sizes = [f.pixels for _, f in batch], [(f.width, f.height) for _, f in batch]
    else:
        frames = [draw_view(f.pixels, name, view, seed) for name, f in batch]
        sizes = [(pixels.shape[1], pixels.shape[0]) for pixels in frames]
    return backbone.look(TensorFrames(frames, sizes, backbone.device))


def _cache_key(backbone: LoadedBackbone, config: Config, views: int, seed: int) -> str:
    facts = {
        "backbone": backbone.facts,
        "depth": backbone.depth,
        "decoding": DECODE_VERSION,
        "canvas": config.media.canvas_px,
        "views": views,
        "seed": seed if views > 1 else 0,
        "augmentation": VIEWS_VERSION if views > 1 else 0,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32]


def _names_of(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            names = (file.metadata() or {}).get("names", "").split()
            rows = file.get_slice("embeddings").get_shape()[0]
    except (SafetensorError, OSError):
        return []  # damaged or foreign: its pictures are computed anew
    return names if len(names) == rows else []
