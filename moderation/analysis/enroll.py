"""Enrolling people: pictures of each, a folder a person, become a gallery of numbers and names; no picture is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

import numpy as np
import torch

from moderation import storage
from moderation.config.model import Config, DetectorConfig
from moderation.detectors.faces.alignment import cut_chips
from moderation.detectors.faces.detector import Faces
from moderation.detectors.faces.gallery import FACE_WEIGHTS, load_face
from moderation.detectors.faces.gallery_file import Gallery, clean_name, encode_gallery
from moderation.detectors.faces.network import CHIP
from moderation.detectors.faces.parts import DEFAULT_PARTS, check_parts, embed_faces
from moderation.detectors.registry import build
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.media import decode_item, names_media
from moderation.scoring.devices import pick_device
from moderation.types import F32, Frame, Item, MediaObject

_BATCH: Final = 16
_MOST_PICTURES: Final = 1_000_000


class Outcome(StrEnum):
    """What became of one picture."""

    ENROLLED = "enrolled"
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    UNREADABLE = "unreadable"
    NO_PERSON = "not in a person's folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """One picture: whose, and what became of it. faces: how many were found."""

    uri: str
    person: str
    outcome: Outcome
    faces: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What `enroll` made: the gallery, and a line a picture."""

    gallery: Gallery
    pictures: tuple[Enrolled, ...]
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    uri: str
    person: str
    frame: Frame | None
    error: str = ""


def enroll(
    people: str, out: str, config: Config, *, parts: dict[str, float] | None = None, largest: bool = False
) -> Enrolment:
    """Write a gallery of the people in a folder, each a folder of pictures named after the person.

    config: the options of its `faces` and the limits on media are used. parts: of the face, name -> weight; default the
    whole. largest: of several faces in a picture take the largest; otherwise such a picture is left out, as nobody said
    whose faces they are.
    Raises UsageError when there is no such folder, or nobody in it could be enrolled.
    """
    checked = check_parts(parts or DEFAULT_PARTS)
    device = pick_device(config.stack.device)
    faces = _load_faces(config, device)
    network = load_face(str(resolve(FACE_WEIGHTS)), device)
    done: list[Enrolled] = []
    rows: list[F32] = []
    owners: list[str] = []
    pictures = _pictures(people, config)
    while batch := list(islice(pictures, _BATCH)):
        shown = [p for p in batch if p.frame is not None]
        frames = [p.frame for p in shown if p.frame is not None]
        pixels = TensorFrames([f.pixels for f in frames], [(f.width, f.height) for f in frames], device)
        with torch.inference_mode():
            found = faces.find(pixels)
            chosen = [_choose(f.boxes, largest=largest) for f in found]
            points = [
                torch.from_numpy(f.points[[] if c is None else [c]]).to(device)
                for f, c in zip(found, chosen, strict=True)
            ]
            chips = cut_chips(pixels.frames_HWC, points, CHIP)
            rows.append(embed_faces(network, chips, checked).cpu().numpy())
        owners.extend(p.person for p, c in zip(shown, chosen, strict=True) if c is not None)
        counts = {p.uri: (len(f.scores), c) for p, f, c in zip(shown, found, chosen, strict=True)}
        done.extend(_line(p, *counts.get(p.uri, (0, None))) for p in batch)
    if not owners:
        raise UsageError(f"{people}: nobody was enrolled: {_reasons(done)}")
    names = tuple(sorted(set(owners)))
    places = {name: place for place, name in enumerate(names)}
    gallery = Gallery(
        names=names,
        person=np.array([places[o] for o in owners], dtype=np.int32),
        embeddings=np.concatenate(rows),
        parts=checked,
        network=FACE_WEIGHTS.sha256,
    )
    data = encode_gallery(gallery)
    storage.publish(out, data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Enrolment(gallery=gallery, pictures=tuple(done), size_bytes=len(data), sha256=sha256)


def _load_faces(config: Config, device: torch.device) -> Faces:
    entry = next((d for d in config.stack.detectors if d.name == "faces"), DetectorConfig(name="faces"))
    detector = build(entry)
    if not isinstance(detector, Faces):
        raise UsageError("the detector 'faces' is another package's; it can't be used to enroll")
    # In fp32: a gallery must not depend on the machine that it was made on.
    detector.load(device, torch.float32, [str(resolve(w)) for w in detector.weights])
    return detector


def _pictures(people: str, config: Config) -> Iterator[_Picture]:
    """The pictures below a folder, decoded, in the order of their names."""
    try:
        objects = sorted(islice(storage.list_objects(people), _MOST_PICTURES + 1), key=lambda o: o.uri)
    except FileNotFoundError as error:
        raise UsageError(f"{people}: no such folder") from error
    if len(objects) > _MOST_PICTURES:
        raise UsageError(f"{people}: more than {_MOST_PICTURES:,} files")
    root = storage.canonical(people).rstrip("/") + "/"
    objects = [o for o in objects if names_media(o.uri)]
    if not objects:
        raise UsageError(f"{people}: no pictures there; expected a folder a person, with pictures of that person")
    for found in objects:
        person, separator, _ = found.uri.removeprefix(root).partition("/")
        if not separator:
            yield _Picture(uri=found.uri, person="", frame=None)
            continue
        source = MediaObject(uri=found.uri, name=found.uri, size_bytes=found.size_bytes)
        item = Item(item_id=found.uri, uri=found.uri, objects=(source,))
        if found.size_bytes > config.media.max_bytes:
            yield _Picture(uri=found.uri, person=clean_name(person), frame=None, error="larger than media.max_bytes")
            continue
        media = decode_item(item, [storage.read_bytes(found.uri)], config.media)
        frame = media.frames[0] if media.frames else None
        yield _Picture(uri=found.uri, person=clean_name(person), frame=frame, error=str(media.error or ""))


def _choose(boxes: F32, *, largest: bool) -> int | None:
    """The face that is enrolled: the only one, or the largest where that is asked for; None: none."""
    if len(boxes) == 1:
        return 0
    if not len(boxes) or not largest:
        return None
    return int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax())


def _line(picture: _Picture, faces: int, chosen: int | None) -> Enrolled:
    if not picture.person:
        outcome = Outcome.NO_PERSON
    elif picture.frame is None:
        outcome = Outcome.UNREADABLE
    elif chosen is not None:
        outcome = Outcome.ENROLLED
    else:
        outcome = Outcome.SEVERAL_FACES if faces else Outcome.NO_FACE
    return Enrolled(uri=picture.uri, person=picture.person, outcome=outcome, faces=faces, detail=picture.error)


def _reasons(done: Sequence[Enrolled]) -> str:
    counts = {outcome: sum(d.outcome is outcome for d in done) for outcome in Outcome}
    return ", ".join(f"{count} pictures with {outcome}" for outcome, count in counts.items() if count)
