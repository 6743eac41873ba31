"""Layers of the watermark network trained on composites: killed and gone on, with backgrounds held back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moderation.detectors.general.watermark_network import MarkNetwork
from moderation.detectors.nn.prepare import one_thread
from moderation.training.watermark.backgrounds import draw_ground
from moderation.training.watermark.descent import pick_threshold

pytest.importorskip("font_lato")
pytest.importorskip("manimgx_fonts_cjk")
tuning = pytest.importorskip("moderation.training.watermark.tuning")

CPU = torch.device("cpu")


@given(st.integers(2, 80))
def test_every_background_is_learned_from_or_held_back(count: int) -> None:
    grounds = [np.full((1, 1, 3), number, np.uint8) for number in range(count)]
    learned, held = tuning.hold_back(grounds)
    assert sorted(int(g[0, 0, 0]) for g in [*learned, *held]) == list(range(count))
    assert learned and held
    assert len(held) <= max(1, -(-count // 10))


def test_threshold_for_rarer_marks_is_stricter() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    marked = torch.tensor([1.0, 1, 1, 0, 1, 0])
    assert pick_threshold(scores, marked, 0.8) == (pytest.approx(0.5), 1.0)
    assert pick_threshold(scores, marked, 0.8, rarer=7) == (pytest.approx(0.7), 0.75)


def test_kept_state_is_read_by_the_same_call_alone(tmp_path: Path) -> None:
    uri = tmp_path / "tuning.safetensors"
    state = {"a.weight": torch.arange(4.0)}
    kept = tuning.MarkProgress(step=7, network=state, average=state, optimizer={"0.exp_avg": torch.ones(2)})
    assert tuning.load_tuning(str(uri), "key") is None
    tuning.save_tuning(str(uri), "key", kept)
    back = tuning.load_tuning(str(uri), "key")
    assert back is not None and back.step == 7
    assert torch.equal(back.network["a.weight"], state["a.weight"])
    assert torch.equal(back.optimizer["0.exp_avg"], torch.ones(2))
    assert tuning.load_tuning(str(uri), "other") is None
    uri.write_bytes(uri.read_bytes()[:50])
    assert tuning.load_tuning(str(uri), "key") is None


@pytest.mark.long
def test_killed_tuning_goes_on_to_the_same_numbers_and_leaves_the_first_layers() -> None:
    grounds = [draw_ground(np.random.default_rng(seed)) for seed in range(2)]
    settings = tuning.MarkTuning(pictures=6, batch_size=2)

    def network() -> MarkNetwork:
        torch.manual_seed(0)
        return MarkNetwork()

    saved: list[object] = []
    with one_thread():
        whole, resumed = network(), network()
        first = {name: tensor.clone() for name, tensor in whole.trunk.layers[: tuning.FROZEN].state_dict().items()}
        list(tuning.tune_marks(whole, grounds, settings, CPU, torch.float32, save=saved.append, save_every=2))
        list(tuning.tune_marks(resumed, grounds, settings, CPU, torch.float32, resume=saved[0]))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)
    for name, tensor in first.items():
        assert torch.equal(whole.trunk.layers[: tuning.FROZEN].state_dict()[name], tensor)
    assert not torch.equal(whole.head.first.weight, network().head.first.weight)
