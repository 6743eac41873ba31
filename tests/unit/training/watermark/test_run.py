"""`train_watermark` from pictures to a file that the detector reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.config.load import load_config
from moderation.detectors.general.watermark import load_marks
from moderation.detectors.general.watermark_network import MarkNetwork
from moderation.errors import UsageError
from moderation.training.watermark.backgrounds import draw_ground

pytest.importorskip("font_lato")
pytest.importorskip("manimgx_fonts_cjk")
run = pytest.importorskip("moderation.training.watermark.run")
tuning = pytest.importorskip("moderation.training.watermark.tuning")


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(draw_ground(np.random.default_rng(number))).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.long
@pytest.mark.weights
@pytest.mark.parametrize("layers", ["upper", "all"])
def test_what_is_trained_is_read_by_the_detector_and_its_card_says_how(
    pictures: str, tmp_path: Path, layers: str
) -> None:
    settings = tuning.MarkTuning(
        pictures=16, batch_size=8, held=8, held_clean=8, frozen=tuning.FROZEN if layers == "upper" else 0
    )
    outcome = run.train_watermark(
        load_config(None), backgrounds=[pictures], out=str(tmp_path / "out"), tuning=settings, cache=tmp_path / "cache"
    )
    network = MarkNetwork()
    load_marks(network, Path(outcome.uri))
    first = run.packaged_trunk().layers[0].weight.half().float()
    assert torch.equal(network.trunk.layers[0].weight, first) == (layers == "upper")
    card = json.loads((tmp_path / "out" / run.MARK_CARD).read_text())
    assert card["sha256"] == outcome.sha256
    assert card["tuning"]["pictures"] == 16
    assert set(card["held_back"]) == {"loss", "held_right", "threshold", "recall"}


@pytest.mark.weights
def test_weights_to_go_on_from_that_are_not_there_are_named(pictures: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--from gone\.safetensors"):
        run.train_watermark(
            load_config(None),
            backgrounds=[pictures],
            out=str(tmp_path / "out"),
            tuning=tuning.MarkTuning(pictures=8),
            start="gone.safetensors",
        )
