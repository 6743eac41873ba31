"""Layers of the watermark network trained on composites: killed and gone on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moderation.detectors.general.watermark_network import MarkNetwork
from moderation.detectors.nn.prepare import one_thread
from moderation.training.watermark.backgrounds import draw_ground
from moderation.training.watermark.batches import halve_batch, learning_batches, stack_composites
from moderation.training.watermark.composites import make_composite
from moderation.training.watermark.marks import known_families

pytest.importorskip("font_lato")
pytest.importorskip("manimgx_fonts_cjk")
tuning = pytest.importorskip("moderation.training.watermark.tuning")

CPU = torch.device("cpu")
FAMILIES = known_families()


def test_kept_state_is_read_by_the_same_call_alone(tmp_path: Path) -> None:
    uri = tmp_path / "tuning.safetensors"
    state = {"a.weight": torch.arange(4.0)}
    kept = tuning.MarkProgress(
        step=7, network=state, average=state, optimizer={"0.exp_avg": torch.ones(2)}, losses=(0.5, 0.25)
    )
    assert tuning.load_tuning(str(uri), "key") is None
    tuning.save_tuning(str(uri), "key", kept)
    back = tuning.load_tuning(str(uri), "key")
    assert back is not None and back.step == 7 and back.losses == (0.5, 0.25)
    assert torch.equal(back.network["a.weight"], state["a.weight"])
    assert torch.equal(back.optimizer["0.exp_avg"], torch.ones(2))
    assert tuning.load_tuning(str(uri), "other") is None
    uri.write_bytes(uri.read_bytes()[:50])
    assert tuning.load_tuning(str(uri), "key") is None


@pytest.mark.parametrize("count", [1, 5])
def test_halves_of_a_batch_have_all_its_pictures_in_order(count: int) -> None:
    marks = [
        make_composite(draw_ground(np.random.default_rng(n)), FAMILIES, (n,), marked=n % 2 == 0, confusing=False)
        for n in range(count)
    ]
    batch = stack_composites(marks)
    halves = halve_batch(batch)
    assert len(halves) == min(2, count)
    for name in ("frames", "kinds", "owners", "marked", "plain"):
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(batch, name))


@pytest.mark.long
def test_killed_tuning_goes_on_to_the_same_numbers_and_leaves_the_first_layers() -> None:
    grounds = [draw_ground(np.random.default_rng(seed)) for seed in range(2)]
    settings = tuning.MarkTuning(pictures=6, batch_size=2)

    def network() -> MarkNetwork:
        torch.manual_seed(0)
        made = MarkNetwork()
        with torch.no_grad():
            made.trunk.layers[3].steps[1].weight[:, :, 0] = 0
            made.trunk.layers[3].steps[1].weight[:, :, :, 0] = 0
        return made

    saved: list[object] = []
    with one_thread():
        whole, resumed = network(), network()
        first = {name: tensor.clone() for name, tensor in whole.trunk.layers[: tuning.FROZEN].state_dict().items()}
        told = list(tuning.tune_marks(whole, grounds, settings, CPU, torch.float32, save=saved.append, save_every=2))
        told_again = list(tuning.tune_marks(resumed, grounds, settings, CPU, torch.float32, resume=saved[0]))
    assert told_again == [pytest.approx(entry, rel=1e-4) for entry in told]
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)
    for name, tensor in first.items():
        assert torch.equal(whole.trunk.layers[: tuning.FROZEN].state_dict()[name], tensor)
    odd = whole.trunk.layers[3].steps[1]
    assert odd.kernel_size == (6, 6) and odd.is_odd()
    assert not torch.equal(whole.head.fine.weight, network().head.fine.weight)


def test_batches_are_the_same_however_they_are_drawn() -> None:
    grounds = [draw_ground(np.random.default_rng(seed)) for seed in range(3)]
    by_thread = list(learning_batches(grounds, (0, 1), 2, 1, 4))
    by_processes = list(learning_batches(grounds, (0, 1), 2, 1, 4, processes=2))
    assert len(by_thread) == len(by_processes) == 3
    for one, other in zip(by_thread, by_processes, strict=True):
        for name in ("frames", "kinds", "owners", "marked", "plain"):
            assert torch.equal(getattr(one, name), getattr(other, name))
