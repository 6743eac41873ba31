"""Image embeddings of a source's items, each computed once: cached by content hash and model in safetensors files."""

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
from moderation.concurrency import map_ahead
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.network import ClipNetwork
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.media import DECODE_VERSION, decode_item
from moderation.scoring.devices import pick_device, pick_dtype
from moderation.sources.fetch import Fetcher
from moderation.types import F32, Frame, Item

_CHUNK = 1024  # pictures a file of the cache: what an interruption loses
_THREADS = 8
_BUDGET_BYTES = 256 << 20
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Embeddings of the items that could be read.

    kept: indices of those items, int64 [N]. hashes: sha256 of their bytes. vectors: variant -> float32 [N,D],
    normalised. failed: uri -> why. computed: pictures that were not in every variant's cache.
    """

    kept: np.ndarray[tuple[int], np.dtype[np.int64]]
    hashes: tuple[str, ...]
    vectors: Mapping[str, F32]
    failed: Mapping[str, str]
    computed: int


class Cache:
    """Embeddings of one model in a folder: files of up to 1,024 rows, each naming its pictures in its header."""

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
        """Remember one, float32 [D]; written with others, or by `flush`."""
        self._fresh[name] = vector
        if len(self._fresh) % _CHUNK == 0:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written."""
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
        found: dict[int, F32] = {}
        for place, name in enumerate(names):
            if name in self._fresh:
                found[place] = self._fresh[name].numpy()
            else:
                path, row = self._rows[name]
                wanted.setdefault(path, []).append((place, row))
        for path, rows in wanted.items():
            with safe_open(str(path), framework="np") as file:
                table = file.get_tensor("embeddings")
            found.update({place: table[row] for place, row in rows})
        return np.stack([found[place] for place in range(len(names))]).astype(np.float32, copy=False)


def embed_items(
    items: Sequence[Item], variants: Sequence[tuple[Clip, ClipNetwork]], config: Config, folder: Path
) -> Embedded:
    """The embeddings of items by every variant; a network's image tower runs only on what its cache lacks.

    Of an item with several frames the one in the middle stands for it. What cannot be read is in `failed`.
    """
    device = pick_device(config.stack.device)
    dtype = pick_dtype(config.stack.dtype, device)
    caches = {clip.name: Cache(folder / _cache_key(clip, net, config, dtype)) for clip, net in variants}
    fetch = Fetcher(items, config.media)

    def read(item: Item) -> tuple[Item, str | None, Frame | None, str]:
        payloads = fetch(item)
        whole = [p for p in payloads if isinstance(p, bytes)]
        if len(whole) != len(payloads) or not whole:
            return item, None, None, str(next((p for p in payloads if not isinstance(p, bytes)), "nothing to read"))
        name = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in whole)).hexdigest()
        if all(name in cache for cache in caches.values()):
            return item, name, None, ""
        media = decode_item(item, payloads, config.media)
        if not media.frames:
            return item, name, None, f"{media.error}: {media.error_detail}"
        return item, name, media.frames[len(media.frames) // 2], ""

    names: list[str | None] = []
    failed: dict[str, str] = {}
    waiting: dict[str, Frame] = {}
    towers: list[Clip] = []
    computed = 0

    def embed_waiting() -> None:
        nonlocal computed
        if waiting and not towers:
            towers.extend(_load(clip, device, dtype) for clip, _ in variants)
        for clip in towers if waiting else ():
            _embed(clip, caches[clip.name], waiting, device, dtype)
        computed += len(waiting)
        waiting.clear()

    with ThreadPoolExecutor(_THREADS) as pool:
        reading = map_ahead(
            read,
            items,
            pool,
            most=4 * _THREADS,
            budget_bytes=_BUDGET_BYTES,
            expected_bytes=lambda item: item.size_bytes + 3 * config.media.canvas_px**2 * 2,
            held_bytes=lambda found: found[2].pixels.nbytes if found[2] is not None else 0,
        )
        with closing(reading):
            for item, name, frame, why in reading:
                if frame is not None and name is not None:
                    waiting[name] = frame
                if why or name is None:
                    failed[item.uri] = why
                    name = None
                names.append(name)
                if len(waiting) >= config.stack.batch_size:
                    embed_waiting()
    embed_waiting()
    for cache in caches.values():
        cache.flush()
    kept = [i for i, name in enumerate(names) if name is not None]
    hashes = tuple(name for name in names if name is not None)
    vectors = {name: cache.read(hashes) if hashes else np.zeros((0, 0), np.float32) for name, cache in caches.items()}
    return Embedded(
        kept=np.array(kept, dtype=np.int64), hashes=hashes, vectors=vectors, failed=failed, computed=computed
    )


def _load(clip: Clip, device: torch.device, dtype: torch.dtype) -> Clip:
    clip.load(device, dtype, [str(resolve(clip.weights[0]))])
    return clip


def _embed(clip: Clip, cache: Cache, frames: Mapping[str, Frame], device: torch.device, dtype: torch.dtype) -> None:
    names = [name for name in frames if name not in cache]
    if not names:
        return
    chosen = [frames[name] for name in names]
    batch = TensorFrames([f.pixels for f in chosen], [(f.width, f.height) for f in chosen], device)
    half = torch.autocast(device.type, torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()
    with torch.inference_mode(), half:  # as the stack runs it
        found = torch.nn.functional.normalize(clip.embed(batch).float(), dim=1).cpu()
    for name, vector in zip(names, found, strict=True):
        cache.add(name, vector.clone())


def _cache_key(clip: Clip, network: ClipNetwork, config: Config, dtype: torch.dtype) -> str:
    facts = {
        "model": clip.model_key(network),
        "view": str(clip.view),
        "pixels": clip.pixel_facts,
        "dtype": str(dtype),
        "decoding": DECODE_VERSION,
        "canvas": config.media.canvas_px,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32]


def _names_of(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            names = (file.metadata() or {}).get("names", "").split()
            rows = file.get_slice("embeddings").get_shape()[0]
    except (SafetensorError, OSError):
        return []  # damaged, or not of ours: its pictures are embedded anew
    return names if len(names) == rows else []
