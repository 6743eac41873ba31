"""Fused convolutions compute what the plain operators compute; compilation asks for its compiler."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from moderation.detectors.general.imagenet_network import EfficientNetLite0
from moderation.detectors.nn.compile import compile_networks
from moderation.detectors.nn.conv import Activation, Conv
from moderation.detectors.nn.prepare import count_parts, infer, prepare, work_each
from moderation.errors import UsageError

CPU = torch.device("cpu")
ACTIVATIONS: tuple[Activation | None, ...] = (None, "relu", "relu6", "gelu", "silu")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def expected(conv: Conv, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
    """By the definitions, in float64."""
    assert conv.bias is not None
    y = F.conv2d(
        x.double(), conv.weight.double(), conv.bias.double(), conv.stride, conv.padding, conv.dilation, conv.groups
    )
    if shortcut is not None:
        y = y + shortcut.double()
    if conv.activation == "gelu":
        return y * (1 + torch.erf(y / 2**0.5)) / 2
    if conv.activation == "silu":
        return y * torch.sigmoid(y)
    if conv.activation is not None:
        y = y.clamp(0, 6 if conv.activation == "relu6" else None)
    return y


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (3, 1, 8), (6, 2, 8)])
def test_a_prepared_convolution_computes_its_definition(
    activation: Activation | None, batch: int, kernel: int, stride: int, groups: int
) -> None:
    conv = prepare(Conv(8, 16, kernel, stride=stride, groups=groups, activation=activation), CPU, torch.float32)
    x = 4 * torch.randn(batch, 8, 14, 14)
    assert_same(conv(x.contiguous(memory_format=torch.channels_last)), expected(conv, x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_shortcut_is_added_before_the_activation(activation: Activation | None, batch: int) -> None:
    conv = prepare(Conv(8, 16, 1, activation=activation), CPU, torch.float32)
    x, shortcut = 4 * torch.randn(batch, 8, 14, 14), 4 * torch.randn(batch, 16, 14, 14)
    theirs = expected(conv, x, shortcut)
    assert_same(conv(x, shortcut.contiguous(memory_format=torch.channels_last)), theirs)


def test_unpacked_it_scores_as_packed() -> None:
    conv = prepare(Conv(8, 16, 3, activation="gelu"), CPU, torch.float32)
    x = torch.randn(2, 8, 14, 14)
    packed = conv(x)
    conv.unpack()
    assert_same(conv(x), packed.double())


def test_a_whole_network_scores_the_same_fused_and_plain_and_in_any_batch() -> None:
    network = prepare(EfficientNetLite0(), CPU, torch.float32)
    pixels = torch.randn(3, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    fused = network(pixels)
    alone = network(pixels[1:2])
    for module in network.modules():
        if isinstance(module, Conv):
            module.unpack()
    assert_same(fused, network(pixels).double())
    assert_same(alone, fused[1:2].double())


@pytest.mark.parametrize("batch", [0, 1, 2, 5])
@pytest.mark.parametrize(("threads", "most"), [(2, 0), (2, 1), (1, 2), (2, 9)])
def test_in_parts_a_batch_scores_as_whole_and_in_order(batch: int, threads: int, most: int) -> None:
    torch.set_num_threads(threads)
    network = prepare(EfficientNetLite0(), CPU, torch.float32)
    pixels = torch.randn(batch, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    parts: list[int] = []
    network.register_forward_pre_hook(lambda _, given: parts.append(len(given[0])))
    together = infer(network, pixels, max_frames=most)
    assert batch == 0 or not most or max(parts) <= most
    assert_same(together, network(pixels).double())


def test_parts_run_under_the_autocast_of_their_caller() -> None:
    torch.set_num_threads(2)
    network = prepare(nn.Sequential(Conv(3, 4, 1), nn.Flatten(), nn.Linear(16, 2)), CPU, torch.float32)
    pixels = torch.randn(4, 3, 2, 2)
    assert infer(network, pixels).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert infer(network, pixels).dtype == torch.bfloat16


def test_running_in_parts_leaves_the_number_of_threads_alone() -> None:
    torch.set_num_threads(2)
    prepare(Conv(3, 4, 1), CPU, torch.float32)
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2


def test_every_part_has_as_many_threads() -> None:
    assert [count_parts(threads) for threads in (1, 2, 3, 4, 5, 6, 7, 8, 48)] == [1, 2, 3, 4, 1, 3, 1, 4, 4]
    assert [count_parts(4, most) for most in (1, 2, 3, 9)] == [1, 2, 2, 4]


def test_what_is_alone_has_all_the_threads() -> None:
    torch.set_num_threads(2)
    for given, each in (([1], 2), ([1, 2], 1), ([1, 2, 3], 1)):
        assert work_each(lambda _: torch.get_num_threads(), given, CPU) == [each] * len(given)
    assert work_each(lambda x: x, [], CPU) == []


def test_a_larger_kernel_pads_as_tensorflow_does() -> None:
    plain = nn.Conv2d(3, 4, 3, stride=2)
    larger = prepare(Conv(3, 4, 4, stride=2, padding=1), CPU, torch.float32)
    assert plain.bias is not None
    assert larger.bias is not None
    larger.weight.copy_(F.pad(plain.weight, (1, 0, 1, 0)))
    larger.bias.copy_(plain.bias)
    if larger._packed is not None:
        larger.pack()
    x = torch.randn(2, 3, 32, 32)
    # TensorFlow's SAME on an even side: one row and column of zeros, at the end.
    assert_same(larger(x), plain(F.pad(x, (0, 1, 0, 1))).double())


def test_compiling_without_a_compiler_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"g\+\+"):
        compile_networks([nn.Linear(2, 2)], CPU)


def test_no_networks_need_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    compile_networks([], CPU)


def test_work_on_different_sizes_keeps_its_order_and_the_callers_modes() -> None:
    def double(x: torch.Tensor) -> tuple[torch.Tensor, bool, bool]:
        return x * 2, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    given = [torch.full((n,), float(n)) for n in range(1, 8)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made = work_each(double, given, torch.device("cpu"))
    assert [m[0].tolist() for m in made] == [[2.0 * n] * n for n in range(1, 8)]
    assert all(inference and autocast for _, inference, autocast in made)


def test_numbers_too_small_for_the_normal_form_are_zero_where_networks_run() -> None:
    (made,) = work_each(lambda x: x * 0.5, [torch.full((64,), 1.2e-38)], torch.device("cpu"))
    assert made.sum() == 0
