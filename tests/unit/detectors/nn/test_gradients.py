"""Unpacked networks carry gradients to their input, score like packed ones, and do not affect packed ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from moderation.detectors.faces.centerface import CenterFace
from moderation.detectors.faces.network import FaceNetwork
from moderation.detectors.general.imagenet_network import EfficientNetLite0
from moderation.detectors.nn.conv import Activation, Conv
from moderation.detectors.nn.gradients import as_leaf, unpack_network, with_gradients
from moderation.detectors.nn.prepare import infer, prepare
from moderation.detectors.safety.image_safety_network import SwiftFormer
from moderation.detectors.safety.nudity_network import PartsNetwork
from moderation.detectors.safety.open_nsfw_network import ThinResNet
from moderation.detectors.text.network import SMALL, TINY, Peak, TextDetector, TextRecogniser

CPU = torch.device("cpu")
# For random weights; tests/contract/test_detectors.py has it for real ones.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "open_nsfw": (ThinResNet, (2, 3, 224, 224)),
    "image_safety": (lambda: SwiftFormer(3), (2, 3, 224, 224)),
    "imagenet": (EfficientNetLite0, (2, 3, 224, 224)),
    "nudity": (PartsNetwork, (2, 3, 320, 320)),
    "faces": (CenterFace, (2, 3, 96, 128)),
    "gallery": (FaceNetwork, (2, 3, 150, 150)),
    "text, where": (lambda: TextDetector(SMALL), (2, 3, 96, 128)),
    "text, glance": (lambda: Peak(TextDetector(TINY)), (2, 3, 96, 128)),
    "text, what": (lambda: TextRecogniser(50), (2, 3, 48, 128)),
}


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_unpacked_network_scores_the_same_and_carries_gradients(name: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = prepare(make(), CPU, torch.float32)
    with torch.inference_mode():
        x = pixels(*shape)
        packed = infer(network, x)
        unpack_network(network)
        # The caller may be in inference mode, and the pixels may come from it.
        with with_gradients():
            leaf = as_leaf(x)
            scores = network(leaf)
            torch.testing.assert_close(scores, packed, rtol=1e-4, atol=1e-4)
            scores.square().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert (leaf.grad != 0).any(dim=(1, 2, 3)).all()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "gelu", "silu"])
@pytest.mark.parametrize("joined", [False, True])
def test_the_gradient_of_a_convolution_is_that_of_its_definition(activation: Activation | None, joined: bool) -> None:
    conv = prepare(Conv(4, 4, 3, activation=activation), CPU, torch.float32).double()
    conv.unpack()
    with with_gradients():
        x = as_leaf(torch.randn(1, 4, 5, 5, dtype=torch.float64))
        # Gradients by finite differences as a check, for both inputs, which an in-place operation could have spoilt.
        assert torch.autograd.gradcheck(lambda x: conv(x, x * 2) if joined else conv(x), (x,))


def test_a_packed_network_refuses_to_lose_a_gradient() -> None:
    network = prepare(nn.Sequential(Conv(3, 4, 3)), CPU, torch.float32)
    if not network[0].packed:
        pytest.skip("this torch has no fused convolutions")
    with with_gradients(), pytest.raises(RuntimeError, match="unpack"):
        network(as_leaf(pixels(1, 3, 8, 8)))


def test_parts_of_a_batch_keep_the_gradient_mode_of_their_caller() -> None:
    torch.set_num_threads(2)
    network = prepare(nn.Sequential(Conv(3, 4, 1)), CPU, torch.float32)
    seen: list[bool] = []
    network.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    with torch.no_grad():
        infer(network, pixels(4, 3, 8, 8))
    assert len(seen) == 2
    assert not any(seen)
