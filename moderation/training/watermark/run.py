"""`moderation train-watermark`: backgrounds -> composites -> weights of the detector `watermark`, and their card."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.general.imagenet import ImageNet
from moderation.detectors.general.watermark import Watermark, load_marks
from moderation.detectors.general.watermark_network import DEPTHS, MarkNetwork, MarkTrunk, pick_layers
from moderation.detectors.weights.locator import default_cache, resolve
from moderation.errors import UsageError
from moderation.scoring.devices import pick_device, pick_dtype
from moderation.training.watermark.backgrounds import draw_texture, read_backgrounds
from moderation.training.watermark.held_back import MarkFit, even_tuned, hold_back
from moderation.training.watermark.marks import known_families
from moderation.training.watermark.tuning import DRAW, MarkTuning, load_tuning, save_tuning, tune_marks
from moderation.types import U8
from moderation.version import __version__

_LOG = logging.getLogger(__name__)
MARK_FILE: Final = "watermark.safetensors"
MARK_CARD: Final = "card.json"
_FEW: Final = 5  # backgrounds; near copies count on one side


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkOutcome:
    """What was written. fit: the last loss, and figures on held-back composites."""

    uri: str
    sha256: str
    size_bytes: int
    fit: MarkFit
    card: Mapping[str, Any]


def train_watermark(
    config: Config,
    *,
    backgrounds: Sequence[str],
    out: str,
    tuning: MarkTuning,
    licence: str = "unknown",
    cache: Path | None = None,
    start: str | None = None,
    processes: int = 0,
) -> MarkOutcome:
    """Make composites and train the network on them: the trunk from the packaged ImageNet network, the head anew.

    start: a file of weights (`packaged`: those that ship) to go on from. cache: where a killed run finds how far it
    was. processes: that draw composites. Raises UsageError where the call is wrong; FatalError for weights and storage.
    """
    began = time.monotonic()
    known_families()  # fonts that are missing are told before anything is read
    network = _begin(start, tuning.seed)
    grounds = read_backgrounds(backgrounds, config, seed=tuning.seed)
    # Composites on backgrounds that were not learned from fit the scores and the threshold.
    learned, held = hold_back(grounds)
    if min(len(learned), len(held)) < _FEW:
        _LOG.warning(
            "%d backgrounds to learn on and %d held back are few: take hundreds, as different as those to come",
            len(learned), len(held),
        )  # fmt: skip
    fit = _tune(network, learned, held, tuning, config, cache, processes)
    content = _encode(network.state_dict())
    sha256 = hashlib.sha256(content).hexdigest()
    card: dict[str, Any] = {
        "backgrounds": {"pictures": len(grounds), "sources": len(backgrounds), "licence": licence},
        "tuning": {**asdict(tuning), "from": start},
        "held_back": asdict(fit),
        "trunk": {"origin": ImageNet.weights[0].origin, "licence": ImageNet.weights[0].licence, "layers": DEPTHS[-1]},
        "seconds": round(time.monotonic() - began),
        "device": str(pick_device(config.stack.device)),
        "sha256": sha256,
        "code_version": __version__,
    }
    uri = storage.join(out, MARK_FILE)
    storage.publish(uri, content)
    storage.publish(storage.join(out, MARK_CARD), json.dumps(card, indent=1).encode())
    return MarkOutcome(uri=uri, sha256=sha256, size_bytes=len(content), fit=fit, card=card)


def _begin(start: str | None, seed: int) -> MarkNetwork:
    """The network before training. Raises UsageError where there is no such file."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MarkNetwork()
    if start is None:
        network.trunk = packaged_trunk()
        return network
    path = Path(resolve(Watermark.weights[0]) if start == "packaged" else start)
    if not path.is_file():
        raise UsageError(f"--from {start}: no such file; `packaged` are the weights that ship")
    load_marks(network, path)
    return network


def _tune(
    network: MarkNetwork,
    learned: Sequence[U8],
    held: Sequence[U8],
    tuning: MarkTuning,
    config: Config,
    cache: Path | None,
    processes: int,
) -> MarkFit:
    """Train, then fit scores and threshold on held-back backgrounds; a killed run goes on."""
    device = pick_device(config.stack.device)
    dtype = pick_dtype(config.stack.dtype, device)
    textures = [draw_texture(np.random.default_rng([tuning.seed, 4, n])) for n in range(len(learned) // 10)]
    learned = [*learned, *textures]
    digest = hashlib.sha256(
        b"".join(hashlib.sha256(t.numpy().tobytes()).digest() for t in network.state_dict().values())
    )
    for ground in learned:
        digest.update(ground.tobytes())
    key = canonical_json([asdict(tuning), digest.hexdigest()])
    kept = str((cache or default_cache()) / "marks" / "tuning.safetensors")
    loss = 0.0
    tuned = tune_marks(
        network,
        learned,
        tuning,
        device,
        dtype,
        processes=processes,
        resume=load_tuning(kept, key),
        save=partial(save_tuning, kept, key),
    )
    for seen, loss in tuned:
        _LOG.info("%d of %d composites, loss %.3f", seen, tuning.pictures, loss)
    return even_tuned(
        network,
        held,
        pairs=tuning.held // 2,
        more_clean=tuning.held_clean,
        seed=(tuning.seed, DRAW + 1),
        loss=loss,
        device=device,
        dtype=dtype,
    )


def packaged_trunk() -> MarkTrunk:
    """The first layers of the packaged ImageNet network. Raises UsageError, FatalError."""
    backbone = ImageNet({})
    backbone.load(torch.device("cpu"), torch.float32, [str(resolve(backbone.weights[0]))])
    trunk = MarkTrunk()
    trunk.layers.load_state_dict(pick_layers(backbone.trunk()).state_dict())
    return trunk


def _encode(tensors: Mapping[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    # float16 rounds these weights by 0.05%, and halves the file.
    data: bytes = save({name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()})
    return data
