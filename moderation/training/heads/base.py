"""The head that another continues: its file, and what it has learned from, read from its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from moderation import storage
from moderation.config.model import Config
from moderation.detectors.base import Weights
from moderation.detectors.heads.head_file import TAIL, HeadRecord, read_head_record, read_head_tensors
from moderation.detectors.nn.class_mean import ClassVectors
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.training.heads.backbone import LoadedBackbone, find_backbone, load_backbone, tail_layers
from moderation.training.heads.bundle import HEAD_FILE, REPLAY_FILE, locator_of
from moderation.training.heads.features import Features
from moderation.training.heads.finetune import TunedNetwork, embed_views
from moderation.training.heads.probe import Probe, read_embeddings
from moderation.training.heads.replay import ReplayMemory, read_replay


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadBase:
    """A head as its bundle has it.

    settings: how it was trained. learned: pictures in all; `memory` has some of them. classifier: of its backbone,
    where the head reads the place among its classes; `with_classifier` sets it.
    """

    uri: str
    sha256: str
    record: HeadRecord
    tensors: Mapping[str, torch.Tensor]
    memory: ReplayMemory
    settings: Mapping[str, Any]
    learned: int
    classifier: ClassVectors | None = None

    @property
    def views(self) -> int:
        """Views of a picture that it has learned from."""
        return self.memory.embeddings.shape[1]

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Float32 [N,A] of embeddings [N,D], before the temperature."""
        if self.record.reads == "embedding_and_classes" and self.classifier is None:
            raise RuntimeError("with_classifier() first")
        return read_embeddings(embeddings, self.classifier) @ self.tensors["weight"].T + self.tensors["bias"]


def read_base(bundle: str) -> HeadBase:
    """Read a bundle of `train-head`. Raises UsageError where it is none, or its files are not of one head."""
    uri = storage.join(bundle, HEAD_FILE)
    try:
        storage.info(uri)
    except FileNotFoundError as error:
        raise UsageError(
            f"--from {bundle}: no {HEAD_FILE} there; name a folder that `train-head` has written"
        ) from error
    memory, facts = read_replay(storage.join(bundle, REPLAY_FILE))
    sha256 = str(facts.get("head"))
    # Raises FatalError where the head is not the one whose pictures these are.
    path = resolve(Weights(locator=locator_of(uri), sha256=sha256, licence="unknown", origin=bundle))
    record = read_head_record(path)
    if memory.classes != record.classes:
        raise UsageError(f"--from {bundle}: {REPLAY_FILE} is of other classes than {HEAD_FILE}; train it again")
    settings = facts.get("settings")
    return HeadBase(
        uri=uri,
        sha256=sha256,
        record=record,
        tensors=read_head_tensors(path, record),
        memory=memory,
        settings=settings if isinstance(settings, Mapping) else {},
        learned=int(facts.get("learned") or len(memory.names)),
    )


def load_base_backbone(base: HeadBase, config: Config) -> LoadedBackbone:
    """The network that the head was trained on, with its features where the head has layers of its own.

    Raises UsageError where the configuration has another one.
    """
    record = base.record
    found = find_backbone(config, record.backbone.detector, input_px=record.backbone.input_px)
    if found.weights.sha256.lower() != record.backbone.sha256.lower():
        raise UsageError(
            f"--from {base.uri}: trained on {record.backbone.detector!r} with other weights than the configuration has"
            f" (sha256 {record.backbone.sha256[:12]}..., here {found.weights.sha256[:12] or 'unknown'}...)"
        )
    return load_backbone(found, config, depth=record.depth)


def with_classifier(base: HeadBase, backbone: LoadedBackbone) -> HeadBase:
    """The head, able to answer where it reads the place among the classes of its backbone, too."""
    return base if base.record.reads == "embedding" else replace(base, classifier=backbone.classifier)


def base_network(base: HeadBase, backbone: LoadedBackbone, probe: Probe) -> TunedNetwork | None:
    """The head's own layers below `probe`; None where it has none."""
    if base.record.depth is None:
        return None
    tail = tail_layers(backbone)
    tail.load_state_dict({n.removeprefix(TAIL): t for n, t in base.tensors.items() if n.startswith(TAIL)})
    return TunedNetwork(tail, probe)


def base_embeddings(base: HeadBase, backbone: LoadedBackbone, features: Features) -> torch.Tensor:
    """float32 [N,V,D]: what the head's weights are multiplied with."""
    width = base.record.backbone.width
    blank = Probe(
        weight_AD=torch.zeros(1, width),
        bias_A=torch.zeros(1),
        mean_D=torch.zeros(width),
        deviation_D=torch.ones(()),
        penalty=0.0,
    )
    network = base_network(base, backbone, blank)
    if network is None or features.features is None:
        return features.embeddings
    return embed_views(network, features.features, device=backbone.device, dtype=backbone.dtype)
