"""Two tiny open_clip models that the tests train themselves, on pictures they draw and caption: words mean something.

`train(name)` gives a checkpoint as a user would have one: a safetensors file and its architecture. Trained once in a
process (about 25 s each on one core), in a folder that goes when the process ends.

What is drawn: a shape in a colour, or a face, maybe with a mask over the mouth, maybe with glasses; on either perhaps
a line of text. Position, size, shades, background and noise vary; train and test pictures come from other seeds.
"""

from __future__ import annotations

import atexit
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moderation.detectors.base import View
from moderation.detectors.views import TensorFrames
from moderation.types import U8

PICTURE = 64  # pixels a side
_GRID = np.mgrid[0:PICTURE, 0:PICTURE].astype(np.float32)
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (205, 45, 40),
    "green": (45, 165, 60),
    "blue": (45, 80, 205),
    "yellow": (225, 200, 45),
}
SHAPES = ("circle", "square", "triangle")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
# ResNets: in 400 steps they learn what a transformer of that size does not (shapes: 0.83 right against 0.38).
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "tiny_a": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": None, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": _TEXT,
    },
    "tiny_b": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "patch_size": None, "layers": [1, 1, 1, 1], "width": 12, "head_width": 64},
        "text_cfg": _TEXT,
    },
}
_SEEDS = {"tiny_a": 1, "tiny_b": 2}
_STEPS = 350
_DRAWN = 40  # pictures of each scene


# What the detector is asked in the tests; the words are those that the captions use, not the captions.
QUESTIONS: Mapping[str, Any] = {
    "mask": {"texts": ["a masked face"], "against": ["a bare face"]},
    "glasses": {"texts": ["a face with glasses"], "against": ["a face with naked eyes"]},
    "text": {
        "texts": [f"a {colour} circle, captioned with text" for colour in COLOURS] + ["a face, captioned"],
        "against": [f"a {colour} circle, clean and plain" for colour in COLOURS] + ["a face, clean"],
    },
    "face": {"texts": ["a face"], "against": ["a circle", "a square", "a triangle"]},
    "colour": {"answers": {colour: [f"a {colour} {shape}" for shape in SHAPES] for colour in COLOURS}},
    "shape": {"answers": {shape: [f"a {colour} {shape}" for colour in COLOURS] for shape in SHAPES}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows: a shape in a colour, or (shape None) a face."""

    shape: str | None
    colour: str | None
    mask: bool = False
    glasses: bool = False
    text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyClip:
    """A trained checkpoint."""

    name: str
    path: Path
    sha256: str
    architecture: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the detector `clip`, with `QUESTIONS`."""
        terms = {"licence": "Apache-2.0", "origin": "tests/tiny_clip.py"}
        return {"architecture": dict(self.architecture), "questions": QUESTIONS, **terms}

    @property
    def entry(self) -> dict[str, Any]:
        """`weights` and `sha256` of a detector in a configuration."""
        return {"weights": f"file://{self.path}", "sha256": self.sha256}


def scenes() -> list[Scene]:
    """Every scene there is: 24 of shapes, 8 of faces."""
    flags = (False, True)
    shapes = [Scene(shape=s, colour=c, text=t) for s, c, t in product(SHAPES, COLOURS, flags)]
    faces = [Scene(shape=None, colour=None, mask=m, glasses=g, text=t) for m, g, t in product(flags, flags, flags)]
    return shapes + faces


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of the ways to say what a scene shows."""
    if scene.shape is not None:
        words = f"a {scene.colour} {scene.shape}"
    else:
        # Other words for yes and no, rather than "without": a tower of one layer reads words, not syntax.
        mouth = "masked face" if scene.mask else "bare face"
        eyes = "with glasses" if scene.glasses else "with naked eyes"
        words = f"a {mouth} {eyes}"
    words += str(
        rng.choice([", captioned", ", captioned with text"] if scene.text else [", clean", ", clean and plain"])
    )
    return str(rng.choice(["", "a photo of ", "a picture of "])) + words


def draw(scene: Scene, rng: np.random.Generator) -> U8:
    """The picture of a scene, uint8 [64,64,3]."""
    y, x = _GRID
    base = rng.uniform(120, 230, 3)
    pixels = base + np.outer(np.linspace(-1, 1, PICTURE), np.ones(PICTURE))[..., None] * rng.uniform(-25, 25, 3)
    radius = rng.uniform(15, 23)
    cx, cy = rng.uniform(radius + 1, PICTURE - radius - 1, 2)
    if scene.shape is None:
        _draw_face(pixels, x - cx, y - cy, radius, scene, rng)
    else:
        colour = np.array(COLOURS[str(scene.colour)]) + rng.uniform(-25, 25, 3)
        pixels[_inside(scene.shape, x - cx, y - cy, radius)] = colour
    if scene.text:
        _draw_text(pixels, rng)
    pixels = pixels + rng.normal(0, 6, pixels.shape)
    drawn: U8 = pixels.clip(0, 255).astype(np.uint8)
    return drawn


def draw_set(count: int, seed: int, *, among: Sequence[Scene] | None = None) -> tuple[list[U8], list[Scene]]:
    """Pictures of scenes chosen at random, and the scenes."""
    rng = np.random.default_rng(seed)
    choice = list(among or scenes())
    chosen = [choice[i] for i in rng.integers(0, len(choice), count)]
    return [draw(scene, rng) for scene in chosen], chosen


@cache
def train(name: str, steps: int = _STEPS) -> TinyClip:
    """One of `ARCHITECTURES`, trained; the same numbers every time."""
    from safetensors.torch import save_file

    threads = torch.get_num_threads()
    # One thread: sums in one order, and on a busy machine no slower (layers this small spend two on waiting).
    torch.set_num_threads(1)
    try:
        state = _train(name, steps)
    finally:
        torch.set_num_threads(threads)
    path = _folder() / f"{name}-{steps}.safetensors"
    save_file(state, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return TinyClip(name=name, path=path, sha256=sha256, architecture=ARCHITECTURES[name])


def _train(name: str, steps: int) -> dict[str, torch.Tensor]:
    import open_clip

    architecture, seed = ARCHITECTURES[name], _SEEDS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**architecture).train()
    tokenizer = open_clip.SimpleTokenizer(context_length=_TEXT["context_length"])
    # 49,408 random words, of which the captions use forty: learning them would triple the time of a step.
    model.token_embedding.requires_grad_(False)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=3e-3, weight_decay=0.02)
    warm_then_cosine = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    loss_of = open_clip.ClipLoss()
    for pixels, captions in _batches(steps, architecture["vision_cfg"]["image_size"], seed=1000 * seed):
        image, text, scale = model(pixels, tokenizer(captions))
        loss = loss_of(image, text, scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        warm_then_cosine.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
    return {key: value.detach().contiguous() for key, value in model.state_dict().items()}


def _batches(steps: int, size: int, seed: int) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Every scene once a batch, so that no caption of it is true of another picture; float32 [32,3,S,S]."""
    rng = np.random.default_rng(seed)
    view = View(mode="crop", resize=size, crop=size, interpolation="bicubic")
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    everything = scenes()
    pictures = [draw(scene, rng) for scene in everything for _ in range(_DRAWN)]
    drawn = TensorFrames(pictures, [(PICTURE, PICTURE)] * len(pictures), _CPU).view(view)
    pool = ((drawn / 255 - mean) / std).view(len(everything), _DRAWN, 3, size, size)
    for _ in range(steps):
        pixels = pool[torch.arange(len(everything)), torch.from_numpy(rng.integers(0, _DRAWN, len(everything)))]
        mirrored = torch.from_numpy(rng.random(len(everything)) < 0.5)
        pixels[mirrored] = pixels[mirrored].flip(3)
        yield pixels, [caption(s, rng) for s in everything]


_CPU = torch.device("cpu")


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="tiny_clip_")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _inside(shape: str, x: Any, y: Any, radius: float) -> Any:
    if shape == "circle":
        return x * x + y * y < radius * radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.85 * radius
    return (y < 0.8 * radius) & (y > -0.9 * radius + 2 * abs(x) * 0.85)


def _draw_face(pixels: Any, x: Any, y: Any, radius: float, scene: Scene, rng: np.random.Generator) -> None:
    skin = np.array([225, 180, 150]) * rng.uniform(0.55, 1.05) + rng.uniform(-8, 8, 3)
    head = (x / 0.8) ** 2 + y**2 < radius**2
    pixels[head] = skin
    pixels[head & (y < -0.6 * radius)] = rng.uniform(20, 120, 3)
    for side in (-1, 1):
        eye = (x - side * 0.32 * radius) ** 2 + (y + 0.2 * radius) ** 2
        pixels[eye < (0.09 * radius) ** 2 + 2] = 25
        if scene.glasses:
            pixels[eye < (0.27 * radius) ** 2] = 15
    if scene.glasses:
        pixels[(abs(y + 0.2 * radius) < 1.2) & (abs(x) < 0.12 * radius)] = 15
    if scene.mask:
        cloth = rng.uniform(-12, 12, 3) + np.array([[235, 238, 240], [110, 175, 215], [60, 60, 65]][rng.integers(3)])
        pixels[head & (y > 0.12 * radius)] = cloth
    else:
        mouth = (abs(y - 0.45 * radius) < 0.07 * radius + 0.7) & (abs(x) < 0.28 * radius)
        pixels[mouth] = np.array([170, 60, 65]) + rng.uniform(-20, 20, 3)


def _draw_text(pixels: Any, rng: np.random.Generator) -> None:
    ink = rng.uniform(0, 40, 3) if rng.random() < 0.5 else rng.uniform(225, 255, 3)
    top, left = int(rng.integers(1, PICTURE - 12)), int(rng.integers(1, 12))
    letters = (rng.random((8, 5, 3)) < 0.62).repeat(2, axis=1).repeat(2, axis=2)
    for i, letter in enumerate(letters):
        x = left + i * 8
        if x + 6 > PICTURE or rng.random() < 0.12:  # the end of the line, or a space
            continue
        pixels[top : top + 10, x : x + 6][letter] = ink
