"""The backbone of a head: which detector, at which size."""

from __future__ import annotations

import pytest
import yaml

from moderation.config.model import Config, DetectorConfig, StackConfig
from moderation.errors import UsageError
from moderation.training.heads.backbone import find_backbone
from moderation.training.heads.request import HeadRequest, find_requested

CONFIG = Config(stack=StackConfig(detectors=(DetectorConfig(name="imagenet"),)))


def request(**changes: object) -> HeadRequest:
    return HeadRequest(images="x", out="y", name="z", **changes)  # type: ignore[arg-type] # of a HeadRequest


@pytest.mark.parametrize(
    ("changes", "title", "side", "crop"),
    [
        ({}, "imagenet", None, 224),
        ({"blocks": 2}, "imagenet_288", 288, 288),
        ({"blocks": 2, "input_px": 0}, "imagenet", None, 224),
        ({"input_px": 320}, "imagenet_320", 320, 320),
        ({"blocks": 2, "backbone": "image_safety"}, "image_safety", None, 224),
    ],
)
def test_backbone_with_trained_layers_reads_larger_pictures_by_default(
    changes: dict[str, object], title: str, side: int | None, crop: int
) -> None:
    found = find_requested(CONFIG, request(**changes))
    assert (found.title, found.input_px, found.detector.view.crop) == (title, side, crop)


def test_size_is_kept_where_the_configuration_has_it_and_where_a_head_names_it() -> None:
    sized = DetectorConfig(name="imagenet", alias="mine", options={"input_px": 256})
    config = Config(stack=StackConfig(detectors=(sized,)))
    assert find_requested(config, request(backbone="mine", blocks=2)).input_px == 256
    assert find_backbone(config, "mine", input_px=256).title == "mine"
    assert find_backbone(CONFIG, "imagenet_288", input_px=288).title == "imagenet_288"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "image_safety", "input_px": 320}, "reads one size"),
        ({"input_px": 300}, "the nearest is 288"),
        ({"input_px": 2000}, "the nearest is 448"),
        ({"backbone": "imagent", "input_px": 288}, "did you mean 'imagenet'"),
    ],
)
def test_size_that_a_backbone_cannot_read_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_requested(CONFIG, request(**changes))


def test_sized_backbone_is_an_entry_of_the_configuration_that_is_read_back() -> None:
    entry = find_requested(CONFIG, request(blocks=1)).entry
    back = DetectorConfig.model_validate(yaml.safe_load(yaml.safe_dump(entry.model_dump(exclude_defaults=True))))
    assert (back.name, back.title, dict(back.options)) == ("imagenet", "imagenet_288", {"input_px": 288})
