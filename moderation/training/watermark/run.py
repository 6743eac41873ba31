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
from moderation.detectors.general.watermark_network import DEPTHS, MarkHead, MarkNetwork, MarkTrunk
from moderation.detectors.weights.locator import default_cache, resolve
from moderation.errors import UsageError
from moderation.scoring.devices import pick_device, pick_dtype
from moderation.training.watermark.backgrounds import draw_texture, read_backgrounds
from moderation.training.watermark.dataset import MarkFeatures, compute_mark_features
from moderation.training.watermark.descent import MarkRound, MarkSettings, train_marks
from moderation.training.watermark.held_back import even_tuned, hold_back
from moderation.training.watermark.tuning import DRAW, MarkTuning, load_tuning, save_tuning, tune_marks
from moderation.types import U8
from moderation.version import __version__

_LOG = logging.getLogger(__name__)
MARK_FILE: Final = "watermark.safetensors"
MARK_CARD: Final = "card.json"
_MAX_COMPOSITES: Final = 40_000  # their features take 15 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkOutcome:
    """What was written. rounds: losses, and accuracy on held-back composites."""

    uri: str
    sha256: str
    size_bytes: int
    rounds: tuple[MarkRound, ...]
    card: Mapping[str, Any]


def train_watermark(
    config: Config,
    *,
    backgrounds: Sequence[str],
    out: str,
    composites: int,
    settings: MarkSettings,
    licence: str = "unknown",
    cache: Path | None = None,
    tuning: MarkTuning | None = None,
    start: str | None = None,
) -> MarkOutcome:
    """Make composites, compute the frozen trunk's features of them (kept in the cache), and train the head.

    tuning: then layers of the trunk are trained with the head. start: a file of weights (`packaged`: those that ship)
    that tuning starts from, in place of a new head. Raises UsageError where the call is wrong; FatalError for weights
    and storage.
    """
    if not 0 < composites <= _MAX_COMPOSITES:
        raise UsageError(f"--composites {composites}: 1 to {_MAX_COMPOSITES:,}")
    if start is not None and tuning is None:
        raise UsageError("--from needs --tune, the number of composites to go on with")
    began = time.monotonic()
    network = MarkNetwork()
    if start is not None:
        load_marks(network, _weights_file(start))
    grounds = read_backgrounds(backgrounds, config, seed=settings.seed)
    # Composites on backgrounds that were not learned from fit the scores and the threshold.
    learned, held = (grounds, []) if tuning is None else hold_back(grounds)
    device = pick_device(config.stack.device)
    rounds: tuple[MarkRound, ...] = ()
    if start is None:
        network, rounds = _train_head(learned, composites, settings, device, config, cache)
    if tuning is not None:
        rounds = (*rounds, _tune(network, learned, held, tuning, device, config, cache))
    content = _encode(network.state_dict())
    sha256 = hashlib.sha256(content).hexdigest()
    card: dict[str, Any] = {
        "backgrounds": {"pictures": len(grounds), "sources": len(backgrounds), "licence": licence},
        "composites": composites if start is None else 0,
        "settings": asdict(settings),
        "tuning": None if tuning is None else {**asdict(tuning), "from": start},
        "held_back": [asdict(each) for each in rounds],
        "trunk": {"origin": ImageNet.weights[0].origin, "licence": ImageNet.weights[0].licence, "layers": DEPTHS[-1]},
        "seconds": round(time.monotonic() - began),
        "sha256": sha256,
        "code_version": __version__,
    }
    uri = storage.join(out, MARK_FILE)
    storage.publish(uri, content)
    storage.publish(storage.join(out, MARK_CARD), json.dumps(card, indent=1).encode())
    return MarkOutcome(uri=uri, sha256=sha256, size_bytes=len(content), rounds=rounds, card=card)


def _weights_file(start: str) -> Path:
    """Raises UsageError where there is no such file."""
    path = Path(resolve(Watermark.weights[0]) if start == "packaged" else start)
    if not path.is_file():
        raise UsageError(f"--from {start}: no such file; `packaged` are the weights that ship")
    return path


def _train_head(
    grounds: Sequence[U8],
    composites: int,
    settings: MarkSettings,
    device: torch.device,
    config: Config,
    cache: Path | None,
) -> tuple[MarkNetwork, tuple[MarkRound, ...]]:
    """A head on the frozen trunk."""
    network = MarkNetwork()
    network.trunk = packaged_trunk()
    dtype = pick_dtype(config.stack.dtype, torch.device("cpu"))
    features = compute_mark_features(
        grounds,
        packaged_trunk(),
        composites,
        (cache or default_cache()) / "marks",
        seed=settings.seed,
        dtype=dtype,
        told=lambda done: _LOG.info("%d of %d composites", done, composites),
    )
    network.head, rounds = _train(features, settings, device)
    return network, rounds


def _tune(
    network: MarkNetwork,
    learned: Sequence[U8],
    held: Sequence[U8],
    tuning: MarkTuning,
    device: torch.device,
    config: Config,
    cache: Path | None,
) -> MarkRound:
    """Train layers and head, then fit scores and threshold on held-back backgrounds; a killed run goes on."""
    textures = [draw_texture(np.random.default_rng([tuning.seed, 4, n])) for n in range(len(learned) // 10)]
    learned = [*learned, *textures]
    digest = hashlib.sha256(
        b"".join(hashlib.sha256(t.numpy().tobytes()).digest() for t in network.state_dict().values())
    )
    for ground in learned:
        digest.update(ground.tobytes())
    key = canonical_json([asdict(tuning), digest.hexdigest()])
    kept = str((cache or default_cache()) / "marks" / "tuning.safetensors")
    dtype = pick_dtype(config.stack.dtype, device)
    loss = 0.0
    tuned = tune_marks(
        network, learned, tuning, device, dtype, resume=load_tuning(kept, key), save=partial(save_tuning, kept, key)
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
    trunk.layers.load_state_dict(backbone.trunk()[: DEPTHS[-1]].state_dict())
    return trunk


def _train(
    features: MarkFeatures, settings: MarkSettings, device: torch.device
) -> tuple[MarkHead, tuple[MarkRound, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        head = MarkNetwork().head
    rounds = []
    for epoch in train_marks(head, features, settings, device):
        facts = (epoch.number, epoch.cells, epoch.loss, epoch.held_right)
        _LOG.info("round %d: %d cells, loss %.3f, held-back right %.3f", *facts)
        rounds.append(epoch)
    return head, tuple(rounds)


def _encode(tensors: Mapping[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    # float16 rounds these weights by 0.05%, and halves the file.
    data: bytes = save({name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()})
    return data
