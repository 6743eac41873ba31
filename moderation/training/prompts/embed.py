"""Image embeddings of a source's items, each computed once; cached by content hash and model in safetensors files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.network import ClipNetwork
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.media import DECODE_VERSION
from moderation.scoring.devices import pick_device, pick_dtype
from moderation.training.reading import READ_THREADS, read_items
from moderation.types import F32, Frame, Item

_CHUNK = 1024  # pictures per cache file: an interruption loses at most this many
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Embeddings of the items that could be read.

    kept: indices of those items, int64 [N]. hashes: sha256 of their bytes. vectors: variant -> float32 [N,D],
    normalised. failed: uri -> why. computed: pictures that some variant's cache lacked.
    """

    kept: np.ndarray[tuple[int], np.dtype[np.int64]]
    hashes: tuple[str, ...]
    vectors: Mapping[str, F32]
    failed: Mapping[str, str]
    computed: int


class EmbeddingCache:
    """Embeddings of one model in a folder: files of up to 1,024 rows, each with its pictures' names in its header."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, tuple[Path, int]] = {}
        self._fresh: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for row, name in enumerate(_names_of(path)):
                self._rows[name] = (path, row)

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._fresh

    def add(self, name: str, vector: torch.Tensor) -> None:
        """Add one embedding, float32 [D]; it is written with others, or by `flush`."""
        self._fresh[name] = vector
        if len(self._fresh) % _CHUNK == 0:
            self.flush()

    def flush(self) -> None:
        """Write the embeddings that are not written yet."""
        from safetensors.torch import save

        names = [name for name in self._fresh if name not in self._rows]
        if not names:
            return
        data = save({"embeddings": torch.stack([self._fresh[n] for n in names])}, metadata={"names": " ".join(names)})
        path = self._folder / f"{hashlib.sha256(' '.join(names).encode()).hexdigest()[:32]}.safetensors"
        try:
            storage.publish(str(path), data)
        except OSError as error:
            _LOG.warning("cache not written: %s", error)  # costs time, not the result
            return
        self._rows.update({name: (path, row) for row, name in enumerate(names)})

    def read(self, names: Sequence[str]) -> F32:
        """float32 [N,D]. Raises KeyError for a name that was never added."""
        from safetensors import safe_open

        wanted: dict[Path, list[tuple[int, int]]] = {}
        vectors: dict[int, F32] = {}
        for place, name in enumerate(names):
            if name in self._fresh:
                vectors[place] = self._fresh[name].numpy()
            else:
                path, row = self._rows[name]
                wanted.setdefault(path, []).append((place, row))
        for path, rows in wanted.items():
            with safe_open(str(path), framework="np") as file:
                table = file.get_tensor("embeddings")
            vectors.update({place: table[row] for place, row in rows})
        return np.stack([vectors[place] for place in range(len(names))]).astype(np.float32, copy=False)


def embed_items(
    items: Sequence[Item], variants: Sequence[tuple[Clip, ClipNetwork]], config: Config, folder: Path
) -> Embedded:
    """Embed items by every variant; an image tower runs only on pictures that its cache lacks.

    An item with several frames is represented by the middle one. Items that cannot be read are in `failed`.
    """
    towers = _Towers(variants, config, folder)
    names: list[str | None] = []
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(READ_THREADS) as pool, closing(read_items(items, towers.have, config, pool)) as reading:
        for read in reading:
            if read.problem or read.name is None:
                failed[read.item.uri] = read.problem
                names.append(None)
                continue
            names.append(read.name)
            if read.frame is not None:
                towers.add(read.name, read.frame)
    towers.finish()
    hashes = tuple(name for name in names if name is not None)
    return Embedded(
        kept=np.array([i for i, name in enumerate(names) if name is not None], dtype=np.int64),
        hashes=hashes,
        vectors=towers.read(hashes),
        failed=failed,
        computed=towers.computed,
    )


class _Towers:
    """The image towers of all variants with their caches; loaded at the first frame, run batch by batch."""

    def __init__(self, variants: Sequence[tuple[Clip, ClipNetwork]], config: Config, folder: Path) -> None:
        self._device = pick_device(config.stack.device)
        self._dtype = pick_dtype(config.stack.dtype, self._device)
        self._batch_size = config.stack.frames_per_batch(on_gpu=self._device.type == "cuda")
        self._clips = [clip for clip, _ in variants]
        self._caches = {
            clip.name: EmbeddingCache(folder / _cache_key(clip, network, config, self._dtype))
            for clip, network in variants
        }
        self._loaded: list[Clip] = []
        self._waiting: dict[str, Frame] = {}
        self.computed = 0

    def have(self, name: str) -> bool:
        """Whether every variant's cache has this picture."""
        return all(name in cache for cache in self._caches.values())

    def add(self, name: str, frame: Frame) -> None:
        """Embed a picture, in a batch with others."""
        self._waiting[name] = frame
        if len(self._waiting) >= self._batch_size:
            self._embed_waiting()

    def finish(self) -> None:
        """Embed the pictures still waiting, and write the caches."""
        self._embed_waiting()
        for cache in self._caches.values():
            cache.flush()

    def read(self, names: Sequence[str]) -> dict[str, F32]:
        """Variant -> float32 [N,D]."""
        return {
            variant: cache.read(names) if names else np.zeros((0, 0), np.float32)
            for variant, cache in self._caches.items()
        }

    def _embed_waiting(self) -> None:
        if not self._waiting:
            return
        if not self._loaded:
            self._loaded = [_load(clip, self._device, self._dtype) for clip in self._clips]
        for clip in self._loaded:
            _embed(clip, self._caches[clip.name], self._waiting, self._device, self._dtype)
        self.computed += len(self._waiting)
        self._waiting.clear()


def _load(clip: Clip, device: torch.device, dtype: torch.dtype) -> Clip:
    clip.load(device, dtype, [str(resolve(clip.weights[0]))])
    return clip


def _embed(
    clip: Clip, cache: EmbeddingCache, frames: Mapping[str, Frame], device: torch.device, dtype: torch.dtype
) -> None:
    names = [name for name in frames if name not in cache]
    if not names:
        return
    chosen = [frames[name] for name in names]
    batch = TensorFrames([f.pixels for f in chosen], [(f.width, f.height) for f in chosen], device)
    half = torch.autocast(device.type, torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()
    with torch.inference_mode(), half:  # as the stack does
        vectors = torch.nn.functional.normalize(clip.embed(batch).float(), dim=1).cpu()
    for name, vector in zip(names, vectors, strict=True):
        cache.add(name, vector.clone())


def _cache_key(clip: Clip, network: ClipNetwork, config: Config, dtype: torch.dtype) -> str:
    inputs = {
        "model": clip.model_key(network),
        "view": str(clip.view),
        "pixels": clip.pixel_facts,
        "dtype": str(dtype),
        "decoding": DECODE_VERSION,
        "canvas": config.media.canvas_px,
    }
    return hashlib.sha256(canonical_json(inputs).encode()).hexdigest()[:32]


def _names_of(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            names = (file.metadata() or {}).get("names", "").split()
            rows = file.get_slice("embeddings").get_shape()[0]
    except (SafetensorError, OSError):
        return []  # damaged or foreign: its pictures are embedded again
    return names if len(names) == rows else []
