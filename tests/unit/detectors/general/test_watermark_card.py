"""The card of the shipped watermark weights says what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moderation.detectors.general import watermark
from moderation.detectors.general.watermark import LEAD_THRESHOLD, Watermark


def test_card_has_the_weights_hash_and_the_threshold_of_its_held_back_composites() -> None:
    card = json.loads(Path(watermark.__file__).with_name("watermark.card.json").read_text())
    assert card["sha256"] == Watermark.weights[0].sha256
    assert card["held_back"]["threshold"] == pytest.approx(LEAD_THRESHOLD, abs=1e-3)
