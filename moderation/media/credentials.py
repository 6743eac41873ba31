"""Content Credentials (C2PA) of a file: what its manifests say, read from its own bytes and nothing else.

Specification: https://spec.c2pa.org. Library: c2pa-python (extra `provenance`). No remote manifest is fetched, no
revocation is asked for, and no list of trusted signers is read: a valid manifest says that file and manifest belong
together, not who signed it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from moderation.file_types import HEAD_BYTES, MediaType, sniff
from moderation.types import Media

PRESENT: Final = "c2pa.present"
VALID: Final = "c2pa.valid"
GENERATIVE: Final = "c2pa.generative"

# Every manifest that lies in a file is a JUMBF box; where these bytes are not, the library need not look.
_MARK: Final = b"jumb"
_MAX_JSON_CHARS: Final = 16 << 20
_MIME: Final = {
    MediaType.JPEG: "image/jpeg",
    MediaType.PNG: "image/png",
    MediaType.WEBP: "image/webp",
    MediaType.AVIF: "image/avif",
    MediaType.HEIC: "image/heic",
    MediaType.GIF: "image/gif",
    MediaType.TIFF: "image/tiff",
    MediaType.MP4: "video/mp4",
    MediaType.AVI: "video/avi",
}
# IPTC's digital source types of what a model has made, whole or in part, and C2PA's own of such data.
_GENERATIVE: Final = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "trainedAlgorithmicData",
)
_SOURCE_TYPE: Final = "digitalSourceType"
_SETTINGS: Final = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False},
}


def read_credentials(data: bytes) -> Mapping[str, float]:
    """What the Content Credentials of a file say: reading -> 1, 0, or NaN where it cannot be said.

    c2pa.present: a manifest lies in the file. c2pa.valid: it is whole, and the file is the one that was signed.
    c2pa.generative: a manifest, or that of an ingredient, names a source made by a model. Of a file without a manifest
    `valid` is NaN; of one that cannot be read `generative` is. Of types that carry none here all are NaN.
    Raises UsageError where the package is missing.
    """
    mime = _MIME.get(sniff(data[:HEAD_BYTES]) or MediaType.OTHER)
    if mime is None:
        return {PRESENT: math.nan, VALID: math.nan, GENERATIVE: math.nan}
    if _MARK not in data:
        return {PRESENT: 0.0, VALID: math.nan, GENERATIVE: 0.0}
    return _read_manifests(mime, data)


def add_credentials(media: Media, data: bytes) -> Media:
    """The same with what the file says of itself on its first frame."""
    if not media.frames:
        return media
    first = replace(media.frames[0], readings=read_credentials(data))
    return replace(media, frames=(first, *media.frames[1:]))


def _read_manifests(mime: str, data: bytes) -> Mapping[str, float]:
    import c2pa

    unreadable = {PRESENT: 1.0, VALID: 0.0, GENERATIVE: math.nan}
    try:
        reader = c2pa.Reader.try_create(mime, io.BytesIO(data), context=_context())
        if reader is None:
            return {PRESENT: 0.0, VALID: math.nan, GENERATIVE: 0.0}
        with reader:
            text = reader.json()
        if len(text) > _MAX_JSON_CHARS:
            return unreadable
        told = json.loads(text)
    except (c2pa.C2paError, ValueError, RecursionError):
        return unreadable
    valid = told.get("validation_state") in ("Valid", "Trusted")
    generative = any(str(value).rpartition("/")[2] in _GENERATIVE for value in _source_types(told))
    return {PRESENT: 1.0, VALID: float(valid), GENERATIVE: float(generative)}


@cache
def _context() -> Any:  # noqa: ANN401 - of an optional package
    import c2pa

    return c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))


def _source_types(told: object) -> Iterator[object]:
    """Every digital source type in a tree, of the manifest and of its ingredients' manifests."""
    waiting = [told]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if _SOURCE_TYPE in node:
                yield node[_SOURCE_TYPE]
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
