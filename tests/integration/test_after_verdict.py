"""One case: a picture is blocked by a reviewer, its copies are found in older runs, tagged, appealed, untagged."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from moderation import storage
from moderation.actions.act import ActOptions
from moderation.actions.of_run import act_on_run, undo_run
from moderation.analysis.sweep import SweepChange, sweep
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from tests.finished_run import Made, write_run
from tests.s3_server import BUCKET, environment, find_moto, serve_moto

pytestmark = pytest.mark.long

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5, block: 0.9}
"""


@pytest.mark.skipif(find_moto() is None, reason="no moto_server beside this Python")
def test_copies_of_a_blocked_picture_are_tagged_and_untagged_after_an_appeal(tmp_path: Path) -> None:
    with serve_moto() as server, environment(server.env()):
        outs = []
        for night in range(4):
            names = {f"copy{night}.jpg": b"the same bytes", f"other{night}.jpg": b"night %d" % night}
            for name, data in names.items():
                storage.publish(f"s3://{BUCKET}/in/{name}", data)
            made = [
                Made(name=name, votes=[(0.1,)], content_hash=hashlib.sha256(data).hexdigest())
                for name, data in names.items()
            ]
            folder = tmp_path / f"night{night}"
            outs.append(write_run(folder, ("a.mask",), made, POLICY, prefix=f"s3://{BUCKET}/in"))
        blocked = Decision(
            decision_id="d1",
            item_id="copy3.jpg",
            decision=Answer.BLOCK,
            reviewer="anna",
            decided_at=datetime(2026, 11, 26, tzinfo=UTC),
            content_hash=hashlib.sha256(b"the same bytes").hexdigest(),
        )
        append_decisions(outs[3], [blocked])
        found = find_sources(outs)
        change = SweepChange(name="copy3.jpg", targets=tuple(find_targets(found, ["copy3.jpg"], None, embedding=None)))
        to = str(tmp_path / "sweep")
        sweep(found, change, to, as_of=date(2026, 11, 26), workers=1)

        actions = tmp_path / "actions.yaml"
        tag = {"name": "mark", "do": "tag", "when": {"verdict": ["block"]}, "tags": {"moderation": "{verdict}"}}
        actions.write_text(json.dumps({"objects": [f"s3://{BUCKET}/in"], "actions": [tag]}))
        acted = act_on_run(to, str(actions), ActOptions())
        assert dict(acted.report.counts["mark"]) == {"done": 4}
        tags = {n: storage.read_tags(f"s3://{BUCKET}/in/copy{n}.jpg") for n in range(4)}
        assert all(own == {"moderation": "block"} for own in tags.values())
        assert storage.read_tags(f"s3://{BUCKET}/in/other1.jpg") == {}

        upheld = Decision(
            decision_id="d2",
            item_id="copy3.jpg",
            decision=Answer.PASS,
            reviewer="ben",
            decided_at=datetime(2026, 11, 27, tzinfo=UTC),
            source=DecisionSource.APPEAL,
        )
        append_decisions(outs[3], [upheld])
        undone = undo_run(to, str(actions), acted.run_id)
        assert dict(undone.counts["mark"]) == {"undone": 4}
        assert all(storage.read_tags(f"s3://{BUCKET}/in/copy{n}.jpg") == {} for n in range(4))
