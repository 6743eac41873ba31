"""The watermark detector: rows, regions, and files that are not its network's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moderation.detectors.general.watermark import Watermark, load_marks
from moderation.detectors.general.watermark_network import (
    GRID,
    MarkNetwork,
    cell_middles,
    decode_boxes,
    picture_logits,
)
from moderation.errors import FatalError, UsageError


def test_sides_of_one_cell_make_a_box_around_its_middle() -> None:
    boxes = decode_boxes(torch.zeros(1, 4, GRID, GRID))
    middles = cell_middles(torch.device("cpu")) / GRID
    torch.testing.assert_close((boxes[0, :2] + boxes[0, 2:]) / 2, middles)
    torch.testing.assert_close(boxes[0, 2:] - boxes[0, :2], torch.full((2, GRID, GRID), 2 / GRID))


def test_one_sure_cell_alone_does_not_answer_for_a_picture() -> None:
    logits = torch.full((2, GRID, GRID), -8.0)
    logits[0, 3, 3] = 8
    logits[1, 3, 3:8] = 8
    lone, several = picture_logits(logits).sigmoid().tolist()
    assert lone < 0.05 < 0.95 < several


def test_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"trunk.layers.0.weight": torch.zeros(2)}, path)
    with pytest.raises(FatalError, match="other layers"):
        load_marks(MarkNetwork(), path)
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(FatalError, match="not readable"):
        load_marks(MarkNetwork(), path)


def test_unknown_option_is_named() -> None:
    with pytest.raises(UsageError, match="min_region"):
        Watermark({"min_regoin": 0.4})
