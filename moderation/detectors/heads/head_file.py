"""The file of a trained head: what `moderation train-head` writes and the detector `head` reads.

safetensors. Tensors: `weight` float32 [A,D] and `bias` [A] on the backbone's embedding, A being the classes, or [A,2D]
on the embedding and its place among the backbone's own classes (`nn.class_mean`); `temperature` [1] or [A], by which
the logits are divided; and, of a head whose last layers were trained too, `tail.<name>`. The
header holds one JSON record under `moderation`, see `HeadRecord`; what stands in it besides is for people.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moderation.config.canonical import canonical_json
from moderation.errors import FatalError, UsageError

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

HEAD_KIND: Final = "head"
TAIL: Final = "tail."
_KEY: Final = "moderation"
_MAX_FILE_BYTES: Final = 1 << 30
_MAX_RECORD_CHARS: Final = 4 << 20
MAX_CLASSES: Final = 1000
Reads = Literal["embedding", "embedding_and_classes"]
_LABEL: Final = r"\w[\w-]*"  # a part of a column's name: no dot, no space


class BackboneRecord(BaseModel):
    """What a head was trained on: a detector's network, by the checksum of its weights."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    detector: str = Field(max_length=200)  # what its columns were called
    sha256: str = Field(max_length=64)
    width: int = Field(ge=1, le=65536)
    normalised: bool = False  # embeddings were brought to length 1
    input_px: int | None = None  # the option of `imagenet`; None: its own view
    licence: str = Field(default="unknown", max_length=200)


class HeadRecord(BaseModel):
    """What a head's file says of itself.

    depth: layers of the backbone below those that it brings along; None: none. reads: what its weights are multiplied
    with; files from before there was a choice do not say.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["head"]
    version: Literal[1]
    name: str = Field(max_length=200)
    classes: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    several: bool = False  # a picture may be of several classes; else they share 1
    backbone: BackboneRecord
    depth: int | None = Field(default=None, ge=1, le=1000)
    reads: Reads = "embedding"
    licence: str = Field(default="unknown", max_length=200)

    @property
    def inputs(self) -> int:
        """How many numbers its weights are multiplied with."""
        return self.backbone.width * (2 if self.reads == "embedding_and_classes" else 1)


def encode_head(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A file. record: as `HeadRecord`, and whatever else is worth keeping."""
    from safetensors.torch import save

    whole = {**record, "kind": HEAD_KIND, "version": 1}
    plain = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    data: bytes = save(plain, metadata={_KEY: canonical_json(whole)})
    return data


def read_head_record(path: Path) -> HeadRecord:
    """The record of a file. Raises FatalError where it is no head."""
    return _parse(_read_text(path), path)


def read_head_tensors(path: Path, record: HeadRecord) -> dict[str, torch.Tensor]:
    """The numbers. Raises FatalError where they do not fit the record, or one is not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise FatalError(f"{path}: not readable as safetensors: {error}") from error
    classes = len(record.classes)
    for name, shapes in (
        ("weight", [(classes, record.inputs)]),
        ("bias", [(classes,)]),
        ("temperature", [(1,), (classes,)]),
    ):
        if name not in tensors or tuple(tensors[name].shape) not in shapes:
            raise FatalError(f"{path}: its {name!r} does not fit {classes} classes")
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken or not (tensors["temperature"] > 0).all():
        raise FatalError(f"{path}: {broken[0] if broken else 'temperature'}: not usable numbers")
    return tensors


def _read_text(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    if path.stat().st_size > _MAX_FILE_BYTES:
        raise FatalError(f"{path}: over {_MAX_FILE_BYTES >> 20} MiB are no head")
    try:
        with safe_open(str(path), framework="np") as file:
            text: str = (file.metadata() or {}).get(_KEY, "")
    except (SafetensorError, OSError, ValueError) as error:
        raise FatalError(f"{path}: not readable as safetensors: {error}") from error
    if not text or len(text) > _MAX_RECORD_CHARS:
        raise FatalError(f"{path}: has no record of a head; `moderation train-head` writes one")
    return text


def _parse(text: str, path: Path) -> HeadRecord:
    try:
        record = HeadRecord.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise FatalError(f"{path}: no head: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise FatalError(f"{path}: its record is not JSON") from error
    if record.depth is not None and record.reads != "embedding":
        raise FatalError(f"{path}: no head: layers of its own and the classes of its backbone exclude each other")
    wrong = [name for name in record.classes if re.fullmatch(_LABEL, name) is None]
    if wrong or len(set(record.classes)) < len(record.classes):
        raise FatalError(f"{path}: classes must be distinct words, got {wrong[0] if wrong else 'one twice'!r}")
    return record


def column_label(text: str) -> str:
    """A class's name as the label of a column: small letters, digits and `_`, of any script.

    Raises UsageError where nothing is left of it.
    """
    label = re.sub(r"\W+", "_", text.strip().casefold()).strip("_")
    if not label or len(label) > 100:
        raise UsageError(f"class {text[:100]!r}: a name needs letters or digits, and at most 100 characters")
    return label


def finite_or_none(number: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return number if math.isfinite(number) else None
