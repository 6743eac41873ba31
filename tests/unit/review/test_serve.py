from __future__ import annotations

import os
import re
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.results.explanations import Explanation, overlay_name, write_explanation
from moderation.results.layout import explanations_folder
from moderation.results.reader import open_run
from moderation.review.access import Reviewer, is_pseudonym
from moderation.review.items import QueueItem
from moderation.review.overlays import Overlays, find_overlays
from moderation.review.planned_items import PlannedItems
from moderation.review.serve import SECRET_VARIABLE, bind, check_public_url, check_reviewers, read_secret
from moderation.storage.lease import LeaseHeldError
from moderation.types import ErrorCode
from tests.job_runs import JobProcess, job_env
from tests.review_server import ANNA, SETTINGS, draw_picture, make_run, serving


def test_a_taken_port_and_a_strange_host_are_sentences() -> None:
    with closing(bind("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}.*--port 0"):
            bind("127.0.0.1", port)
    with pytest.raises(UsageError, match="--host"):
        bind("no such host", 0)


def test_pseudonyms_are_plain_and_stand_once() -> None:
    assert all(map(is_pseudonym, ("anna", "r-1", "A_b.c", "王")))
    assert not any(map(is_pseudonym, ("", "-", "a b", "a/b", "<b>", "a\n", "x" * 41)))
    with pytest.raises(UsageError, match="twice"):
        check_reviewers([ANNA, Reviewer(name="anna", expert=True)])


@pytest.mark.parametrize(
    "url",
    [
        "review.example",
        "https://",
        "ftp://a.b",
        "https://a.b/review",
        "https://a:x",
        "https://u@a.b",
        "https://[",
        "https://ü.de",
    ],
)
def test_an_address_that_no_browser_opens_the_page_by_is_refused(url: str) -> None:
    check_public_url("https://review.example:8443/")
    with pytest.raises(UsageError, match="--public-url"):
        check_public_url(url)


def test_a_short_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "short")
    with pytest.raises(UsageError, match=SECRET_VARIABLE):
        read_secret()
    monkeypatch.delenv(SECRET_VARIABLE)
    assert read_secret() != read_secret()


def test_a_second_server_of_the_same_run_is_refused(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with serving(out), pytest.raises(LeaseHeldError), serving(out, SETTINGS):
        pass


def test_a_row_in_no_plan_leads_only_where_its_run_may(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path, 1))
    planned = PlannedItems(run)

    def find(uri: str) -> ErrorCode | None:
        return planned.find(QueueItem(item_id="new", uri=uri, kind="image", status="ok", together=0)).item.error

    assert find(str(tmp_path / "in" / "picture-000.jpg")) is None
    for uri in ("/etc/passwd", str(tmp_path / "in" / ".." / "out" / "run.json"), "http://127.0.0.1/x", "s3://other/x"):
        assert find(uri) is ErrorCode.FORBIDDEN, uri


def test_an_overlay_is_made_anew_and_a_broken_one_is_none(tmp_path: Path) -> None:
    draw_picture(tmp_path / "a.jpg", 1)
    data = (tmp_path / "a.jpg").read_bytes()
    overlays = Overlays({"good": lambda: data, "broken": lambda: b"\x89PNG no", "none": lambda: None})
    made = overlays.read("good")
    assert made is not None
    assert made[:2] == b"\xff\xd8"
    assert made != data
    assert [overlays.read(name) for name in ("broken", "none", "unknown")] == [None, None, None]
    assert not overlays.has("unknown")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_frees_the_run(tmp_path: Path, number: signal.Signals) -> None:
    out = make_run(tmp_path, 2)
    with JobProcess("review", "serve", out, "--port", "0", env=job_env()) as job:
        while not re.search(r"token=\w", job.stdout):
            assert job.poll() is None, job.stderr
            time.sleep(0.05)
        assert job._process.pid is not None
        os.kill(job._process.pid, number)
        assert job.wait(30) == 0, job.stderr
        assert "ended" in job.stdout
    with serving(out):
        pass


def test_what_explain_has_written_is_shown_for_its_item(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    draw_picture(tmp_path / "a.jpg", 1)
    found = Explanation(
        item_id="picture-000.jpg", uri="u", kind="image", verdict="review", reason=None, check=None, threshold=None,
        method="occlusion", detector="a", label="weapon", overlay="overlays/x.png",
    )  # fmt: skip
    picture = (tmp_path / "a.jpg").read_bytes()
    write_explanation(explanations_folder(out), found, {overlay_name(found.key): picture}, {})
    overlays = find_overlays(out)
    assert overlays.has("picture-000.jpg")
    assert not overlays.has("picture-001.jpg")
    made = overlays.read("picture-000.jpg")
    assert made is not None
    assert made[:2] == b"\xff\xd8"
