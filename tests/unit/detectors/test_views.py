"""Views: equal to Pillow where Pillow is the reference, and the same in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from moderation.detectors import resampling, views
from moderation.detectors.base import View
from moderation.detectors.views import TensorFrames
from moderation.types import U8

CPU = torch.device("cpu")
SQUASH = View(mode="squash", resize=64, crop=48)
CROP = View(mode="crop", resize=64, crop=48, interpolation="bicubic")
FIT = View(mode="fit", crop=64, interpolation="bicubic")
LANCZOS = View(mode="fit", crop=64, interpolation="lanczos")


def noise(width: int, height: int, seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> U8:
    """Like a photograph: neighbouring pixels differ little, so two resamplers differ only by rounding."""
    return np.array(Image.fromarray(noise(9, 9)).resize((width, height), Image.Resampling.BICUBIC))


def batch(*frames: U8) -> TensorFrames:
    return TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)


def pixels(view: torch.Tensor, index: int = 0) -> U8:
    out: U8 = view[index].permute(1, 2, 0).numpy().astype(np.uint8)
    return out


def test_squash_is_what_pillow_makes() -> None:
    frame = noise(200, 90)
    expected = np.asarray(Image.fromarray(frame).resize((64, 64), Image.Resampling.BILINEAR))[8:56, 8:56]
    assert np.abs(pixels(batch(frame).view(SQUASH)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(160, 128), (128, 160), (50, 40)])
def test_crop_is_what_pillow_makes(size: tuple[int, int]) -> None:
    frame = noise(*size)
    long = int(64 * max(size) / min(size))
    width, height = (long, 64) if size[0] > size[1] else (64, long)
    left, top = round((width - 48) / 2), round((height - 48) / 2)
    scaled = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
    expected = np.asarray(scaled.crop((left, top, left + 48, top + 48)))
    assert np.abs(pixels(batch(frame).view(CROP)).astype(int) - expected).max() <= 2


def test_crop_of_a_long_strip_is_its_middle() -> None:
    strip = np.zeros((20, 4000, 3), dtype=np.uint8)
    strip[:, 1996:2004] = 255
    view = pixels(batch(strip).view(CROP))
    assert view[:, 24].min() == 255
    assert view[:, [0, 1, 2, 3, 44, 45, 46, 47]].max() == 0


def test_fit_shows_the_whole_picture_in_the_middle() -> None:
    frame = noise(128, 64)
    view = pixels(batch(frame).view(FIT))
    expected = np.asarray(Image.fromarray(frame).resize((64, 32), Image.Resampling.BICUBIC))
    assert np.abs(view[16:48].astype(int) - expected).max() <= 2


def test_fit_surrounds_with_a_blurred_copy() -> None:
    frame = np.zeros((64, 128, 3), dtype=np.uint8)
    frame[:, :64, 0] = 200
    view = pixels(batch(frame).view(FIT))
    assert np.abs(view[:16, :8, 0].astype(int) - 200).max() <= 2
    assert view[:16, -8:, 0].max() <= 2
    assert view[0, 24, 0] > view[0, 32, 0] > view[0, 40, 0]
    assert not view[..., 1:].any()


def test_fit_of_a_square_has_no_surround() -> None:
    frame = noise(64, 64)
    assert np.array_equal(pixels(batch(frame).view(FIT)), frame)


def test_fit_follows_the_stored_size_not_the_canvas() -> None:
    view = TensorFrames([noise(65, 32)], [(1280, 640)], CPU).view(FIT)
    assert np.array_equal(view, TensorFrames([noise(65, 32)], [(128, 64)], CPU).view(FIT))


def test_the_matrices_of_lanczos_are_torch_s_own_lanczos() -> None:
    if not resampling._torch_has_lanczos():
        pytest.skip("this torch has no lanczos; the matrices are used everywhere")
    frame = torch.from_numpy(smooth(100, 80).transpose(2, 0, 1).copy())[None]
    by_torch = resampling.resample_lanczos(frame, (36, 45))
    rows, columns = resampling.resampling_matrix(36, 80), resampling.resampling_matrix(45, 100)
    by_matrix = ((rows @ frame.float()).round().clamp(0, 255) @ columns.T).round().clamp(0, 255)
    assert (by_torch.float() - by_matrix).abs().max() <= 2


@pytest.mark.parametrize("size", [(400, 300), (30, 40), (100, 20)])
def test_lanczos_fit_is_what_libvips_makes(size: tuple[int, int]) -> None:
    vips = pytest.importorskip("pyvips")
    frame = smooth(*size)
    x, y, width, height = views.fit_box(size, 64)
    source = vips.Image.new_from_memory(frame.tobytes(), *size, 3, "uchar")
    expected = source.resize(width / size[0], vscale=height / size[1], kernel="lanczos3").numpy()
    inside = pixels(batch(frame).view(LANCZOS))[y : y + height, x : x + width]
    # Beyond a factor of 4 libvips first averages whole pixels; below it is the same up to rounding.
    assert np.abs(inside.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("view", [SQUASH, CROP, FIT])
def test_the_float_path_of_other_devices_is_near_the_uint8_path(view: View) -> None:
    y, x = np.mgrid[0:90, 0:200]
    frame = np.stack([x, y * 2, (x + y) // 2], axis=2).astype(np.uint8)
    frames = [frame, noise(77, 50), frame[::-1].copy()]
    boxes = views._boxes([(f.shape[1], f.shape[0]) for f in frames], view)
    cpu = torch.device("cpu")
    by_uint8 = views._resample_each(views._wrap(frames), boxes, view)
    by_float = views._resample_together(views._upload(frames, cpu), views._wrap(frames), boxes, view, cpu)
    difference = (by_uint8 - by_float).abs()
    assert difference[[0, 2]].max() <= 2
    # Between its two passes the uint8 path clamps bicubic's overshoot, which noise has everywhere.
    assert difference[1].mean() < 3


@pytest.mark.parametrize("view", [SQUASH, CROP, FIT])
def test_a_view_is_float32_channels_last_and_computed_once(view: View) -> None:
    frames = batch(noise(90, 60), noise(60, 90, 1))
    first = frames.view(view)
    assert first.dtype == torch.float32
    assert first.shape == (2, 3, view.crop, view.crop)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert frames.view(view) is first


@pytest.mark.parametrize("view", [SQUASH, CROP, FIT])
@pytest.mark.parametrize("derived_before", [False, True])
def test_a_selection_has_the_views_of_its_frames(view: View, derived_before: bool) -> None:
    frames = batch(*(noise(90 + i, 60, i) for i in range(4)))
    if derived_before:
        frames.view(view)
    some = frames.select([3, 0])
    assert len(some) == 2
    assert list(some.sizes) == [(93, 60), (90, 60)]
    assert torch.equal(some.view(view), frames.view(view)[[3, 0]])


def test_a_selection_of_a_selection_counts_within_it() -> None:
    frames = batch(*(noise(90, 60, i) for i in range(4)))
    assert torch.equal(frames.select([3, 1]).select([1]).view(SQUASH), frames.view(SQUASH)[[1]])


def test_a_read_only_frame_is_taken_without_a_copy_and_stays_read_only() -> None:
    frame = noise(30, 20)
    frame.flags.writeable = False
    frames = batch(frame)
    assert frames.frames_HWC[0].data_ptr() == frame.ctypes.data
    assert not frame.flags.writeable


def test_the_smallest_picture_has_every_view() -> None:
    frames = batch(np.full((1, 1, 3), 90, dtype=np.uint8))
    assert all((frames.view(view) == 90).all() for view in (SQUASH, CROP, FIT))


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_a_frame_of_another_shape_or_type_is_refused(frame: U8) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H,W,3\]"):
        TensorFrames([frame], [(4, 4)], CPU)


@pytest.mark.parametrize(
    "view",
    [
        View(mode="canvas"),
        View(mode="squash", resize=10, crop=20),
        View(mode="fit"),
        View(mode="squash", resize=9, crop=9, interpolation="lanczos"),
    ],
)
def test_a_view_that_cannot_be_derived_is_refused(view: View) -> None:
    with pytest.raises(ValueError, match=r"canvas|crop|lanczos"):
        batch(noise(9, 9)).view(view)
