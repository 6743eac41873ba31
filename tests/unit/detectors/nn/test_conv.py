"""1x1 layers that learn as products of matrices."""

from __future__ import annotations

import torch

from moderation.detectors.nn.conv import Conv


def _answer(layer: Conv, x: torch.Tensor, shortcut: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    layer.zero_grad()
    y = layer(x, shortcut.clone())
    y.square().sum().backward()
    assert layer.weight.grad is not None
    return y.detach(), layer.weight.grad.clone()


def test_product_gives_the_answers_and_gradients_of_a_convolution() -> None:
    torch.manual_seed(0)
    layer = Conv(12, 6, 1, activation="relu6")
    x, shortcut = torch.randn(2, 12, 5, 7), torch.randn(2, 6, 5, 7)
    plain = _answer(layer, x, shortcut)
    layer.learn_as_product(True)
    for product, convolved in zip(_answer(layer, x, shortcut), plain, strict=True):
        torch.testing.assert_close(product, convolved, atol=0.1, rtol=0.05)  # bfloat16 has 8 bits
    layer.learn_as_product(False)
    torch.testing.assert_close(_answer(layer, x, shortcut), plain)


def test_other_layers_than_1x1_stay_convolutions() -> None:
    torch.manual_seed(0)
    layer = Conv(4, 4, 3, groups=4)
    x = torch.randn(1, 4, 5, 5)
    plain = layer(x)
    layer.learn_as_product(True)
    assert torch.equal(layer(x), plain)
