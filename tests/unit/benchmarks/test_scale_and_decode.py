"""The benchmarks' own parts: simulated workers under the real driver, and paths that take turns."""

from __future__ import annotations

from pathlib import Path

from benchmarks.decode import measure_paths
from benchmarks.scale_steps import drive_simulated, output_of
from benchmarks.simulated_pool import ShardSupply


def test_the_real_driver_takes_a_receipt_of_every_shard_of_simulated_workers(tmp_path: Path) -> None:
    supply = ShardSupply(shards=60, items=2)
    ids, _ = drive_simulated(iter(supply), output_of(tmp_path, 2), workers=7, together=3)
    assert len(set(ids)) == 60


def test_a_path_that_fails_is_named_and_the_others_are_measured() -> None:
    def fail(_: bytes) -> int:
        raise OSError("no library")

    record = measure_paths({"bare": lambda _: 1, "broken": fail, "other": lambda _: 2}, [b""], 1, seconds=0.001)
    assert record["broken"] == {"failed": "OSError: no library"}
    assert record["bare"]["of_bare"] == 1.0
    assert record["other"]["frames_per_s"] > 0
