"""The output of training: the head, its card, its figures, a page of them, and a configuration that uses it.

OUT/head.safetensors     the detector `head` reads it
OUT/replay.arrow         what it has learned from, as embeddings; `train-head --from` mixes it with new labels
OUT/card.json            data, settings, licences, figures
OUT/evaluation.json      figures on pictures that were not learned from
OUT/index.html           the same as a page
OUT/config.yaml          the configuration with the head in its stack
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from moderation import storage
from moderation.config.load import packaged_configs
from moderation.config.model import Config
from moderation.detectors.heads.head_file import TAIL, encode_head
from moderation.pages.render import render
from moderation.training.heads.backbone import FoundBackbone
from moderation.training.heads.fit import FittedHead
from moderation.training.heads.forgetting import HeadChange
from moderation.training.heads.quality import HeadQuality
from moderation.training.heads.replay import ReplayMemory, encode_replay
from moderation.version import __version__

HEAD_FILE: Final = "head.safetensors"
CARD_FILE: Final = "card.json"
REPLAY_FILE: Final = "replay.arrow"
CHANGE_FILE: Final = "change.json"
EVALUATION_FILE: Final = "evaluation.json"
EVALUATION_PAGE: Final = "index.html"
CONFIG_FILE: Final = "config.yaml"
CHECKPOINT: Final = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutcome:
    """What was written, and its quality on pictures that were not learned from: `held`, and `test` by method.

    change: against the head that it continues; None where it continues none.
    """

    out: str
    uri: str
    sha256: str
    name: str
    method: str
    classes: tuple[str, ...]
    card: Mapping[str, Any]
    held: HeadQuality
    test: Mapping[str, HeadQuality] | None
    losses: tuple[float, ...]
    change: HeadChange | None = None


def write_bundle(
    config: Config,
    found: FoundBackbone,
    head: FittedHead,
    *,
    out: str,
    name: str,
    classes: Sequence[str],
    depth: int | None,
    several: bool,
    record: Mapping[str, Any],
    held: HeadQuality,
    test: Mapping[str, HeadQuality] | None,
    memory: ReplayMemory | None = None,
    change: HeadChange | None = None,
) -> HeadOutcome:
    """Write all files; of those that others read, the head last. Raises FatalError where OUT can't be written."""
    trial = head.trial
    method = "probe" if head.tuned is None else "tuned"
    card = {
        **record,
        "name": name,
        "classes": list(classes),
        "several": several,
        "method": method,
        "depth": depth if head.tuned is not None else None,
        "reads": "embedding" if head.tuned is not None or head.probe.classifier is None else "embedding_and_classes",
        "backbone": {
            "detector": found.title,
            "sha256": found.weights.sha256,
            "width": found.detector.embedding_dim,
            "normalised": found.normalised,
            "input_px": found.input_px,
            "licence": found.weights.licence,
        },
        "licence": f"of the backbone: {found.weights.licence}; of the pictures: {record['data']['licence']}",
        "temperature": head.temperature,
        "held_loss": None if trial is None else {"probe": trial.probe_loss, "tuned": trial.tuned_loss},
        "best_epoch": 0 if trial is None else trial.best_epoch,
        "code_version": __version__,
    }
    content = encode_head(card, _tensors(head))
    sha256 = hashlib.sha256(content).hexdigest()
    uri = storage.join(out, HEAD_FILE)
    outcome = HeadOutcome(
        out=out,
        uri=uri,
        sha256=sha256,
        name=name,
        method=method,
        classes=tuple(classes),
        card=card,
        held=held,
        test=test,
        losses=() if trial is None else trial.losses,
        change=change,
    )
    evaluation = {
        "held": asdict(held),
        "test": None if test is None else {method: asdict(quality) for method, quality in test.items()},
        "held_losses": list(outcome.losses),
    }
    storage.publish(storage.join(out, EVALUATION_FILE), _json(evaluation))
    storage.publish(storage.join(out, EVALUATION_PAGE), render("head.html", head=outcome).encode())
    storage.publish(storage.join(out, CARD_FILE), _json({**card, "sha256": sha256}))
    if change is not None:
        write_change(out, change)
    if memory is not None:
        own = {"head": sha256, "settings": record["settings"], "learned": record["data"]["pictures"]}
        storage.publish(storage.join(out, REPLAY_FILE), encode_replay(memory, own))
    storage.publish(uri, content)
    storage.publish(storage.join(out, CONFIG_FILE), _configuration(config, found, outcome).encode())
    return outcome


def write_change(out: str, change: HeadChange) -> str:
    """Write what was gained and forgotten, also of a head that is refused; its URI."""
    uri = storage.join(out, CHANGE_FILE)
    storage.publish(uri, _json(asdict(change)))
    return uri


def locator_of(uri: str) -> str:
    """A URI as a locator for `weights:`."""
    return uri if "://" in uri else f"file://{Path(uri).absolute()}"


def stack_entry(outcome: HeadOutcome) -> dict[str, Any]:
    """The head as an entry of `stack.detectors`."""
    return {"name": f"head:{outcome.name}", "weights": locator_of(outcome.uri), "sha256": outcome.sha256}


def _tensors(head: FittedHead) -> dict[str, torch.Tensor]:
    tensors = {"temperature": torch.tensor([head.temperature])}
    if head.tuned is None:
        return {**tensors, "weight": head.probe.weight_AD, "bias": head.probe.bias_A}
    tail = {f"{TAIL}{name}": tensor for name, tensor in head.tuned.tail.layers.state_dict().items()}
    weight, bias = head.tuned.folded()
    return {**tensors, **tail, "weight": weight, "bias": bias}


def _configuration(config: Config, found: FoundBackbone, outcome: HeadOutcome) -> str:
    entries = list(config.stack.detectors)
    if found.title not in {entry.title for entry in entries}:
        entries.append(found.entry)
    kept = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries if entry.title != outcome.name]
    whole = config.model_dump(mode="json", exclude_defaults=True)
    whole["stack"] = {**whole.get("stack", {}), "detectors": [*kept, stack_entry(outcome)]}
    policy = Path(config.policy)
    packaged = packaged_configs()
    # A packaged policy by its name: its absolute path holds on one machine only.
    whole["policy"] = policy.relative_to(packaged).as_posix() if policy.is_relative_to(packaged) else config.policy
    text: str = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    return text


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
