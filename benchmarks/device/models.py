"""The stacks that are measured: those of the configurations, each detector alone, and CLIP with random weights."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moderation.config.load import load_config
from moderation.config.model import Config
from moderation.detectors.clip.network import read_architecture
from moderation.detectors.registry import build
from moderation.media import decode_item
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy, load_policy
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.types import Frame, Item, MediaObject

CLIPS: Mapping[str, str] = {"clip_b32": "ViT-B-32", "clip_b16": "ViT-B-16", "clip_l14": "ViT-L-14"}
_WORDS: Mapping[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
QUESTIONS: Mapping[str, Any] = {
    "person": {"texts": ["a person"], "against": ["a landscape"], "templates": "plain"},
    "text": {"texts": ["a page of text"], "against": ["a photograph"], "templates": "plain"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how: the device, the folder of what was prepared, and whether everything is to be tiny."""

    device: torch.device
    scratch: Path
    tiny: bool


def make_place(scratch: Path, *, cpu: bool) -> Place:
    """The GPU, unless told otherwise. Raises RuntimeError when there is none."""
    if not cpu and not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device; --cpu measures a tiny run without")
    return Place(device=torch.device("cpu" if cpu else "cuda"), scratch=scratch, tiny=cpu)


def config_of(name: str, place: Place, *, dtype: str = "bf16", batch: int = 64) -> Config:
    """`default`, `full`, or one of `CLIPS` (made by `write_checkpoint`)."""
    settings = [f"stack.device={place.device.type}", f"stack.dtype={dtype}", f"stack.batch_size={batch}"]
    if name not in CLIPS:
        return load_config(f"{name}.yaml", settings)
    made = json.loads((place.scratch / f"{name}.json").read_text(encoding="utf-8"))
    options = {"architecture": made["architecture"], "questions": QUESTIONS}
    entry = {"name": "clip", "alias": name, "options": options}
    entry |= {"weights": f"file://{place.scratch / name}.safetensors", "sha256": made["sha256"]}
    stack = {"device": place.device.type, "dtype": dtype, "batch_size": batch, "detectors": [entry]}
    return Config.model_validate({"stack": stack})


def with_only(config: Config, names: Sequence[str]) -> Config:
    """The configuration with these detectors alone, without conditions on those that are gone."""
    entries = [d.model_copy(update={"when": None}) for d in config.stack.detectors if d.title in names]
    return config.model_copy(update={"stack": config.stack.model_copy(update={"detectors": tuple(entries)})})


def needed_by(config: Config, name: str) -> list[str]:
    """A detector and, before it, those of this configuration whose votes it reads."""
    detector = next(build(d) for d in config.stack.detectors if d.title == name)
    read = (*detector.requires, *getattr(detector, "optional", ()))
    return [*(d.title for d in config.stack.detectors if d.title in read), name]


def load_stack(config: Config) -> Stack:
    """Built and loaded."""
    stack = build_stack(config)
    stack.load()
    return stack


def policy_of(name: str, config: Config, stack: Stack) -> BoundPolicy:
    """The configuration's policy; of CLIP one check on one question."""
    if name in CLIPS:
        check = {"side": "negative", "votes": [f"{name}.person"], "review": 0.5}
        policy = Policy.model_validate({"checks": {"person": check}})
    else:
        policy = load_policy(Path(config.policy))
    return bind(policy, stack.labels, gated=stack.gated, disabled=stack.disabled)


def bare_networks(stack: Stack) -> list[tuple[str, nn.Module]]:
    """The networks that the detectors of a stack hold."""
    held = ((slot.detector.name, vars(slot.detector)) for slot in stack.slots)
    return [(f"{name}.{key.strip('_')}", value) for name, values in held for key, value in values.items()
            if isinstance(value, nn.Module)]  # fmt: skip


def write_checkpoint(name: str, place: Place, *, whole_text: bool = False) -> dict[str, Any]:
    """A CLIP of random weights, in half precision on the disk: its image tower as published, its text tower tiny.

    whole_text: the text tower as published, too.
    """
    import open_clip
    from safetensors.torch import save_file

    began_s = time.monotonic()
    architecture = read_architecture(CLIPS[name])
    if not whole_text:
        architecture["text_cfg"] = dict(_WORDS)
    if place.tiny:
        architecture["vision_cfg"] = {**architecture["vision_cfg"], "layers": 1}
    torch.manual_seed(0)
    model = open_clip.CLIP(**architecture)
    path = place.scratch / f"{name}.safetensors"
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    made = {"architecture": architecture, "sha256": sha256}
    (place.scratch / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
    return {"size_bytes": path.stat().st_size, "seconds": round(time.monotonic() - began_s, 1)}


def item_of(index: int) -> Item:
    """An item whose bytes are in memory."""
    uri = f"memory:{index}.jpg"
    return Item(item_id=str(index), uri=uri, objects=(MediaObject(uri=uri, name=f"{index}.jpg"),))


def decode_frames(payloads: Sequence[bytes], config: Config) -> list[Frame]:
    """The first frame of each, as the pipeline decodes it."""
    return [decode_item(item_of(i), [data], config.media).frames[0] for i, data in enumerate(payloads)]
