"""The detector whose network a head is trained on, found in the configuration and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from moderation.config.hints import did_you_mean
from moderation.config.model import Config, DetectorConfig
from moderation.detectors.base import Backbone, ClassifyingBackbone, Detector, FrameBatch, Weights
from moderation.detectors.clip.detector import Clip
from moderation.detectors.nn.class_mean import ClassVectors
from moderation.detectors.registry import build, weights_of
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.scoring.devices import pick_device, pick_dtype

# Every installation has these; a configuration need not name them.
_PACKAGED: Final = ("imagenet", "image_safety")
_SIZED: Final = "imagenet"  # can read other sizes than its own


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBackbone:
    """A backbone as configured, not loaded. title: its name in the stack."""

    title: str
    entry: DetectorConfig
    detector: Detector
    weights: Weights

    @property
    def normalised(self) -> bool:
        """Whether heads read its embedding at length 1: only the direction of CLIP's means something."""
        return isinstance(self.detector, Clip)

    @property
    def input_px(self) -> int | None:
        """The side that it was told to read; None: its own."""
        side: int | None = getattr(self.detector, "input_px", None)
        return side


def find_backbone(config: Config, named: str, *, input_px: int | None = None) -> FoundBackbone:
    """`imagenet`, `image_safety`, `clip:VARIANT` (an alias of the configuration), or any title of the stack.

    input_px: the side that it shall read, by an entry of its own (`imagenet_288`); None: as it is configured.
    Raises UsageError naming the nearest, or saying what the detector lacks.
    """
    kind, colon, variant = named.partition(":")
    wanted = variant if colon else named
    entries: Mapping[str, DetectorConfig] = {name: DetectorConfig(name=name) for name in _PACKAGED}
    entries = {**entries, **{entry.title: entry for entry in config.stack.detectors}}
    if input_px is not None:
        wanted, entries = _add_sized(entries, wanted, input_px)
    entry = entries.get(wanted)
    if entry is None or (colon and entry.name != kind):
        hint = did_you_mean(named, _able(entries))
        raise UsageError(f"--backbone {named!r}: no such detector in the configuration{hint}")
    detector = build(entry.model_copy(update={"when": None}))
    if not detector.embedding_dim:
        raise UsageError(f"--backbone {named!r}: has no embedding; there are: {', '.join(_able(entries))}")
    return FoundBackbone(title=entry.title, entry=entry, detector=detector, weights=weights_of(detector, entry)[0])


def takes_side(config: Config, named: str) -> bool:
    """Whether a backbone can read pictures at another size than it is configured with."""
    entry = next((entry for entry in config.stack.detectors if entry.title == named), DetectorConfig(name=named))
    return entry.name == _SIZED and "input_px" not in entry.options


def _add_sized(
    entries: Mapping[str, DetectorConfig], wanted: str, input_px: int
) -> tuple[str, Mapping[str, DetectorConfig]]:
    """(title, entries with one that reads at this size): `imagenet` at 288 pixels is `imagenet_288`."""
    entry = entries.get(wanted)
    if entry is None and wanted == f"{_SIZED}_{input_px}":  # the title that a head notes of its backbone
        entry = entries[_SIZED]
    if entry is None or entry.options.get("input_px") == input_px:
        return wanted, entries
    if entry.name != _SIZED:
        raise UsageError(f"--input-px {input_px}: {wanted!r} reads one size; only {_SIZED!r} can read another")
    title = f"{_SIZED}_{input_px}"
    options = {**entry.options, "input_px": input_px}
    sized = entry.model_copy(update={"alias": title, "when": None, "options": options})
    return title, {title: sized, **entries} if title not in entries else entries


def _able(entries: Mapping[str, DetectorConfig]) -> list[str]:
    """What may be named as a backbone."""
    kept = {title: entry.name for title, entry in entries.items() if entry.name in (*_PACKAGED, "clip")}
    return [f"clip:{title}" if name == "clip" else title for title, name in kept.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBackbone:
    """A backbone on its device. depth: number of layers that stay frozen; None: only its embedding is read."""

    found: FoundBackbone
    device: torch.device
    dtype: torch.dtype
    depth: int | None
    batch_size: int

    @property
    def facts(self) -> dict[str, Any]:
        """All that can change what it computes."""
        detector = self.found.detector
        return {
            "weights": self.found.weights.sha256 or self.found.weights.locator,
            "version": detector.version,
            "view": str(detector.view),
            "pixels": list(getattr(detector, "pixel_facts", ())),
            "dtype": str(self.dtype),
        }

    @property
    def classifier(self) -> ClassVectors | None:
        """Its classes, on the CPU, for heads that read where an embedding lies among them; None where it has none."""
        detector = self.found.detector
        if not isinstance(detector, ClassifyingBackbone):
            return None
        own = detector.class_vectors()
        return ClassVectors(weight_KD=own.weight_KD.cpu(), bias_K=own.bias_K.cpu())

    def feature_bytes(self) -> int:
        """Size of the float16 features at `depth` of one view of a picture."""
        view = self.found.detector.view
        blank = np.zeros((view.crop, view.crop, 3), dtype=np.uint8)
        _, features = self.look(TensorFrames([blank], [(view.crop, view.crop)], self.device))
        return 0 if features is None else features.nbytes

    def look(self, frames: FrameBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(embeddings float32 [B,D], features float16 [B,C,h,w] at `depth`), on the CPU; as the stack computes them."""
        half = torch.autocast(self.device.type, torch.bfloat16) if self.dtype == torch.bfloat16 else nullcontext()
        with torch.inference_mode(), half:
            scored = self.found.detector.score(frames, {})
        assert scored.embedding is not None  # find_backbone() requested it
        embedding = scored.embedding.float()
        if self.found.normalised:
            embedding = nn.functional.normalize(embedding, dim=1)
        features = None if self.depth is None else scored.features[self.depth].half().cpu().contiguous()
        return embedding.cpu(), features


def load_backbone(found: FoundBackbone, config: Config, *, blocks: int = 0, depth: int | None = None) -> LoadedBackbone:
    """Load a backbone so that it also returns the input of its last `blocks` layers (0: only the embedding).

    depth: the same by the number of layers below. Raises UsageError, FatalError.
    """
    device = pick_device(config.stack.device)
    dtype = pick_dtype(config.stack.dtype, device)
    depth = _depth(found, blocks) if blocks else depth
    if depth is not None and isinstance(found.detector, Backbone):
        found.detector.offer_features(depth)
    if isinstance(found.detector, ClassifyingBackbone):
        found.detector.offer_class_mean()
    paths = [str(resolve(weights)) for weights in weights_of(found.detector, found.entry)]
    found.detector.load(device, dtype, paths)
    batch_size = config.stack.frames_per_batch(on_gpu=device.type == "cuda")
    return LoadedBackbone(found=found, device=device, dtype=dtype, depth=depth, batch_size=batch_size)


def _depth(found: FoundBackbone, blocks: int) -> int:
    if not isinstance(found.detector, Backbone):
        raise UsageError(
            f"--blocks {blocks}: the layers of {found.title!r} can't be trained here;"
            " --blocks 0 trains a probe on its embedding"
        )
    layers = len(found.detector.build_trunk())
    if blocks >= layers:
        raise UsageError(f"--blocks {blocks}: {found.title!r} has {layers} layers; at least one stays as it is")
    return layers - blocks


def tail_layers(backbone: LoadedBackbone) -> nn.Sequential:
    """A copy of the layers from `depth` on, float32, ready to be trained."""
    detector = backbone.found.detector
    assert isinstance(detector, Backbone) and backbone.depth is not None  # load_backbone() ensures it
    tail = detector.build_trunk()[backbone.depth :]
    loaded = detector.trunk()[backbone.depth :]
    tail.load_state_dict({name: tensor.detach().float().cpu() for name, tensor in loaded.state_dict().items()})
    return tail.requires_grad_(True)
