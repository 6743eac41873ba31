"""Trained heads: their file, what they read, that their layers change nothing for others, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moderation.config.load import load_config
from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.detectors.base import Backbone, ClassifyingBackbone
from moderation.detectors.general.imagenet import ImageNet
from moderation.detectors.general.imagenet_network import EfficientNetLite0
from moderation.detectors.heads.head_file import TAIL, column_label, encode_head, read_head_record
from moderation.detectors.views import TensorFrames
from moderation.errors import FatalError, UsageError
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.training.heads.probe import Probe
from moderation.types import Frame

SHA256 = ImageNet.weights[0].sha256
RECORD: dict[str, Any] = {
    "name": "scenes",
    "classes": ["indoors", "street", "海"],
    "backbone": {"detector": "imagenet", "sha256": SHA256, "width": 1280},
}


def tensors(classes: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn((classes, 1280), generator=rng),
        "bias": torch.randn(classes, generator=rng),
        "temperature": torch.tensor([2.0]),
    }


def write(path: Path, record: dict[str, Any] | None = None, numbers: dict[str, torch.Tensor] | None = None) -> Path:
    path.write_bytes(encode_head({**RECORD, **(record or {})}, tensors() if numbers is None else numbers))
    return path


def entry(path: Path, name: str = "head:scenes", **options: str) -> DetectorConfig:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return DetectorConfig(name=name, weights=f"file://{path}", sha256=sha256, options=options)


def stack(*entries: DetectorConfig, first: str = "imagenet", dtype: Any = "fp32") -> Stack:
    detectors = (DetectorConfig(name=first), *entries)
    return build_stack(Config(stack=StackConfig(detectors=detectors, device="cpu", dtype=dtype)))


def frames(count: int = 3) -> list[Frame]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40 + 8 * i, 60, 3), dtype=np.uint8) for i in range(count)]
    return [Frame(index=i, pixels=p, width=p.shape[1], height=p.shape[0]) for i, p in enumerate(pictures)]


def test_name_with_a_colon_is_a_detector_and_what_its_columns_are_called() -> None:
    config = DetectorConfig(name="head:scenes")
    assert (config.name, config.alias, config.title) == ("head", "scenes", "scenes")
    assert DetectorConfig(name="imagenet").title == "imagenet"


def test_labels_follow_from_the_file_before_anything_is_loaded(tmp_path: Path) -> None:
    built = stack(entry(write(tmp_path / "head.safetensors")))
    assert built.labels[-3:] == ("scenes.indoors", "scenes.street", "scenes.海")


@pytest.mark.weights
def test_exclusive_classes_share_one_and_several_stand_by_themselves(tmp_path: Path) -> None:
    numbers = tensors()
    shared = write(tmp_path / "a.safetensors", numbers=numbers)
    apart = write(tmp_path / "b.safetensors", {"several": True}, numbers)
    built = stack(entry(shared, "head:shared"), entry(apart, "head:apart"))
    built.load()
    scores = torch.from_numpy(built.score(frames()).scores[:, -6:])
    torch.testing.assert_close(scores[:, :3].sum(dim=1), torch.ones(3))
    odds = torch.logit(scores[:, 3:].double())
    torch.testing.assert_close(odds.softmax(dim=1).float(), scores[:, :3], atol=1e-4, rtol=1e-3)


@pytest.mark.weights
@pytest.mark.parametrize("backbone", ["imagenet", "image_safety"])
def test_layers_of_its_own_that_are_the_backbone_s_score_as_the_probe(backbone: str, tmp_path: Path) -> None:
    probe_only = build_stack(load_config(None, ["stack.only=[]", "stack.dtype=fp32"]))
    slot = next(s for s in probe_only.slots if s.detector.name == backbone)
    width, sha256 = slot.detector.embedding_dim, slot.weights[0].sha256
    numbers = {**tensors(), "weight": torch.randn((3, width), generator=torch.Generator().manual_seed(3))}
    record = {"backbone": {"detector": backbone, "sha256": sha256, "width": width}}
    plain = write(tmp_path / "plain.safetensors", record, numbers)

    before = stack(entry(plain, "head:plain"), first=backbone)
    before.load()
    network = before.slots[0].detector
    assert isinstance(network, Backbone)
    depth = len(network.trunk()) - 3
    tail = {f"{TAIL}{name}": t for name, t in network.trunk()[depth:].state_dict().items()}
    deep = write(tmp_path / "deep.safetensors", {**record, "depth": depth}, {**numbers, **tail})

    both = stack(entry(plain, "head:plain"), entry(deep, "head:deep"), entry(deep, "head:again"), first=backbone)
    both.load()
    expected, got = before.score(frames()).scores, both.score(frames()).scores
    np.testing.assert_allclose(got[:, : expected.shape[1]], expected, atol=2e-5)
    np.testing.assert_allclose(got[:, -6:-3], expected[:, -3:], atol=1e-4)
    np.testing.assert_array_equal(got[:, -6:-3], got[:, -3:])


@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_head_that_reads_classes_scores_as_its_probe_and_changes_nothing_for_others(dtype: str, tmp_path: Path) -> None:
    weight = torch.randn((3, 2560), generator=torch.Generator().manual_seed(4)) * 3
    related = {"reads": "embedding_and_classes"}
    path = write(tmp_path / "related.safetensors", related, {**tensors(), "weight": weight})
    plain = write(tmp_path / "plain.safetensors")
    before, both = stack(entry(plain), dtype=dtype), stack(entry(plain), entry(path, "head:related"), dtype=dtype)
    before.load()
    both.load()
    network = both.slots[0].detector
    assert isinstance(network, ClassifyingBackbone)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        batch = TensorFrames([f.pixels for f in frames()], [(f.width, f.height) for f in frames()], torch.device("cpu"))
        embedding = network.score(batch, {}).embedding
    probe = Probe(
        weight_AD=weight,
        bias_A=tensors()["bias"],
        mean_D=torch.zeros(2560),
        deviation_D=torch.ones(2560),
        penalty=0.1,
        classifier=network.class_vectors(),
    )
    scores = both.score(frames()).scores
    np.testing.assert_allclose(scores[:, -3:], (probe.logits(embedding) / 2.0).softmax(dim=1), atol=1e-4)
    np.testing.assert_array_equal(scores[:, :-3], before.score(frames()).scores)


def test_head_that_reads_classes_is_refused_where_there_are_none_and_with_layers_of_its_own(tmp_path: Path) -> None:
    sha256 = stack(first="open_nsfw").slots[0].weights[0].sha256
    backbone = {"detector": "open_nsfw", "sha256": sha256, "width": 1280}
    related = {"reads": "embedding_and_classes"}
    path = write(tmp_path / "head.safetensors", {**related, "backbone": backbone})
    with pytest.raises(UsageError, match="no place among classes"):
        stack(entry(path), first="open_nsfw")
    with pytest.raises(FatalError, match="exclude each other"):
        read_head_record(write(path, {**related, "depth": 3}))
    with pytest.raises(FatalError, match="reads"):
        read_head_record(write(path, {"reads": "minds"}))


@pytest.mark.parametrize(
    ("record", "change", "words"),
    [
        ({"classes": ["a"]}, {}, "classes"),
        ({"reads": "embedding_and_classes"}, {}, "'weight' does not fit"),
        ({"classes": ["a", "a", "b"]}, {}, "distinct"),
        ({"classes": ["a", "b.c", "d"]}, {}, "distinct words"),
        ({}, {"weight": torch.zeros((3, 7))}, "'weight' does not fit"),
        ({}, {"bias": torch.tensor([float("nan")] * 3)}, "bias"),
        ({}, {"temperature": torch.tensor([0.0])}, "temperature"),
    ],
)
def test_file_that_is_no_head_is_refused_by_what_is_wrong(
    record: dict[str, Any], change: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "head.safetensors", record, {**tensors(), **change})
    with pytest.raises(FatalError, match=words):
        stack(entry(path)).slots[1].detector.load(torch.device("cpu"), torch.float32, [str(path)])


def test_bytes_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    for data in (b"", b"\x80\x04K\x01.", b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(FatalError, match="not readable as safetensors"):
            read_head_record(path)


def test_head_of_another_network_is_refused_and_one_without_its_backbone_too(tmp_path: Path) -> None:
    other = {"backbone": {**RECORD["backbone"], "sha256": "ab" * 32}}
    with pytest.raises(UsageError, match="other weights than 'imagenet' has here"):
        stack(entry(write(tmp_path / "a.safetensors", other)))
    with pytest.raises(UsageError, match="needs 'imagenet' before it"):
        stack(entry(write(tmp_path / "b.safetensors")), first="open_nsfw")


def test_backbone_that_hands_on_no_features_is_named(tmp_path: Path) -> None:
    record = {"backbone": {"detector": "open_nsfw", "sha256": SHA256, "width": 1280}, "depth": 3}
    path = write(tmp_path / "head.safetensors", record)
    safety = stack(first="open_nsfw").slots[0].weights[0].sha256
    record["backbone"] = {**record["backbone"], "sha256": safety}  # type: ignore[dict-item] # a mapping of both
    with pytest.raises(UsageError, match="hands on no features"):
        stack(entry(write(path, record)), first="open_nsfw")


def test_head_without_its_file_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="say where they lie"):
        stack(DetectorConfig(name="head:scenes"))


def test_unknown_option_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'backbone'"):
        stack(entry(write(tmp_path / "head.safetensors"), bakbone="x"))


@pytest.mark.parametrize(
    ("text", "label"), [("T-shirt", "t_shirt"), (" Long  Sleeve ", "long_sleeve"), ("海", "海"), ("a.b/c", "a_b_c")]
)
def test_class_names_become_labels(text: str, label: str) -> None:
    assert column_label(text) == label


def test_trunk_of_the_network_is_what_it_runs() -> None:
    network = EfficientNetLite0()
    assert isinstance(ImageNet({}), Backbone)
    assert len(ImageNet({}).build_trunk()) == len(network.layers)


def test_head_refuses_its_backbone_at_another_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on 'imagenet' with `input_px` 288; 'imagenet' has none"):
        stack(entry(write(tmp_path / "h.safetensors", {"backbone": {**RECORD["backbone"], "input_px": 288}})))
