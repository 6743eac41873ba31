"""Photographs of one ImageNet class each, pasted small on a plain background: what a score rests on is known.

A case is drawn only where the detector is sure of the pasted object: of what it does not see it can tell no place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moderation.config.model import Config, MediaConfig
from moderation.explain.vote_stack import VoteStack
from moderation.explain.windows import Place
from moderation.media import decode_image
from moderation.types import U8, Frame

SIDE = 448
MIN_SCORE = 0.5
# What `imagenet` sees of a picture of 448 pixels: the middle 7/8.
_SEEN = (28, SIDE - 28)
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PastedObject:
    """A picture with one object. label: of `imagenet`; place: where the object was pasted."""

    name: str
    label: str
    frame: Frame
    place: Place


def object_config(pictures: Path, **stack: object) -> Config:
    """A stack of `imagenet` alone, a label for each class of the pictures."""
    concepts = {label: [label] for label in sorted({_label(path) for path in pictures.glob("*.JPEG")})}
    entry = {"name": "imagenet", "options": {"concepts": concepts}}
    return Config.model_validate({"stack": {"detectors": [entry], **stack}})


def draw_objects(pictures: Path, votes: VoteStack, count: int, seed: int) -> list[PastedObject]:
    """`count` cases, drawn at random, of which the detector is sure. Raises ValueError where there are not so many."""
    cases = []
    for case in _draw(pictures, np.random.default_rng(seed)):
        score = votes.stack.score([case.frame]).scores[0, votes.column(case.label)]
        if score >= MIN_SCORE:
            cases.append(case)
        if len(cases) == count:
            return cases
    raise ValueError(f"{pictures}: {len(cases)} of {count} cases")


def _draw(pictures: Path, rng: np.random.Generator) -> Iterator[PastedObject]:
    paths = sorted(pictures.glob("*.JPEG"))
    # A photograph that is not recognised at one size may be at another.
    order = np.concatenate([rng.permutation(len(paths)) for _ in range(_ROUNDS)])
    for index in order.tolist():
        path = paths[index]
        side = int(rng.integers(150, 231))
        background = np.full((SIDE, SIDE, 3), int(rng.integers(100, 161)), np.uint8)
        left, top = (int(rng.integers(_SEEN[0], _SEEN[1] - side + 1)) for _ in range(2))
        background[top : top + side, left : left + side] = _square(path, side)
        place = (left / SIDE, top / SIDE, (left + side) / SIDE, (top + side) / SIDE)
        frame = Frame(index=0, pixels=background, width=SIDE, height=SIDE)
        yield PastedObject(name=path.name, label=_label(path), frame=frame, place=place)


def _square(path: Path, side: int) -> U8:
    """The middle of a photograph, uint8 [side,side,3]."""
    pixels = decode_image(path.read_bytes(), MediaConfig()).frames[0].pixels
    short = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - short) // 2, (pixels.shape[1] - short) // 2
    planes = torch.from_numpy(pixels[top : top + short, left : left + short].copy()).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear", antialias=True)
    square: U8 = small[0].permute(1, 2, 0).numpy()
    return square


def _label(path: Path) -> str:
    return path.name.split("_")[0]


def randomise(votes: VoteStack, seed: int) -> None:
    """Replace all weights of the networks by random ones of the same spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in votes.detector.networks[0].parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.float().std(correction=0))
