"""Layers trained with a head: from the probe on, down, stopped early, and resumed to the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from moderation.detectors.nn.conv import Conv
from moderation.detectors.nn.prepare import one_thread
from moderation.training.heads.batches import Examples, FinetuneSettings
from moderation.training.heads.checkpoint import load_progress, save_progress
from moderation.training.heads.finetune import TunedNetwork, finetune, predict
from moderation.training.heads.probe import Probe, fit_probe
from moderation.training.heads.progress import LayerProgress

CPU, FP32 = torch.device("cpu"), torch.float32
SETTINGS = FinetuneSettings(epochs=4, batch_size=8, rate=1e-3, layer_rate=1e-3, patience=9)


@pytest.fixture(autouse=True)
def _small_networks_take_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Conv(4, 8, 1, activation="relu"), Conv(8, 8, 3, activation="relu"))


def examples(count: int = 24) -> Examples:
    """Class by the product of two channels: no linear head on their means tells it."""
    rng = torch.Generator().manual_seed(1)
    features = torch.randn((2 * count, 2, 4, 3, 3), generator=rng).half()
    yes = (features[:, 0, 0].mean(dim=(1, 2)) * features[:, 0, 1].mean(dim=(1, 2)) > 0).long()
    targets = nn.functional.one_hot(yes, 2).float()
    return Examples(
        features=features[:count],
        targets=targets[:count],
        held_features=features[count:, 0],
        held_targets=targets[count:],
    )


def probe_on(data: Examples) -> Probe:
    tail = layers()
    with torch.no_grad():
        embeddings = tail(data.features[:, 0].float()).mean(dim=(2, 3))
    return fit_probe(embeddings[:, None], data.targets, 0.03, several=False, balance=True)


def test_training_begins_at_the_probe() -> None:
    data = examples()
    probe = probe_on(data)
    network = TunedNetwork(layers(), probe)
    with torch.no_grad():
        embeddings = layers()(data.features[:, 0].float()).mean(dim=(2, 3))
    expected = probe.logits(embeddings)
    got = predict(network, data.features[:, 0], device=CPU, dtype=FP32)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    weight, bias = network.folded()
    torch.testing.assert_close(embeddings @ weight.T + bias, expected, atol=1e-4, rtol=1e-4)


def test_best_epoch_is_the_one_that_stays() -> None:
    data = examples()
    network = TunedNetwork(layers(), probe_on(data))
    progress = finetune(network, data, SETTINGS, device=CPU, dtype=FP32)
    assert len(progress.losses) == SETTINGS.epochs + 1
    assert progress.losses.index(min(progress.losses)) == progress.best_epoch
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, progress.best[name])


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_result_lies_between_the_start_and_the_average(kept: float) -> None:
    data = examples()
    network = TunedNetwork(layers(), probe_on(data))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    unheld = replace(data, held_features=None, held_targets=None)
    progress = finetune(network, unheld, replace(SETTINGS, kept=kept), device=CPU, dtype=FP32)
    for name, tensor in network.state_dict().items():
        expected = start[name] * kept + progress.average[name] * (1 - kept)
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
    assert not torch.equal(progress.average["head.weight"], start["head.weight"])


def test_lower_layers_have_a_smaller_rate() -> None:
    data = examples()
    network = TunedNetwork(layers(), probe_on(data))
    start = [next(layer.parameters()).detach().clone() for layer in layers()]
    finetune(network, data, replace(SETTINGS, layer_share=0.0), device=CPU, dtype=FP32)
    lower, upper = (next(layer.parameters()) for layer in network.tail.layers)
    assert torch.equal(lower, start[0])
    assert not torch.equal(upper, start[1])


def test_training_stops_where_held_back_pictures_gain_nothing() -> None:
    data = replace(examples(), held_targets=1 - examples().targets[:24])
    hopeless = replace(SETTINGS, epochs=50, patience=2, rate=1e-2, layer_rate=1e-2)
    progress = finetune(TunedNetwork(layers(), probe_on(data)), data, hopeless, device=CPU, dtype=FP32)
    assert progress.epoch == progress.best_epoch + 2 < 50


@pytest.mark.parametrize("held", [True, False])
def test_killed_training_goes_on_to_the_same_numbers(held: bool, tmp_path: Path) -> None:
    data = examples()
    if not held:
        data = replace(data, held_features=None, held_targets=None)
    whole = TunedNetwork(layers(), probe_on(data))
    finetune(whole, data, SETTINGS, device=CPU, dtype=FP32)

    class KilledError(Exception):
        pass

    uri = str(tmp_path / "checkpoint.safetensors")

    def save(progress: LayerProgress) -> None:
        save_progress(uri, progress, "key")
        if progress.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        finetune(TunedNetwork(layers(), probe_on(data)), data, SETTINGS, device=CPU, dtype=FP32, save=save)
    resumed = TunedNetwork(layers(), probe_on(data))
    before = load_progress(uri, "key")
    assert before is not None and before.epoch == 2
    finetune(resumed, data, SETTINGS, device=CPU, dtype=FP32, resume=before)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_checkpoint_of_another_call_or_a_damaged_one_is_not_gone_on_from(tmp_path: Path) -> None:
    data = examples()
    uri = tmp_path / "checkpoint.safetensors"
    assert load_progress(str(uri), "key") is None
    finetune(
        TunedNetwork(layers(), probe_on(data)),
        data,
        replace(SETTINGS, epochs=1),
        device=CPU,
        dtype=FP32,
        save=lambda progress: save_progress(str(uri), progress, "key"),
    )
    assert load_progress(str(uri), "key") is not None
    assert load_progress(str(uri), "other") is None
    for damaged in (uri.read_bytes()[:100], b"", b"\xff" * 40):
        uri.write_bytes(damaged)
        assert load_progress(str(uri), "key") is None
