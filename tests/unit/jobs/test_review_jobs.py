"""The commands of a review, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moderation.labels.decision_store import append_decisions, open_decisions
from moderation.labels.decisions import Answer
from moderation.review.session import open_session
from moderation.review.settings import ReviewSettings
from tests.job_runs import run_job
from tests.reviewed_run import answer, made, write_reviewed


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that two reviewers have looked at."""
    items = [made(f"i{n}.png", weapon=0.02 * n, gore=0.96 if n > 44 else 0.1) for n in range(48)]
    out = write_reviewed(tmp_path_factory.mktemp("reviewed"), items)
    with open_session(out, ReviewSettings(hidden_share=0)) as session:
        for place, reviewer in enumerate(("ann", "bob")):
            offers = session.next_items(reviewer, 200)
            session.decide(
                [
                    answer(
                        offer,
                        reviewer,
                        Answer.BLOCK if int(offer.item.item_id[1:-4]) > 30 + place else Answer.PASS,
                        number=n,
                        shown={} if offer.item.blind else {"verdict": "review"},
                    )
                    for n, offer in enumerate(offers)
                ]
            )
    return out


def test_verify_says_that_all_is_as_it_was_and_exits_with_1_where_it_is_not(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("a", weapon=0.6)])
    with open_session(out) as session:
        session.decide([answer(offer, "ann") for offer in session.next_items("ann")])
    ended = run_job("review", "verify", out)
    assert ended.returncode == 0 and "1 decisions in 1 parts: as they were made" in ended.stdout
    part = next((Path(out) / "decisions").glob("part-*"))
    part.unlink()
    ended = run_job("review", "verify", out)
    assert ended.returncode == 1 and "part 00000000 missing" in ended.stderr


def test_stats_show_pace_agreement_and_conflicts(reviewed: str) -> None:
    ended = run_job("review", "stats", reviewed)
    assert ended.returncode == 0, ended.stderr
    assert "ann and bob: the same on" in ended.stdout and "in conflict" in ended.stdout
    figures = json.loads(run_job("review", "stats", reviewed, "--json").stdout)
    assert {one["reviewer"] for one in figures["reviewers"]} == {"ann", "bob"}
    assert figures["pairs"][0]["items"] == figures["pairs"][0]["agreed"] > 5


@pytest.mark.parametrize("direct", [True, False])
def test_labels_are_read_by_evaluate_and_certify_as_a_file_and_from_the_output(
    reviewed: str, tmp_path: Path, direct: bool
) -> None:
    labels = reviewed if direct else str(tmp_path / "labels.csv")
    if not direct:
        assert run_job("labels", reviewed, "--to", labels).returncode == 0
    ended = run_job("evaluate", reviewed, "--labels", labels, "--to", tmp_path / "page")
    assert ended.returncode == 0 and "the audit: " in ended.stdout, ended.stderr
    policy = Path(reviewed).parent / "policy.yaml"
    ended = run_job("certify", reviewed, "--labels", labels, "--dry-run", "--policy", policy, "--leak", "0.4")
    # The run of a test names no policy by its hash; what it says shows that the labels were read.
    assert ended.returncode == 0, ended.stderr
    assert "pass" in ended.stdout


def test_hard_examples_are_a_manifest(reviewed: str, tmp_path: Path) -> None:
    ended = run_job("mine", reviewed, "--labels", reviewed, "--to", tmp_path / "hard.jsonl", "--count", "5")
    assert ended.returncode == 0, ended.stderr
    assert len((tmp_path / "hard.jsonl").read_text().splitlines()) == 5


def test_export_and_import_say_what_they_did(reviewed: str, tmp_path: Path) -> None:
    ended = run_job("review", "export", reviewed, "--to", tmp_path / "d.jsonl")
    assert "decisions" in ended.stdout and ended.returncode == 0
    ended = run_job("review", "import", reviewed, tmp_path / "d.jsonl")
    assert "0 decisions imported" in ended.stdout and "were there" in ended.stdout


def test_appeals_are_taken_in_and_told_of(reviewed: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item_id,text,time\ni40.png,no,2026-11-26\n")
    ended = run_job("review", "appeals", reviewed, tmp_path / "a.csv")
    assert "1 new appeals" in ended.stdout and "1 open, 0 upheld" in ended.stdout
    assert json.loads(run_job("review", "appeals", reviewed, "--json").stdout)["open"] == 1


def test_a_review_that_is_going_on_is_not_written_to_by_others(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("a", weapon=0.6)])
    (tmp_path / "d.csv").write_text("item_id,decision\na,pass\n")
    with open_decisions(out):
        ended = run_job("review", "import", out, tmp_path / "d.csv")
    assert ended.returncode == 4 and "another writer of decisions holds the lease" in ended.stderr
    assert append_decisions(out, []).written == ()


def test_a_strangers_text_does_not_reach_the_terminal(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("a\x1b[2J\u202e.png", weapon=0.6)])
    with open_session(out, ReviewSettings(second_share=1.0)) as session:
        session.decide([answer(offer, "ann", decision_id="1") for offer in session.next_items("ann")])
        offers = session.next_items("bob")
        session.decide([answer(offer, "bob", Answer.BLOCK, decision_id="2") for offer in offers])
    for arguments in (("review", "stats", out), ("labels", out)):
        ended = run_job(*arguments)
        assert "in conflict:" in ended.stdout
        assert "\x1b" not in ended.stdout and "\u202e" not in ended.stdout


def test_labels_without_any_answer_are_refused(tmp_path: Path) -> None:
    out = write_reviewed(tmp_path, [made("a", weapon=0.6)])
    ended = run_job("labels", out)
    assert ended.returncode == 2 and "no decisions there" in ended.stderr
    with open_session(out) as session:
        session.decide([answer(offer, "ann", Answer.SKIP) for offer in session.next_items("ann")])
    assert "no decision there says what an item is" in run_job("labels", out).stderr
