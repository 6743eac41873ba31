"""Body parts with boxes, bare or covered, by NudeNet, and labels derived from them.

Source: https://github.com/notAI-tech/NudeNet, package nudenet (extra `nudenet`). ITS WEIGHTS ARE UNDER THE AGPL-3.0,
like the network they were trained with: whoever offers this over a network owes its users the source of the whole. So
no default configuration has this detector; naming it in one is that decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from moderation.config.hints import did_you_mean
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options
from moderation.errors import UsageError
from moderation.types import Region

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F

    from moderation.detectors.safety.nudity_network import PartsNetwork
else:
    from moderation.detectors.deferred import functional as F
    from moderation.detectors.deferred import torch

# In the file's order of classes.
PARTS: Final = (
    "female_genitalia_covered",
    "face_female",
    "buttocks_exposed",
    "female_breast_exposed",
    "female_genitalia_exposed",
    "male_breast_exposed",
    "anus_exposed",
    "feet_exposed",
    "belly_covered",
    "feet_covered",
    "armpits_covered",
    "armpits_exposed",
    "face_male",
    "belly_exposed",
    "male_genitalia_exposed",
    "anus_covered",
    "female_breast_covered",
    "buttocks_covered",
)

# The default meaning of each part: label -> part -> weight.
DEFAULT_MEANING: Final[Mapping[str, Mapping[str, float]]] = {
    "explicit": {
        "female_genitalia_exposed": 1.0,
        "male_genitalia_exposed": 1.0,
        "anus_exposed": 1.0,
        "female_breast_exposed": 0.9,
        "buttocks_exposed": 0.7,
    },
    "suggestive": {
        "buttocks_exposed": 1.0,
        "female_breast_exposed": 1.0,
        "female_genitalia_covered": 0.8,
        "anus_covered": 0.8,
        "buttocks_covered": 0.6,
        "female_breast_covered": 0.5,
        "belly_exposed": 0.5,
        "male_breast_exposed": 0.4,
        "armpits_exposed": 0.3,
    },
    "covered": {
        "female_breast_covered": 1.0,
        "female_genitalia_covered": 1.0,
        "buttocks_covered": 1.0,
        "anus_covered": 1.0,
        "belly_covered": 1.0,
        "armpits_covered": 0.8,
        "feet_covered": 0.5,
    },
}

_SIDE: Final = 320
# As in the package: a box counts from 0.2 on, is reported from 0.25, and dropped if a better one overlaps by over 0.45.
_REPORTED: Final = 0.25
_OVERLAP: Final = 0.45
# Boxes of one frame, most confident first; the sample photographs have 60 at most before suppression.
_MAX_BOXES: Final = 200


class Nudity(DetectorDefaults):
    """Labels `explicit`, `suggestive` and `covered`, 0..1: each the maximum over its parts of weight times the part's
    score; `parts`, the number of parts found.

    Regions: one per part. The table is `DEFAULT_MEANING`; the option `meaning` (label -> part -> weight) replaces the
    labels that it names. A part may count for several labels: a bare buttock for suggestive fully, for explicit by 0.7.

    The weights are under the AGPL-3.0 and off by default, see the module. View: the picture in the top left of a black
    square, 320x320, bilinear without antialiasing, as in the package.
    """

    name = "nudity"
    version = "1"
    labels: Sequence[str] = ("explicit", "suggestive", "covered", "parts")
    ranges: Mapping[str, tuple[float, float]] = {"parts": (0.0, _MAX_BOXES)}
    view = View(mode="canvas")
    cost_ms = 20.0
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://nudenet/320n.onnx",
            sha256="c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
            licence="AGPL-3.0",
            origin="https://github.com/notAI-tech/NudeNet",
        ),
    )

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"meaning": Mapping})
        self.meaning = {**DEFAULT_MEANING, **_checked(options.get("meaning", {}))}
        self.network: PartsNetwork | None = None
        self._dtype: torch.dtype

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device. Raises FatalError when they are another network's."""
        from moderation.detectors.nn.prepare import prepare
        from moderation.detectors.nn.suppression import load_suppression
        from moderation.detectors.safety.nudity_network import PartsNetwork, load_network
        from moderation.detectors.weights.onnx import read_onnx

        load_suppression()
        network = PartsNetwork().requires_grad_(False)
        load_network(network, read_onnx(paths[0]))
        self.network = prepare(network, device, dtype)
        self.networks = (self.network,)
        self._dtype = dtype

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,4]; one region per part."""
        from moderation.detectors.nn.prepare import infer

        if self.network is None:
            raise RuntimeError("load() first")
        frames = batch.frames_HWC
        if not frames:
            return Scored(scores=torch.zeros((0, len(self.labels))), regions=[])
        pixels = torch.cat([_squared(frame) for frame in frames])
        outputs = infer(self.network, pixels.div_(255).to(self._dtype)).float()
        sizes = torch.tensor([[f.shape[1], f.shape[0]] for f in frames], dtype=torch.float32, device=outputs.device)
        candidates = keep_best(outputs, sizes)
        return Scored(scores=self._summary(candidates), regions=self._regions(candidates.cpu(), sizes.cpu()))

    def _summary(self, candidates: PartBoxes) -> torch.Tensor:
        columns = []
        for label in self.labels[:3]:
            weight = candidates.scores.new_tensor([self.meaning[label].get(part, 0.0) for part in PARTS])
            columns.append((candidates.scores * weight[candidates.classes] * candidates.kept).amax(dim=1))
        return torch.stack([*columns, candidates.kept.sum(dim=1).float()], dim=1)

    def _regions(self, candidates: PartBoxes, sizes: torch.Tensor) -> list[list[Region]]:
        regions: list[list[Region]] = [[] for _ in candidates.boxes]
        for i, k in candidates.kept.nonzero().tolist():
            # Boxes are in the frame's pixels; rounding may exceed 1, which lies outside the frame.
            x0, y0, x1, y1 = (candidates.boxes[i, k] / sizes[i].repeat(2)).clamp(0, 1).tolist()
            part, score = PARTS[int(candidates.classes[i, k])], float(candidates.scores[i, k])
            regions[i].append(Region(detector=self.name, label=part, score=score, x0=x0, y0=y0, x1=x1, y1=y1))
        return regions


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBoxes:
    """The candidates of each frame, most confident first: K is the largest number in a frame, at most 200.

    boxes: float32 [B,K,4], x0, y0, x1, y1 in pixels of the frame. scores: float32 [B,K]. classes: int64 [B,K].
    kept: bool [B,K], the boxes that count.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    kept: torch.Tensor

    def cpu(self) -> PartBoxes:
        """The same on the host."""
        return PartBoxes(
            boxes=self.boxes.cpu(), scores=self.scores.cpu(), classes=self.classes.cpu(), kept=self.kept.cpu()
        )


def keep_best(outputs: torch.Tensor, sizes: torch.Tensor) -> PartBoxes:
    """Non-maximum suppression of a batch, all classes together, as in the package.

    outputs: float32 [B,4+18,N], boxes in pixels of the 320x320 square; sizes: [B,2], width and height of each frame.
    """
    from moderation.detectors.nn.suppression import distinct

    best, classes = outputs[:, 4:].max(dim=1)
    count = min(_MAX_BOXES, max(1, int((best >= _REPORTED).sum(dim=1).max())))
    scores, order = best.topk(count, dim=1)
    boxes = _corners(outputs[:, :4].gather(2, order[:, None].expand(-1, 4, -1)), sizes)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for frame, sure in enumerate((scores >= _REPORTED).sum(dim=1).tolist()):
        kept[frame, distinct(boxes[frame, :sure], _OVERLAP)] = True
    return PartBoxes(boxes=boxes, scores=scores, classes=classes.gather(1, order), kept=kept)


def _corners(places: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Centre x, y, width, height [B,4,K] in pixels of the square -> x0, y0, x1, y1 [B,K,4] in pixels of the frame."""
    x, y, w, h = places.unbind(dim=1)
    scale = sizes.amax(dim=1, keepdim=True) / _SIDE
    width, height = sizes[:, :1], sizes[:, 1:]
    x0 = torch.minimum(((x - w / 2) * scale).clamp(min=0), width)
    y0 = torch.minimum(((y - h / 2) * scale).clamp(min=0), height)
    x1 = x0 + torch.minimum(w * scale, width - x0)
    y1 = y0 + torch.minimum(h * scale, height - y0)
    return torch.stack([x0, y0, x1, y1], dim=2)


def _squared(frame: torch.Tensor) -> torch.Tensor:
    """uint8 [H,W,3] -> float32 [1,3,320,320], whole numbers 0..255: black to the right and below, then bilinear."""
    height, width = frame.shape[:2]
    side = max(height, width)
    pixels = F.pad(frame[None].permute(0, 3, 1, 2), (0, side - width, 0, side - height))
    # Not in uint8, which torch supports on a CPU: its coarse weights are a level off for one pixel in six.
    return F.interpolate(pixels.float(), (_SIDE, _SIDE), mode="bilinear").round_().clamp_(0, 255)


def _checked(meaning: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Check `meaning`. Raises UsageError that names the wrong label, part or weight, and the nearest right one."""
    for label, parts in meaning.items():
        if label not in DEFAULT_MEANING:
            raise UsageError(
                f"detector 'nudity': meaning: no label {label!r}{did_you_mean(str(label), list(DEFAULT_MEANING))}"
            )
        if not isinstance(parts, Mapping):
            raise UsageError(f"detector 'nudity': meaning: {label}: expected part -> weight, got {parts!r}")
        for part, weight in parts.items():
            if part not in PARTS:
                raise UsageError(
                    f"detector 'nudity': meaning: {label}: no part {part!r}{did_you_mean(str(part), PARTS)}"
                )
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
                raise UsageError(f"detector 'nudity': meaning: {label}: {part}: weight must be 0 to 1, got {weight!r}")
    return dict(meaning)
