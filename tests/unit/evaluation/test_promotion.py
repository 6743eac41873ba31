"""A candidate is held against the incumbent over the same pictures, not over the same places."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.evaluation.bundle_store import Bundle, Promotion, promote_bundle, write_bundle
from moderation.evaluation.promotion import describe_live, judge_candidate
from moderation.policy.certified import certified_hash
from moderation.policy.model import load_policy
from tests.finished_run import Made, write_run

LABELS = ("a.hat",)
POLICY = "default: pass\nchecks:\n  hat: {side: negative, votes: [a.hat], block: 0.9, review: 0.5}\n"


def night(folder: Path, contents: list[int]) -> str:
    made = [Made(name=f"i{n}", votes=[(0.1,)], content_hash=f"{c:064x}") for n, c in enumerate(contents)]
    return write_run(folder, LABELS, made, POLICY)


def test_items_whose_content_has_changed_between_the_runs_are_no_pairs(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("item_id,label,source\n" + "".join(f"i{n},ok,audit\n" for n in range(4)))
    old, new = night(tmp_path / "old", [1, 2, 3, 4]), night(tmp_path / "new", [1, 2, 30, 40])
    judged = judge_candidate(new, old, str(labels), today=date(2026, 11, 26))
    assert (judged.only_candidate, judged.only_incumbent) == (2, 2)
    with pytest.raises(UsageError, match="with the same content"):
        judge_candidate(night(tmp_path / "other", [5, 6, 7, 8]), old, str(labels), today=date(2026, 11, 26))


def test_copies_of_one_picture_are_one_change(tmp_path: Path) -> None:
    made = [Made(name=f"i{n}", votes=[(0.6,)], content_hash=f"{0:064x}") for n in range(30)]
    old = write_run(tmp_path / "old", LABELS, made, POLICY.replace("0.9", "0.55"))
    new = write_run(tmp_path / "new", LABELS, made, POLICY)
    labels = tmp_path / "labels.csv"
    labels.write_text("item_id,label\n" + "".join(f"i{n},ok\n" for n in range(30)))
    outcome = judge_candidate(new, old, str(labels), today=date(2026, 11, 26)).outcome
    assert (outcome.fixed, outcome.broken, outcome.p) == (30, 0, 1.0)


@pytest.mark.parametrize("withdrawn", [[], ["pass:default"]])
def test_an_incumbent_that_is_not_live_is_named(tmp_path: Path, withdrawn: list[str]) -> None:
    """Also one that withdrew what was not certified: it was judged by less than its file says."""
    store, old = str(tmp_path / "store"), night(tmp_path / "old", [1])
    record = Path(old) / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "identity": {"withdrawn": withdrawn}}))
    policy = certified_hash(load_policy(tmp_path / "old" / "policy.yaml"))
    live = Bundle(stack_fingerprint="stack", policy=policy, weights=(), files={}, code_version="1")
    assert describe_live(store, old) is None
    for bundle, said in ((live, None), (replace(live, policy="other"), "another policy than")):
        bundle_hash = write_bundle(store, bundle, {})
        promote_bundle(store, Promotion(bundle=bundle_hash, at=datetime(2026, 11, 26, tzinfo=UTC), reason="better"))
        note = describe_live(store, old)
        assert note is None if said is None else note is not None and said in note
    (tmp_path / "store" / "bundles" / bundle_hash / "bundle.json").unlink()
    assert "no such bundle" in (describe_live(store, old) or "")
