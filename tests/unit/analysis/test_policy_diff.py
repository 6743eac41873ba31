"""Who changes sides between two policies: from stored votes, by the function and by the command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.analysis.policy_diff import diff_policies
from moderation.errors import UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.results.judged import judge_rows
from moderation.results.reader import open_run
from moderation.results.votes import item_votes, read_bound_votes
from moderation.types import Kind
from tests.finished_run import Made, write_run

LABELS = ("a.mask", "a.fine")
OLD = """
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5, block: 0.9}
  fine: {side: positive, votes: [a.fine], pass: 0.8}
"""
NEW = (
    OLD.replace("block: 0.9", "block: 0.7").replace("pass: 0.8", "pass: 0.9")
    + """
lists: {spam: {action: deny, by: owner, entries: [{value: ann, reason: sells pills}], verdict: review}}
"""
)
ITEMS = [
    Made(name="both", votes=[(0.95, 0.1)]),
    Made(name="harsher-1", votes=[(0.75, 0.1)]),
    Made(name="harsher-2", votes=[(0.8, 0.1)]),
    Made(name="unsure", votes=[(0.1, 0.85)]),
    Made(name="\x1b[31mann", votes=[(0.6, 0.95)], attributes={"owner": "ann"}),
    Made(name="broken", votes=None),
]


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, str, str]:
    (tmp_path / "new.yaml").write_text(NEW)
    out = write_run(tmp_path, LABELS, ITEMS, OLD)
    return str(tmp_path / "policy.yaml"), str(tmp_path / "new.yaml"), out


def test_counts_rules_and_examples(run: tuple[str, str, str]) -> None:
    old, new, out = run
    found = diff_policies(old, new, [out], examples=1)
    assert (found.items, found.skipped, found.changed) == (6, 0, 3)
    assert (found.before, found.after) == ({"block": 1, "pass": 1, "review": 4}, {"block": 3, "review": 3})
    assert found.moved == {("review", "block"): 2, ("pass", "review"): 1}
    assert [(r.before, r.after, r.items, r.changes_verdict) for r in found.rules] == [
        ("negative:mask:review", "negative:mask:block", 2, True),
        ("positive:fine:pass", "default:review", 1, True),
        ("negative:mask:review", "list:spam:review", 1, False),
    ]
    (example,) = found.rules[0].examples
    assert (example.item_id, example.out) == ("harsher-1", out)


def test_several_runs_add_up_and_the_same_policy_moves_nothing(run: tuple[str, str, str]) -> None:
    old, new, out = run
    assert diff_policies(old, new, [out, out]).moved == {("review", "block"): 4, ("pass", "review"): 2}
    same = diff_policies(old, old, [out])
    assert (same.changed, same.rules) == (0, ())


def test_nothing_is_written_into_the_run(run: tuple[str, str, str]) -> None:
    old, new, out = run
    before = {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
    diff_policies(old, new, [out])
    assert {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()} == before


def test_a_vote_that_the_run_did_not_cast_is_named(run: tuple[str, str, str], tmp_path: Path) -> None:
    old, _, out = run
    (tmp_path / "wrong.yaml").write_text(OLD.replace("a.mask", "a.maks"))
    with pytest.raises(UsageError, match=r"casts no vote 'a\.maks'; did you mean 'a\.mask'"):
        diff_policies(old, str(tmp_path / "wrong.yaml"), [out])


def test_the_command_prints_words_that_no_stranger_can_colour(run: tuple[str, str, str]) -> None:
    old, new, out = run
    shown = CliRunner().invoke(app, ["policy", "diff", old, new, "--on", out])
    assert shown.exit_code == 0
    assert "6 items, 3 change sides (50.0%)" in shown.output
    assert "negative:mask:review -> list:spam:review: 1  (same verdict)" in shown.output
    assert "sells pills" in shown.output
    assert "\x1b" not in shown.output
    told = json.loads(CliRunner().invoke(app, ["policy", "diff", old, new, "--on", out, "--json"]).output)
    assert told["moved"] == {"pass -> review": 1, "review -> block": 2}


def test_the_command_holds_a_policy_to_cases(run: tuple[str, str, str], tmp_path: Path) -> None:
    old, new, _ = run
    table = tmp_path / "cases.yaml"
    table.write_text("cases: [{name: at 0.75, votes: {a.mask: 0.75}, verdict: review}]")
    fine = CliRunner().invoke(app, ["policy", "test", old, str(table)])
    assert (fine.exit_code, fine.output) == (0, "1 of 1 cases are decided as the table says\n")
    wrong = CliRunner().invoke(app, ["policy", "test", new, str(table)])
    assert wrong.exit_code == 1
    assert "wanted  review" in wrong.output
    assert "got     block (negative:mask:block)" in wrong.output
    told = CliRunner().invoke(app, ["policy", "test", new, str(table), "--json"])
    assert (told.exit_code, json.loads(told.output)["differ"][0]["name"]) == (1, "at 0.75")


def test_the_command_shows_a_packaged_policy_by_its_name() -> None:
    shown = CliRunner().invoke(app, ["policy", "show", "default.yaml"])
    assert shown.exit_code == 0
    assert "check explicit: negative; block from 0.9, review from 0.35; severity high" in shown.output
    assert "breastfeeding" in shown.output
    assert "frames: image, animation, album: any; video, keyframes: top_k_mean, k 3" in shown.output
    assert json.loads(CliRunner().invoke(app, ["policy", "show", "default.yaml", "--json"]).output)["definitions"]


def drawn_items(count: int) -> list[Made]:
    """Items of every kind of row: plain, many frames, unseen, denied, not decoded, with nulls."""
    rng = np.random.default_rng(3)

    def made(n: int) -> Made:
        frames = [[None if rng.random() < 0.1 else float(s) for s in row] for row in rng.random((1 + n % 3, 2))]
        return Made(
            name=f"i{n}",
            votes=None if n % 11 == 0 else frames,
            kind=Kind.VIDEO if n % 3 else Kind.IMAGE,
            times_s=[float(t) for t in range(len(frames))] if n % 3 else (),
            unseen=("track",) if n % 13 == 0 else (),
            attributes={"owner": "ann"} if n % 7 == 0 else {},
        )

    return [made(n) for n in range(count)]


def test_parts_judged_in_columns_count_what_items_judged_one_by_one_do(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(NEW)
    out = write_run(tmp_path, LABELS, drawn_items(120), OLD, shard_items=50)
    paths = [str(tmp_path / name) for name in ("policy.yaml", "new.yaml")]
    found = diff_policies(paths[0], paths[1], [out], examples=1000)
    run, rules = open_run(out), Counter[tuple[str, str]]()
    both = zip(*(read_bound_votes(run, load_whole_policy(Path(path))) for path in paths), strict=True)
    for parts in both:
        rows = run.read_verdicts(parts[0].shard_id)
        judged = [judge_rows(rows, dict(item_votes(p.votes, p.policy.labels)), p.policy) for p in parts]
        for before, after in zip(*judged, strict=True):
            assert before is not None and after is not None
            if before.reason != after.reason:
                rules[before.reason, after.reason] += 1
    assert {(rule.before, rule.after): rule.items for rule in found.rules} == dict(rules)
    assert all(len(rule.examples) == rule.items for rule in found.rules)
    assert len(rules) > 4
    assert found.items == 120
