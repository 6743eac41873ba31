"""Enroll people: one folder of pictures per person becomes a gallery of numbers and names; no picture is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

import numpy as np
import torch

from moderation import storage
from moderation.config.model import Config, DetectorConfig
from moderation.detectors.faces.alignment import cut_chips
from moderation.detectors.faces.chip import CHIP
from moderation.detectors.faces.detector import Faces
from moderation.detectors.faces.gallery import FACE_WEIGHTS, load_face
from moderation.detectors.faces.gallery_file import Gallery, clean_name, encode_gallery
from moderation.detectors.faces.parts import DEFAULT_PARTS, check_parts, embed_faces
from moderation.detectors.registry import build
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.media import decode_item, names_media
from moderation.scoring.devices import pick_device
from moderation.types import F32, Frame, Item, MediaObject

_BATCH: Final = 16
_MAX_PICTURES: Final = 1_000_000


class EnrolmentOutcome(StrEnum):
    """The outcome for one picture."""

    ENROLLED = "enrolled"
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    UNREADABLE = "unreadable"
    NO_PERSON = "not in a person's folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """One picture: its person and its outcome. faces: how many were found."""

    uri: str
    person: str
    outcome: EnrolmentOutcome
    faces: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What `enroll` made: the gallery, and one line per picture."""

    gallery: Gallery
    pictures: tuple[Enrolled, ...]
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _PersonPicture:
    uri: str
    person: str
    frame: Frame | None
    error: str = ""


def enroll(
    people: str, out: str, config: Config, *, parts: dict[str, float] | None = None, largest: bool = False
) -> Enrolment:
    """Write a gallery of the people in a folder, each a folder of pictures that is named after the person.

    config: its options of `faces` and its limits on media apply. parts: of the face, name -> weight; default: the whole
    face. largest: take the largest of several faces in a picture; otherwise such a picture is left out, because it is
    unknown whose faces they are.
    Raises UsageError when there is no such folder, or nobody in it could be enrolled.
    """
    checked = check_parts(parts or DEFAULT_PARTS)
    enroller = _Enroller(config, checked, largest=largest)
    done: list[Enrolled] = []
    embeddings: list[F32] = []
    owners: list[str] = []
    pictures = _read_pictures(people, config)
    while batch := list(islice(pictures, _BATCH)):
        lines, of_rows, rows = enroller.enroll(batch)
        done.extend(lines)
        owners.extend(of_rows)
        embeddings.append(rows)
    if not owners:
        raise UsageError(f"{people}: nobody was enrolled: {_reasons(done)}")
    gallery = _make_gallery(owners, np.concatenate(embeddings), checked)
    data = encode_gallery(gallery)
    storage.publish(out, data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Enrolment(gallery=gallery, pictures=tuple(done), size_bytes=len(data), sha256=sha256)


class _Enroller:
    """The networks that find a face and describe it."""

    def __init__(self, config: Config, parts: Mapping[str, float], *, largest: bool) -> None:
        self._device = pick_device(config.stack.device)
        self._faces = _load_faces(config, self._device)
        self._network = load_face(str(resolve(FACE_WEIGHTS)), self._device)
        self._parts = parts
        self._largest = largest

    def enroll(self, batch: Sequence[_PersonPicture]) -> tuple[list[Enrolled], list[str], F32]:
        """(a line for each picture, the person of each enrolled one, their embeddings float32 [N,D])."""
        shown = [(p, p.frame) for p in batch if p.frame is not None]
        faces, chosen, rows = self._embed([frame for _, frame in shown])
        counts = {p.uri: (n, index) for (p, _), n, index in zip(shown, faces, chosen, strict=True)}
        owners = [p.person for (p, _), index in zip(shown, chosen, strict=True) if index is not None]
        return [_line(p, *counts.get(p.uri, (0, None))) for p in batch], owners, rows

    def _embed(self, frames: Sequence[Frame]) -> tuple[list[int], list[int | None], F32]:
        """(each frame's number of faces, the index of its chosen face, the embeddings of the chosen faces)."""
        pixels = TensorFrames([f.pixels for f in frames], [(f.width, f.height) for f in frames], self._device)
        with torch.inference_mode():
            faces = self._faces.find(pixels)
            chosen = [_choose(of_frame.boxes, largest=self._largest) for of_frame in faces]
            points = [
                torch.from_numpy(of_frame.points[[] if index is None else [index]]).to(self._device)
                for of_frame, index in zip(faces, chosen, strict=True)
            ]
            chips = cut_chips(pixels.frames_HWC, points, CHIP)
            rows: F32 = embed_faces(self._network, chips, self._parts).cpu().numpy()
        return [len(of_frame.scores) for of_frame in faces], chosen, rows


def _make_gallery(owners: Sequence[str], embeddings: F32, parts: Mapping[str, float]) -> Gallery:
    """A gallery of people. owners: the person of each row of `embeddings`."""
    names = tuple(sorted(set(owners)))
    places = {name: place for place, name in enumerate(names)}
    return Gallery(
        names=names,
        person=np.array([places[owner] for owner in owners], dtype=np.int32),
        embeddings=embeddings,
        parts=parts,
        network=FACE_WEIGHTS.sha256,
    )


def _load_faces(config: Config, device: torch.device) -> Faces:
    entry = next((d for d in config.stack.detectors if d.name == "faces"), DetectorConfig(name="faces"))
    detector = build(entry)
    if not isinstance(detector, Faces):
        raise UsageError("the detector 'faces' is another package's; it can't be used to enroll")
    # In fp32: a gallery must not depend on the machine that it was made on.
    detector.load(device, torch.float32, [str(resolve(w)) for w in detector.weights])
    return detector


def _read_pictures(people: str, config: Config) -> Iterator[_PersonPicture]:
    """The pictures below a folder, decoded, in the order of their names. Raises UsageError where there are none."""
    root = storage.canonical(people).rstrip("/") + "/"
    for listed in _list_pictures(people):
        person, separator, _ = listed.uri.removeprefix(root).partition("/")
        if separator:
            yield _read_picture(listed, clean_name(person), config)
        else:
            yield _PersonPicture(uri=listed.uri, person="", frame=None)


def _list_pictures(people: str) -> list[storage.ObjectInfo]:
    try:
        listed = sorted(islice(storage.list_objects(people), _MAX_PICTURES + 1), key=lambda o: o.uri)
    except FileNotFoundError as error:
        raise UsageError(f"{people}: no such folder") from error
    if len(listed) > _MAX_PICTURES:
        raise UsageError(f"{people}: more than {_MAX_PICTURES:,} files")
    pictures = [o for o in listed if names_media(o.uri)]
    if not pictures:
        raise UsageError(f"{people}: no pictures there; expected one folder per person, with pictures of that person")
    return pictures


def _read_picture(listed: storage.ObjectInfo, person: str, config: Config) -> _PersonPicture:
    uri, size_bytes = listed.uri, listed.size_bytes
    if size_bytes > config.media.max_bytes:
        return _PersonPicture(uri=uri, person=person, frame=None, error="larger than media.max_bytes")
    item = Item(item_id=uri, uri=uri, objects=(MediaObject(uri=uri, name=uri, size_bytes=size_bytes),))
    media = decode_item(item, [storage.read_bytes(uri)], config.media)
    frame = media.frames[0] if media.frames else None
    return _PersonPicture(uri=uri, person=person, frame=frame, error=str(media.error or ""))


def _choose(boxes: F32, *, largest: bool) -> int | None:
    """The index of the face to enroll: the only one, or the largest where that is wanted; None: none."""
    if len(boxes) == 1:
        return 0
    if not len(boxes) or not largest:
        return None
    return int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax())


def _line(picture: _PersonPicture, faces: int, chosen: int | None) -> Enrolled:
    if not picture.person:
        outcome = EnrolmentOutcome.NO_PERSON
    elif picture.frame is None:
        outcome = EnrolmentOutcome.UNREADABLE
    elif chosen is not None:
        outcome = EnrolmentOutcome.ENROLLED
    else:
        outcome = EnrolmentOutcome.SEVERAL_FACES if faces else EnrolmentOutcome.NO_FACE
    return Enrolled(uri=picture.uri, person=picture.person, outcome=outcome, faces=faces, detail=picture.error)


def _reasons(done: Sequence[Enrolled]) -> str:
    counts = {outcome: sum(d.outcome is outcome for d in done) for outcome in EnrolmentOutcome}
    return ", ".join(f"{count} pictures with {outcome}" for outcome, count in counts.items() if count)
