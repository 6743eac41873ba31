"""What was harmed in OUT is named, taken back and judged again, to the same bytes. Small stack, real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.job_runs import make_pictures, make_tiny_config, part_bytes, run_job, verdicts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize("kind", ["backfill", "slices"])
def test_harmed_parts_and_receipts_are_named_taken_back_and_judged_again(tmp_path: Path, kind: str) -> None:
    pictures, out = make_pictures(tmp_path / "in", 40, {3: (255, 0, 0)}), tmp_path / "out"
    config = make_tiny_config(tmp_path / "config")
    slices: list[tuple[str, ...]] = [()] if kind == "backfill" else [("--slice", "1/2"), ("--slice", "2/2")]

    def judge() -> None:
        for part in slices:
            ended = run_job("backfill", pictures, "--out", out, "--config", config, *part)
            assert ended.returncode == 0, ended.stderr
        if kind == "slices":
            assert run_job("merge", out).returncode == 0

    judge()
    before, rows = part_bytes(out), verdicts(out)
    assert run_job("verify", out).returncode == 0

    parts, votes = sorted((out / "verdicts").iterdir()), sorted((out / "votes").iterdir())
    receipts = sorted((out / "receipts").iterdir())
    harmed = bytearray(parts[0].read_bytes())
    harmed[len(harmed) // 2] ^= 1
    parts[0].write_bytes(bytes(harmed))
    votes[1].unlink()
    receipts[2].write_bytes(receipts[2].read_bytes()[:50])
    receipts[3].unlink()

    told = run_job("verify", out)
    assert told.returncode == 1
    for file in (parts[0], votes[1], receipts[2]):
        assert str(file) in told.stderr
    assert "1 of 5 planned shards are not judged" in told.stderr
    assert part_bytes(out) != before  # it only looks

    assert run_job("verify", out, "--repair").returncode == 1
    assert not (out / "_SUCCESS").exists()
    # What is not mended yet is no run that is done.
    assert run_job("verify", out).returncode == 1
    judge()
    assert run_job("verify", out).returncode == 0
    assert (out / "_SUCCESS").exists()
    assert part_bytes(out) == before
    assert verdicts(out).equals(rows)
