"""What sections share and the pack does not carry, made where it runs: pictures of three sizes, CLIP checkpoints."""

from __future__ import annotations

import os
from functools import partial

from benchmarks.device.models import CLIPS, Place, write_checkpoint
from benchmarks.device.pictures import COUNTS, FEW, write_variants
from benchmarks.device.record import Record


def run(record: Record, place: Place) -> None:
    """Make them; the smallest network first."""
    counts = FEW if place.tiny else COUNTS
    cores = len(os.sched_getaffinity(0))
    record.measure("pictures", lambda: write_variants(place.scratch / "pictures", counts, cores), needs_s=0)
    for name in CLIPS:
        record.measure(name, partial(write_checkpoint, name, place), needs_s=0)
