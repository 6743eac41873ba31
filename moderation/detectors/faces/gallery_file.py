"""A gallery: the people whom `gallery` knows, as embeddings and names, in one safetensors file; no pictures.

`embeddings` is float16 [N,D], one row per enrolled picture; `person` is int32 [N], the person of each row. The file's
metadata holds as JSON the names, the parts of the face in a row, and the checksum of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from moderation.detectors.faces.parts import check_parts, width_of
from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.types import F32

MAX_BYTES: Final = 2 << 30  # eight million faces of 128 numbers
_MAX_HEADER: Final = 100 << 20  # safetensors' own limit
_MAX_NAME: Final = 100  # characters of a name, which becomes a region's label
_LAYOUT: Final = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """People and their faces.

    names: one per person. person: int32 [N], the person of each row. embeddings: float32 [N,D], compared by Euclidean
    distance. parts: name of a part of the face -> its weight. network: sha256 of the weights.
    """

    names: tuple[str, ...]
    person: npt.NDArray[np.int32]
    embeddings: F32
    parts: Mapping[str, float]
    network: str


def clean_name(text: str) -> str:
    """A person's name made safe for tables and pages: printable, on one line, bounded; "?" when nothing is left."""
    return short_line(text, _MAX_NAME) or "?"


def encode_gallery(gallery: Gallery) -> bytes:
    """The bytes of the file; the same gallery gives the same bytes."""
    record = {
        "layout": _LAYOUT,
        "names": list(gallery.names),
        "parts": dict(gallery.parts),
        "network": gallery.network,
    }
    tensors = {
        "embeddings": np.ascontiguousarray(gallery.embeddings, dtype=np.float16),
        "person": np.ascontiguousarray(gallery.person, dtype=np.int32),
    }
    encoded: bytes = save(tensors, {"gallery": json.dumps(record, ensure_ascii=False, sort_keys=True)})
    return encoded


def decode_gallery(data: bytes, *, where: str) -> Gallery:
    """Decode a gallery and check all of it. Raises UsageError that names `where` and the fault."""
    try:
        record = json.loads(_metadata(data)["gallery"])
        tensors = load(data)
        embeddings, person = tensors["embeddings"], tensors["person"]
        names, parts, network = record["names"], check_parts(record["parts"]), str(record["network"])
        _check_record(record)
        _check_tensors(embeddings, person, width_of(parts), len(names))
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{where}: no gallery of `moderation enroll`: {detail}") from error
    return Gallery(
        names=tuple(clean_name(n) for n in names),
        person=person,
        embeddings=embeddings.astype(np.float32),
        parts=parts,
        network=network,
    )


def _check_record(record: Mapping[str, Any]) -> None:
    if record["layout"] != _LAYOUT:
        raise ValueError(f"layout {record['layout']!r}; this version reads {_LAYOUT!r}")
    names = record["names"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError("its names are not a list of texts")


def _check_tensors(embeddings: npt.NDArray[Any], person: npt.NDArray[Any], width: int, people: int) -> None:
    if embeddings.ndim != 2 or embeddings.dtype != np.float16 or embeddings.shape[1] != width:
        raise ValueError(f"embeddings {embeddings.dtype} {list(embeddings.shape)}")
    if person.dtype != np.int32 or person.shape != embeddings.shape[:1]:
        raise ValueError(f"person {person.dtype} {list(person.shape)}")
    if not len(person) or person.min() < 0 or person.max() >= people:
        raise ValueError(f"{len(person)} faces and {people} people, which do not go together")
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings that are not finite")


def _metadata(data: bytes) -> Mapping[str, Any]:
    """The metadata of a safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER, len(data) - 8):
        raise ValueError("not a safetensors file")
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("a safetensors file of something else")
    return metadata
