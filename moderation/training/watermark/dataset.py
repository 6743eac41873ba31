"""Features of composites by the frozen trunk, kept in files of 256, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.detectors.general.watermark import Watermark
from moderation.detectors.general.watermark_network import MarkTrunk
from moderation.detectors.nn.prepare import prepare
from moderation.detectors.views import TensorFrames
from moderation.training.watermark.composites import make_composite
from moderation.training.watermark.marks import known_families
from moderation.training.watermark.targets import cell_targets
from moderation.types import U8

CHUNK: Final = 256
_BATCH: Final = 16
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkFeatures:
    """N composites. fine float16 [N,88,40,40], coarse [N,112,20,20], kinds int8 [N,40,40], owners [N,4,40,40]."""

    fine: torch.Tensor
    coarse: torch.Tensor
    kinds: torch.Tensor
    owners: torch.Tensor
    marked: torch.Tensor


def compute_mark_features(
    backgrounds: Sequence[U8],
    trunk: MarkTrunk,
    count: int,
    folder: Path,
    *,
    seed: int,
    dtype: torch.dtype,
    told: Callable[[int], None] = lambda _done: None,
) -> MarkFeatures:
    """Features of `count` composites: half are marked, and half of the marked and of the clean have look-alikes.

    trunk: with its weights, not prepared. told: called with the number that is done.
    """
    digest = hashlib.sha256(b"".join(hashlib.sha256(b.tobytes()).digest() for b in backgrounds)).hexdigest()
    place = folder / hashlib.sha256(canonical_json([digest, seed, str(dtype), 3]).encode()).hexdigest()[:32]
    ready = prepare(trunk, _CPU, dtype)
    paths = []
    for start in range(0, count, CHUNK):
        path = place / f"{start:06}.safetensors"
        if not path.is_file():
            storage.publish(str(path), _compute_chunk(backgrounds, ready, start, seed, dtype))
        paths.append(path)
        told(min(count, start + CHUNK))
    return _read(paths, count)


def _compute_chunk(backgrounds: Sequence[U8], trunk: MarkTrunk, start: int, seed: int, dtype: torch.dtype) -> bytes:
    from safetensors.torch import save

    families = known_families()
    parts: dict[str, list[torch.Tensor]] = {"fine": [], "coarse": [], "kinds": [], "owners": [], "marked": []}
    for first in range(start, start + CHUNK, _BATCH):
        composites = []
        for number in range(first, first + _BATCH):
            pick = int(np.random.default_rng([seed, 7, number]).integers(len(backgrounds)))
            marked, confusing = number % 2 == 0, number % 4 >= 2
            composites.append(
                make_composite(backgrounds[pick], families, (seed, number), marked=marked, confusing=confusing)
            )
        frames = [c.pixels for c in composites]
        view = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], _CPU).view(Watermark.view)
        with torch.inference_mode():
            fine, coarse = trunk(((view - 127) / 128).to(dtype))
        targets = [cell_targets(c.boxes) for c in composites]
        parts["fine"].append(fine.half().contiguous())
        parts["coarse"].append(coarse.half().contiguous())
        parts["kinds"].append(torch.from_numpy(np.stack([kinds for kinds, _ in targets])))
        parts["owners"].append(torch.from_numpy(np.stack([owners for _, owners in targets])))
        parts["marked"].append(torch.tensor([float(len(c.boxes) > 0) for c in composites]))
    data: bytes = save({name: torch.cat(own) for name, own in parts.items()})
    return data


def _read(paths: Sequence[Path], count: int) -> MarkFeatures:
    from safetensors.torch import load_file

    whole: dict[str, torch.Tensor] = {}
    for number, path in enumerate(paths):
        for name, part in load_file(str(path)).items():
            if name not in whole:
                whole[name] = torch.empty((len(paths) * CHUNK, *part.shape[1:]), dtype=part.dtype)
            whole[name][number * CHUNK : number * CHUNK + len(part)] = part
    return MarkFeatures(**{name: tensor[:count] for name, tensor in whole.items()})
