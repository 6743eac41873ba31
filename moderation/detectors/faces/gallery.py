"""Who is it: the faces of a frame against a gallery of known people; "nobody" is a possible answer.

Needs `faces` before it, whose boxes and points it reads. The network is dlib's (see `network`); `moderation enroll`
writes the gallery.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from moderation import storage
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.faces.alignment import cut_chips
from moderation.detectors.faces.chip import CHIP, DISTANCE
from moderation.detectors.faces.dlib_file import read_dlib
from moderation.detectors.faces.gallery_file import MAX_BYTES, Gallery, decode_gallery
from moderation.detectors.faces.parts import embed_faces
from moderation.detectors.registry import check_options
from moderation.errors import UsageError
from moderation.types import F32, Region

if TYPE_CHECKING:
    import torch

    from moderation.detectors.faces.network import FaceNetwork
else:
    from moderation.detectors.deferred import torch

FACE_WEIGHTS: Final = Weights(
    locator="pkg://face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    licence="CC0-1.0",
    origin="https://github.com/davisking/dlib-models",
    size_bytes=22_466_066,
)
_ROWS: Final = 32_768  # gallery rows at once: products of 64 faces with them take 8 MB, which fits a cache
_STEEPNESS: Final = 20.0  # of the score's logistic curve over the distance, see `score_of`


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMatches:
    """The nearest person of each face: int64 [F] rows of the gallery, and float32 [F] distances."""

    rows: torch.Tensor
    distances: torch.Tensor


class Matcher:
    """A gallery on a device, ready for queries."""

    def __init__(self, gallery: Gallery, device: torch.device) -> None:
        self.gallery = gallery
        self._rows = torch.from_numpy(gallery.embeddings).to(device)
        # |q - g|^2 = |q|^2 - 2 (q.g - |g|^2 / 2): the row with the largest bracket is nearest.
        self._halves = -self._rows.square().sum(dim=1) / 2

    def match(self, faces: torch.Tensor) -> FaceMatches:
        """The nearest row to each of float32 [F,D]: one matrix product per piece of the gallery."""
        best = faces.new_full((len(faces),), -torch.inf)
        rows = torch.zeros(len(faces), dtype=torch.int64, device=faces.device)
        for start in range(0, len(self._rows), _ROWS):
            piece = slice(start, start + _ROWS)
            nearest = torch.addmm(self._halves[piece], faces, self._rows[piece].T).max(dim=1)
            better = nearest.values > best
            best = torch.where(better, nearest.values, best)
            rows = torch.where(better, nearest.indices + start, rows)
        # From the difference, not from the sums above, which cancel for small distances.
        distances = (faces - self._rows[rows]).norm(dim=1)
        return FaceMatches(rows=rows, distances=distances)


class GalleryDetector(DetectorDefaults):
    """Known people, by their faces.

    - `match`: the confidence that the best match in the frame is that person, 0..1; 0 when no face matches anybody,
      null when there is no face, or none large enough.

    A face that matches is a region labelled with the person's name. Options: `gallery`, the file's URI, and `sha256`,
    its checksum, which `enroll` prints; `threshold` (0.6), the distance beyond which a face matches nobody; `min_side`
    (28), the smallest face that is matched, in pixels of the decoded frame: smaller faces of different people look
    alike (docs/faces.md). Parts of the face and their weights are those that the gallery was made with.

    The gallery is read when the detector is built, and its content is part of the detector's version, so two galleries
    of one name are different detectors.
    """

    name = "gallery"
    labels: Sequence[str] = ("match",)
    view = View(mode="canvas")
    cost_ms = 6.5  # per face; most frames have none
    weights: Sequence[Weights] = (FACE_WEIGHTS,)
    requires: Sequence[str] = ("faces",)

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"gallery": str, "sha256": str, "threshold": (float, int), "min_side": int})
        if not options.get("gallery"):
            raise UsageError("detector 'gallery': option 'gallery' must name a file of `moderation enroll`")
        self.threshold = float(options.get("threshold", DISTANCE))
        self.min_side: int = options.get("min_side", 28)
        if not 0 < self.threshold <= 2:
            raise UsageError(f"detector 'gallery': option 'threshold' must lie between 0 and 2, got {self.threshold}")
        if not 1 <= self.min_side <= 4096:
            raise UsageError(f"detector 'gallery': option 'min_side' must be 1 to 4096 pixels, got {self.min_side}")
        self.gallery, digest = read_gallery(options["gallery"])
        if digest != options.get("sha256", digest).lower():
            raise UsageError(f"detector 'gallery': {options['gallery']} has the sha256 {digest}, not the one given")
        self.version = f"1+{digest[:16]}"
        self.network: FaceNetwork | None = None
        self._matcher: Matcher | None = None

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights; move them and the gallery to the device. Raises FatalError for another network's."""
        self.network = load_face(paths[0], device)
        self.networks = (self.network,)
        self._matcher = Matcher(self.gallery, device)

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,1]; one region per face that matches."""
        faces = earlier[self.requires[0]]
        if faces.regions is None or faces.points is None:
            raise RuntimeError(f"{self.requires[0]} gave no faces")
        large = [self._large(faces.regions[i], frame) for i, frame in enumerate(batch.frames_HWC)]
        points = [faces.points[i][places] for i, places in enumerate(large)]
        answers = self._nearest(batch, points)
        regions = [
            self._named([own[place] for place in places], answers)
            for own, places in zip(faces.regions, large, strict=True)
        ]
        scores = [_best_score(named) if places else math.nan for named, places in zip(regions, large, strict=True)]
        return Scored(scores=torch.tensor(scores, dtype=torch.float32).reshape(len(scores), 1), regions=regions)

    def _nearest(self, batch: FrameBatch, points: Sequence[F32]) -> Iterator[tuple[int, float]]:
        """Gallery row and distance of each face, frame after frame. points: float32 [n,5,2] per frame, 0..1."""
        if self.network is None or self._matcher is None:
            raise RuntimeError("load() first")
        on_device = [torch.from_numpy(own).to(batch.device) for own in points]
        with torch.autocast(batch.device.type, enabled=False):
            # In fp32 whatever the stack's dtype: enrolment used it, and bf16 changes distances by hundredths.
            chips = cut_chips(batch.frames_HWC, on_device, CHIP)
            matches = self._matcher.match(embed_faces(self.network, chips, self.gallery.parts))
        return iter(zip(matches.rows.tolist(), matches.distances.tolist(), strict=True))

    def _named(self, faces: Sequence[Region], answers: Iterator[tuple[int, float]]) -> list[Region]:
        """The faces that match somebody. answers: row and distance of each face; consumed for these faces."""
        nearest = zip(faces, islice(answers, len(faces)), strict=True)
        return [self._region(face, row, distance) for face, (row, distance) in nearest if distance <= self.threshold]

    def _large(self, faces: Sequence[Region], frame: torch.Tensor) -> list[int]:
        """Indices of the faces that are large enough to be recognised."""
        height, width = frame.shape[:2]
        min_area = self.min_side**2
        return [i for i, f in enumerate(faces) if (f.x1 - f.x0) * width * (f.y1 - f.y0) * height >= min_area]

    def _region(self, face: Region, row: int, distance: float) -> Region:
        return Region(
            detector=self.name,
            label=self.gallery.names[int(self.gallery.person[row])],
            score=score_of(distance),
            x0=face.x0,
            y0=face.y0,
            x1=face.x1,
            y1=face.y1,
        )


def _best_score(faces: Sequence[Region]) -> float:
    return max((face.score for face in faces), default=0.0)


def score_of(distance: float) -> float:
    """The confidence that two faces at this distance are one person's: 0.5 at dlib's 0.6, 0.88 at 0.5, 0.98 at 0.4.

    A logistic curve around the distance at which the network was trained to separate people. It is set, not fitted:
    there are too few faces to fit it (docs/faces.md), and they would make it steeper.
    """
    return float(1 / (1 + torch.exp(torch.tensor(_STEEPNESS * (distance - DISTANCE), dtype=torch.float64))))


def load_face(path: str, device: torch.device) -> FaceNetwork:
    """The face network on a device, in float32. Raises FatalError when the file is another network's."""
    from moderation.detectors.faces.network import FaceNetwork, load_face_network
    from moderation.detectors.nn.prepare import prepare

    network = FaceNetwork()
    load_face_network(network, read_dlib(path))
    return prepare(network, device, torch.float32)


def read_gallery(uri: str) -> tuple[Gallery, str]:
    """A gallery and the sha256 of its file. Raises UsageError when it is missing or is no gallery."""
    try:
        size = storage.info(uri).size_bytes
        if size > MAX_BYTES:
            raise UsageError(f"gallery {uri}: {size:,} bytes; at most {MAX_BYTES:,} are read")
        data = storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise UsageError(f"gallery {uri}: no such file; make one with `moderation enroll`") from error
    except (storage.StorageError, PermissionError, IsADirectoryError) as error:
        raise UsageError(f"gallery {uri}: not readable: {error}") from error
    gallery = decode_gallery(data, where=f"gallery {uri}")
    if gallery.network != FACE_WEIGHTS.sha256:
        raise UsageError(f"gallery {uri}: made with another network; enroll again")
    return gallery, hashlib.sha256(data).hexdigest()
