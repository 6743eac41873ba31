"""The forms that a GPU computes convolutions in have the results of the plain ones."""

from __future__ import annotations

import pytest
import torch

from moderation.detectors.general.imagenet_network import _same
from moderation.detectors.nn.conv import Conv


def compare(layer: Conv, x: torch.Tensor) -> None:
    shortcut = torch.randn_like(layer(x))
    expected, expected_sum = layer(x), layer(x, shortcut.clone())
    layer.suit_gpu()
    got = layer(x)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer(x, shortcut.clone()), expected_sum, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [14, 15])
def test_a_pointwise_convolution_is_a_product(stride: int, side: int) -> None:
    layer = Conv(12, 20, 1, stride=stride, activation="relu6").requires_grad_(False)
    compare(layer, torch.randn(3, 12, side, side).contiguous(memory_format=torch.channels_last))
    assert layer._is_linear


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_kernel_with_an_empty_row_and_column_is_a_smaller_one(kernel: int) -> None:
    layer = _same(8, 8, kernel, stride=2, groups=8).requires_grad_(False)
    with torch.no_grad():
        layer.weight[:, :, 0] = 0
        layer.weight[:, :, :, 0] = 0
    compare(layer, torch.randn(2, 8, 32, 64).contiguous(memory_format=torch.channels_last))
    assert layer._odd_weight is not None


def test_other_kernels_of_an_even_side_stay() -> None:
    layer = Conv(4, 4, 2, padding=1).requires_grad_(False)
    compare(layer, torch.randn(2, 4, 9, 9))
    assert layer._odd_weight is None


def test_a_kernel_that_learns_as_a_smaller_one_keeps_its_empty_row_and_column() -> None:
    layer = _same(8, 8, 3, stride=2, groups=8)
    with torch.no_grad():
        layer.weight[:, :, 0] = 0
        layer.weight[:, :, :, 0] = 0
    x = torch.randn(2, 8, 32, 64)
    plain = layer(x)
    layer.learn_as_odd(True)
    torch.testing.assert_close(layer(x), plain, atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(x).sum().backward()
    optimizer.step()
    assert not layer.weight[:, :, 0].any() and not layer.weight[:, :, :, 0].any()
    learned = layer(x)
    assert not torch.equal(learned, plain)
    layer.learn_as_odd(False)
    torch.testing.assert_close(layer(x), learned, atol=1e-4, rtol=1e-4)
