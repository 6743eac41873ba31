"""Faces without weights: sizes, decoding of peaks, which boxes are one face, options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moderation.detectors.faces.centerface import MULTIPLE, CenterFace, load_centerface, read_peaks
from moderation.detectors.faces.detector import Faces, scaled_size
from moderation.detectors.nn.suppression import distinct
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.onnx import OnnxGraph
from moderation.errors import FatalError, UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(5, 3), (300, 300), (597, 448), (448, 597), (4480, 448), (100, 20_000), (4000, 3000)])
def test_no_shape_costs_more_than_the_square_of_the_option_and_none_is_enlarged(size: tuple[int, int]) -> None:
    width, height = scaled_size(*size, 416)
    assert width * height <= 416 * 416 * 1.01
    assert width <= size[0] and height <= size[1]
    assert max(width, height) <= 2048


def test_a_small_picture_is_seen_as_it_is() -> None:
    assert scaled_size(200, 150, 416) == (200, 150)


def maps_with(height: int, width: int) -> torch.Tensor:
    """[1,15,h,w] without a face."""
    maps = torch.zeros(1, 15, height, width)
    maps[:, 0] = -20
    return maps


def test_a_peak_is_read_as_the_box_and_points_that_its_place_says() -> None:
    maps = maps_with(10, 20)
    maps[0, 0, 4, 7] = 3.0
    maps[0, 1, 4, 7] = math.log(12)  # 48 pixels high
    maps[0, 2, 4, 7] = math.log(8)  # 32 wide
    maps[0, 3, 4, 7] = 0.25  # one pixel further down
    maps[0, 5, 4, 7], maps[0, 6, 4, 7] = 0.5, 0.25  # left eye: half way down, a quarter to the right
    peaks = read_peaks(maps, 1)
    x, y = 7.5 * 4, 4.75 * 4
    assert peaks.scores[0, 0] == pytest.approx(1 / (1 + math.exp(-3)))
    assert peaks.boxes[0, 0].tolist() == pytest.approx([x - 16, y - 24, x + 16, y + 24])
    assert peaks.points[0, 0, 0].tolist() == pytest.approx([x - 16 + 8, y - 24 + 24])


def test_places_beside_a_higher_one_are_no_faces_of_their_own() -> None:
    maps = maps_with(10, 10)
    maps[0, 0, 4, 4:7] = torch.tensor([1.0, 3.0, 2.0])
    assert (read_peaks(maps, 5).scores[0] > 0.5).sum() == 1


def test_sizes_beyond_reason_stay_finite() -> None:
    maps = maps_with(4, 4)
    maps[:, 1:] = 1e4
    assert torch.isfinite(read_peaks(maps, 16).boxes).all()


def test_of_boxes_that_overlap_the_surest_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 0, 30, 10], [0, 6, 10, 16]], dtype=np.float64)
    assert distinct(torch.from_numpy(boxes), 0.3).tolist() == [0, 2, 3]
    assert distinct(torch.from_numpy(boxes[:0]), 0.3).tolist() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"treshold": 0.4}, "did you mean 'threshold'"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"threshold": "high"}, "float or int"),
        ({"side": 20}, "64 to 2048"),
        ({"max_faces": 0}, "1 to 1000"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Faces(options)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(FatalError, match="another network"):
        load_centerface(CenterFace(), OnnxGraph(tensors={}, nodes=()))


def untrained(heat: float, **options: object) -> Faces:
    """The detector with a network that gives the same output for every place."""
    faces = Faces(options)
    faces._dtype = torch.float32
    network = CenterFace()
    with torch.no_grad():
        network.heads.weight.zero_()
        network.heads.bias.zero_()
        network.heads.bias[0] = heat
    faces.network = network.eval()
    return faces


def frames_of(*sizes: tuple[int, int]) -> TensorFrames:
    return TensorFrames([np.zeros((h, w, 3), dtype=np.uint8) for w, h in sizes], list(sizes), CPU)


def test_no_face_is_a_count_of_0_and_not_null() -> None:
    with torch.inference_mode():
        scored = untrained(-10).score(frames_of((80, 40), (40, 80)), {})
    assert scored.scores.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert scored.regions == [[], []]
    assert [p.shape for p in scored.points or ()] == [(0, 5, 2), (0, 5, 2)]


def test_faces_are_bounded_inside_the_frame_and_have_as_many_points_as_regions() -> None:
    with torch.inference_mode():
        scored = untrained(10, max_faces=7).score(frames_of((90, 70)), {})
    assert scored.regions is not None and scored.points is not None
    assert len(scored.regions[0]) == len(scored.points[0]) == scored.scores[0, 0] == 7
    for region in scored.regions[0]:
        assert 0 <= region.x0 < region.x1 <= 1 and 0 <= region.y0 < region.y1 <= 1


def test_the_margin_of_the_networks_input_holds_no_faces() -> None:
    # 33 pixels lie in an input of 64: the other half must not be reported.
    with torch.inference_mode():
        scored = untrained(10, max_faces=1000).score(frames_of((MULTIPLE + 1, MULTIPLE)), {})
    assert scored.regions is not None
    assert all(r.x0 < 1 and r.y0 < 1 for r in scored.regions[0])
    assert scored.scores[0, 0] <= 9 * 8 + 9
