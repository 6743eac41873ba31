"""Small marks on large pictures are found where `media.tiles` is on."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.detectors.general.watermark import LEAD_THRESHOLD
from moderation.training.watermark.backgrounds import draw_ground

pytest.importorskip("font_lato")
pytest.importorskip("manimgx_fonts_cjk")
tiles = pytest.importorskip("benchmarks.watermark_tiles")


@pytest.mark.long
@pytest.mark.weights
def test_small_mark_on_a_large_picture_is_found_by_its_tiles_alone() -> None:
    detector = tiles.load_packaged()
    grounds = [draw_ground(np.random.default_rng(0))]
    plain, marked = (tiles.encode(tiles.large_picture(grounds, 6, marked=marked)) for marked in (False, True))
    assert tiles.ask(detector, marked, "off") < LEAD_THRESHOLD <= tiles.ask(detector, marked, "auto")
    assert tiles.ask(detector, plain, "auto") < LEAD_THRESHOLD
