"""Scenes are learned from a hundred photographs, and told in photographs of things that the probe has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.scenes import measure_draws, scene_of
from moderation.config.load import load_config
from moderation.sources import open_source
from moderation.training.heads.backbone import find_backbone, load_backbone
from moderation.training.heads.features import compute_features
from tests.job_runs import SHARED

IMAGES = SHARED / "images"


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.weights
@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared/data")
def test_classes_of_the_network_help_to_tell_scenes_of_things_that_were_not_learned(tmp_path: Path) -> None:
    config = load_config(None)
    items = [item for item in open_source(str(IMAGES), config.source) if scene_of(Path(item.uri).name)]
    scenes = sorted({scene_of(Path(item.uri).name) or "" for item in items})
    of = torch.tensor([scenes.index(scene_of(Path(item.uri).name) or "") for item in items])
    backbone = load_backbone(find_backbone(config, "imagenet"), config)
    found = compute_features(items, backbone, config, tmp_path, views=1, seed=0)
    kept = of[torch.from_numpy(found.kept)]
    related = measure_draws(found.embeddings, kept, backbone.classifier, draws=3)
    alone = measure_draws(found.embeddings, kept, None, draws=3)
    assert related["with_classes"] == 1
    assert related["mean"] > 0.8 > 0.7 > alone["mean"]
