"""Faces cut out upright and of one size, by their five points, as input of a face network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:
    from moderation.detectors.deferred import functional as F
    from moderation.detectors.deferred import torch


# Where the points of a face lie in a chip of dlib, 0..1 of its side. The eyes are those of dlib's own chips (47.7, 47.1
# and 100.3, 47.1 of 150 pixels); nose and mouth are added in the proportions of the mean face that ArcFace aligns to
# (https://arxiv.org/abs/1801.07698, its five points in 112x112).
TARGET: Final = ((0.318, 0.314), (0.669, 0.314), (0.4945, 0.5147), (0.3475, 0.7187), (0.6385, 0.7187))
# dlib aligned its training chips by the eyes; the other points keep a turned head from being enlarged.
WEIGHTS: Final = (2.0, 2.0, 1.0, 1.0, 1.0)
_MAX_FINE: Final = 4  # samples per side of a chip's pixel: a face that fills a canvas of 448 pixels needs 3 to 5


def similarity(points: torch.Tensor) -> torch.Tensor:
    """The rotation, scale and shift that best move TARGET onto five points, by weighted least squares.

    points: float [N,5,2], x, y in pixels -> float [N,2,3], from a chip's 0..1 to pixels. In complex numbers a rotation
    with scale is one product, so the best one is a quotient of two sums.
    """
    points = points.double()
    target = points.new_tensor(TARGET)
    weights = points.new_tensor(WEIGHTS)
    weights = weights / weights.sum()
    middle = (weights[:, None] * target).sum(dim=0)
    middles = (weights[:, None] * points).sum(dim=1)
    t = torch.view_as_complex((target - middle).contiguous())
    p = torch.view_as_complex((points - middles[:, None]).contiguous())
    a = (weights * t.conj() * p).sum(dim=1) / (weights * (t * t.conj()).real).sum()
    b = torch.view_as_complex(middles.contiguous()) - a * torch.view_as_complex(middle)
    rows = [torch.stack([a.real, -a.imag, b.real], dim=1), torch.stack([a.imag, a.real, b.imag], dim=1)]
    return torch.stack(rows, dim=1).float()


def cut_chips(frames: Sequence[torch.Tensor], points: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """Every face as a picture of its own, upright, frame after frame: float32 [N,3,side,side], RGB 0..255.

    frames: uint8 [H,W,3] each; points: float [n,5,2] per frame, 0..1 of it, on the same device. Pixels outside a frame
    repeat its edge. A face much larger than the chip is sampled more finely and averaged, to avoid aliasing.
    """
    chips = [_cut(frame, own, side) for frame, own in zip(frames, points, strict=True) if len(own)]
    if not chips:
        device = frames[0].device if frames else None
        return torch.zeros((0, 3, side, side), device=device)
    return torch.cat(chips)


def _cut(frame: torch.Tensor, points: torch.Tensor, side: int) -> torch.Tensor:
    height, width = frame.shape[:2]
    moves = similarity(points * points.new_tensor([width, height]))
    pixels = frame.permute(2, 0, 1)[None].float()
    chips = torch.empty((len(points), 3, side, side), device=frame.device)
    # Length in pixels of the frame of a chip's side.
    lengths = moves[:, :, 0].norm(dim=1).tolist()
    for index, length in enumerate(lengths):
        fine = min(_MAX_FINE, max(1, math.ceil(length / side))) if math.isfinite(length) else 1
        grid = _grid(moves[index], side * fine, width, height)
        fitted = F.grid_sample(pixels, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
        chips[index] = F.avg_pool2d(fitted, fine)[0] if fine > 1 else fitted[0]
    return chips


def _grid(move: torch.Tensor, samples: int, width: int, height: int) -> torch.Tensor:
    """Where each of samples x samples pixels of a chip lies in the frame: [samples,samples,2], -1..1 of it."""
    along = (torch.arange(samples, device=move.device) + 0.5) / samples
    y, x = torch.meshgrid(along, along, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ move.T
    return places * places.new_tensor([2 / width, 2 / height]) - 1
