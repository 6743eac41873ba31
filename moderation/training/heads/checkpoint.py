"""Checkpoints of interrupted training, as safetensors; the same call goes on from them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.training.heads.progress import LayerProgress

_KEY = "moderation"


def save_progress(uri: str, progress: LayerProgress, key: str) -> None:
    """Write a checkpoint. key: hash of all that the training depends on."""
    from safetensors.torch import save

    tensors = {
        f"{part}/{name}": tensor.contiguous()
        for part, own in (
            ("network", progress.network),
            ("average", progress.average),
            ("optimizer", progress.optimizer),
            ("best", progress.best),
        )
        for name, tensor in own.items()
    }
    # Clones, because safetensors refuses one tensor under two names: `best` may be `network`.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    record = {"key": key, "epoch": progress.epoch, "losses": list(progress.losses), "best_epoch": progress.best_epoch}
    storage.publish(uri, save(tensors, metadata={_KEY: canonical_json(record)}))


def load_progress(uri: str, key: str) -> LayerProgress | None:
    """The checkpoint of a call with the same key; None where there is none or it is damaged: training begins anew."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = storage.read_bytes(uri)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        record = json.loads(header["__metadata__"][_KEY])
        tensors = load(data)
    except (FileNotFoundError, SafetensorError, ValueError, KeyError):
        return None
    if not isinstance(record, Mapping) or record.get("key") != key:
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "average": {}, "optimizer": {}, "best": {}}
    for name, tensor in tensors.items():
        part, _, inner = name.partition("/")
        parts[part][inner] = tensor
    return LayerProgress(
        epoch=int(record["epoch"]),
        network=parts["network"],
        average=parts["average"],
        optimizer=parts["optimizer"],
        losses=tuple(record["losses"]),
        best=parts["best"],
        best_epoch=int(record["best_epoch"]),
    )
