"""Another policy over kept votes, and over questions asked afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation.analysis.ask import ask
from moderation.analysis.checks import describe_checks
from moderation.analysis.inventory import take_inventory
from moderation.analysis.rejudge import rejudge
from moderation.analysis.rejudge_parts import RejudgeSettings, rejudge_shards
from moderation.analysis.rejudge_processes import judge_by_processes
from moderation.config.model import OutputConfig
from moderation.detectors.clip.questions import make_question
from moderation.errors import UsageError
from moderation.results.asked import write_ask_record, write_asked
from moderation.results.export.run import export_run
from moderation.results.layout import VERDICTS, VOTES, part_uri
from moderation.results.reader import read_part
from moderation.results.receipts import committed_ids
from moderation.results.status import read_status
from moderation.results.verify import verify_output
from moderation.types import Kind
from tests.finished_run import RUN_ID, Made, write_run

LABELS = ("a.mask", "b.mask")
POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask, b.mask], fuse: mean, review: 0.5, block: 0.9}
"""
ITEMS = [
    Made(name="fine", votes=[(0.1, 0.2)]),
    Made(name="masked", votes=[(0.6, 0.7)]),
    Made(name="sure", votes=[(0.99, 0.97)]),
    Made(name="broken", votes=None),
    Made(name="film", votes=[(0.1, 0.1), (0.8, 0.6), (0.2, None)]),
]


def policy_file(folder: Path, text: str) -> str:
    path = folder / "other.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(to: str) -> dict[str, dict[str, object]]:
    tables = [pq.read_table(p) for p in sorted((Path(to) / "verdicts").iterdir())]
    return {row["item_id"]: row for row in pa.concat_tables(tables).to_pylist()}


def test_the_same_policy_gives_the_same_rows(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    found = rejudge(out, str(tmp_path / "policy.yaml"), str(tmp_path / "again"))
    assert found.moved == {}
    assert found.verdicts == {"pass": 1, "review": 3, "block": 1}
    assert rows(str(tmp_path / "again")) == rows(out)


def test_a_lower_threshold_moves_verdicts_and_leaves_the_run_alone(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    before = {p: p.read_bytes() for p in Path(out).rglob("*") if p.is_file()}
    strict = policy_file(tmp_path, POLICY.replace("block: 0.9", "block: 0.6"))
    found = rejudge(out, strict, str(tmp_path / "again"))
    assert found.moved == {("review", "block"): 2}
    again = rows(str(tmp_path / "again"))
    assert again["masked"]["reason"] == "negative:mask:block"
    assert again["broken"]["verdict"] == "review"
    assert again["broken"]["error_code"] == "corrupt"
    assert {p: p.read_bytes() for p in Path(out).rglob("*") if p.is_file()} == before
    record = json.loads((tmp_path / "again" / "rejudge.json").read_text())
    assert record["run_id"] == RUN_ID
    assert record["moved"] == {"review -> block": 2}


def test_a_part_that_was_judged_again_since_is_rejudged_again(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    policy, to = str(tmp_path / "policy.yaml"), str(tmp_path / "again")
    rejudge(out, policy, to)
    # As after `verify --repair`: another picture lies at the same place, so the shard has its old name.
    other = [replace(item, votes=[(0.99, 0.99)]) if item.name == "fine" else item for item in ITEMS]
    assert write_run(tmp_path, LABELS, other, POLICY) == out
    rejudge(out, policy, to)
    assert rows(to) == rows(out)
    assert rows(to)["fine"]["verdict"] == "block"


def keep_hats(out: str, format_: str) -> None:
    digests = {}
    for shard_id in sorted(committed_ids(out)):
        votes = read_part(part_uri(out, VOTES, shard_id, format_), format_)
        hats = [[0.95 if name == "fine" else 0.05] for name in votes["item_id"].to_pylist()]
        scores = pa.array([h[0] for h in hats], pa.float32()).to_numpy()[:, None]
        options = OutputConfig(format=format_)
        digests[shard_id] = write_asked(out, "hat", shard_id, votes, scores, ["a.hat"], options)
    write_ask_record(out, RUN_ID, asdict(make_question("hat", ["a hat"])), ["a.hat"], digests)


WITH_HAT = POLICY + "  hat: {side: negative, votes: [a.hat], review: 0.5}\n"


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_question_asked_afterwards_is_a_vote_like_any_other(tmp_path: Path, format_: str) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY, format_=format_)
    keep_hats(out, format_)
    found = rejudge(out, policy_file(tmp_path, WITH_HAT), str(tmp_path / "again"))
    assert found.asks == ("hat",)
    assert found.moved == {("pass", "review"): 1}


def test_a_kept_question_whose_part_was_changed_is_refused(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    keep_hats(out, "parquet")
    part = sorted(Path(out, "asks", "hat").glob("part-*"))[0]
    table = pq.read_table(part)
    pq.write_table(table.set_column(2, "a.hat", pa.array([0.0] * table.num_rows, pa.float32())), part)
    with pytest.raises(UsageError, match="not the one that was kept"):
        rejudge(out, policy_file(tmp_path, WITH_HAT), str(tmp_path / "again"))
    record = Path(out, "asks", "hat", "ask.json")
    # As an earlier version kept it.
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "sha256"}))
    assert not rejudge(out, policy_file(tmp_path, WITH_HAT), str(tmp_path / "again")).moved


def test_a_vote_that_nobody_cast_is_named_with_the_nearest(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    wrong = policy_file(tmp_path, POLICY.replace("[a.mask", "[a.mask, a.maks"))
    with pytest.raises(UsageError, match=r"casts no vote 'a\.maks'; did you mean 'a\.mask'"):
        rejudge(out, wrong, str(tmp_path / "again"))


def test_the_run_itself_is_never_written_over(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    with pytest.raises(UsageError, match="is the run itself"):
        rejudge(out, str(tmp_path / "policy.yaml"), out + "/")
    with pytest.raises(UsageError, match=r"no run\.json"):
        rejudge(str(tmp_path), str(tmp_path / "policy.yaml"), str(tmp_path / "again"))


FULL = """
language: zh
checks:
  mask: {side: negative, votes: [a.mask, b.mask], fuse: mean, review: 0.5, block: 0.9, severity: high,
         pool: {method: run, length: 2, gap: 1}, by: {region: {eu: {block: 0.55}}}, label: Violence/Weapons}
  fine: {side: positive, votes: [a.fine], pass: 0.9}
  person: {side: attribute, votes: [a.fine]}
lists:
  people: {action: deny, by: person, entries: [Mallory], verdict: review}
  copies: {action: deny, by: pdq, distance: 8, entries: [{value: "ZEROS", reason: a copy}]}
  files: {action: deny, by: content_hash, entries: [{value: "SHA", until: 2026-11-26}]}
  friends: {action: allow, by: owner, from: friends.csv}
vouch:
  plain: {at_least: {person: 0.5}, others_below: 0.3}
audit: {salt: s, group: owner, block: {check: mask, rate: 0.5, from: 0.3}, pass: {check: mask, rate: 0.5, to: 0.3}}
""".replace("ZEROS", "0" * 64).replace("SHA", "ab" * 32)
FULL_LABELS = ("a.mask", "b.mask", "a.fine")
QUIET = [(0.1, 0.1, 0.2)]
FULL_ITEMS = [
    Made(name="eu", votes=[(0.6, 0.6, 0.0)], attributes={"region": "eu"}),
    Made(name="us", votes=[(0.6, 0.6, 0.0)], attributes={"region": "us", "owner": "bob"}),
    Made(name="flash", votes=[(0.1, 0.1, 0.9), (0.95, 0.95, 0.9), (0.1, 0.1, 0.9)], kind=Kind.VIDEO, times_s=(0, 1, 2)),
    Made(name="scene", votes=[(0.95, 0.95, 0)] * 3, kind=Kind.VIDEO, times_s=(0, 1, 2)),
    Made(name="album", votes=[(0.95, 0.95, 0), (0.1, 0.1, 0), (0.1, 0.1, 0)], kind=Kind.ALBUM),
    Made(name="face", votes=QUIET, people=["Mallory"]),
    Made(name="copy", votes=[*QUIET, *QUIET], hashes=["f" * 64, "0" * 63 + "1"]),
    Made(name="file", votes=None, content_hash="ab" * 32),
    Made(name="friend", votes=[(0.95, 0.95, 0.0)], attributes={"owner": "ann"}),
    Made(name="hidden", votes=QUIET, attributes={"owner": "ann"}, unseen=("track",)),
    Made(name="plain", votes=[(0.1, 0.1, 0.6)], attributes={"owner": "carl"}),
    Made(name="sure", votes=[(0.1, 0.1, 0.95)], attributes={"owner": "dora"}),
    Made(name="nothing", votes=QUIET, attributes={"owner": "emil"}),
    Made(name="broken", votes=None),
    Made(name="null", votes=[(None, 0.1, 0.9)]),
]
REASONS = {
    "eu": "negative:mask:block",
    "us": "negative:mask:review",
    "flash": "isolated:mask:review",
    "scene": "negative:mask:block",
    "album": "negative:mask:block",
    "face": "list:people:review",
    "copy": "list:copies:block",
    "file": "list:files:block",
    "friend": "list:friends:pass",
    "hidden": "unseen:track",
    "plain": "vouch:plain:pass",
    "sure": "positive:fine:pass",
    "nothing": "default:review",
    "broken": "error:corrupt",
    "null": "null:mask:review",
}


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_every_rule_gives_the_rows_of_a_full_run(tmp_path: Path, format_: str) -> None:
    (tmp_path / "friends.csv").write_text("value,until\nann,2026-12-31\n")
    plain = "checks: {mask: {side: negative, votes: [a.mask], review: 0.5}}"
    (tmp_path / "old").mkdir()
    old = write_run(tmp_path / "old", FULL_LABELS, FULL_ITEMS, plain, format_=format_, as_of="2026-11-26")
    full = write_run(tmp_path, FULL_LABELS, FULL_ITEMS, FULL, format_=format_, as_of="2026-11-26")
    rejudge(old, str(tmp_path / "policy.yaml"), str(tmp_path / "again"))

    def judged(out: str) -> dict[str, dict[str, object]]:
        run = [read_part(part_uri(out, VERDICTS, i, format_), format_) for i in sorted(committed_ids(old))]
        return {row["item_id"]: {**row, "uri": None} for row in pa.concat_tables(run).to_pylist()}

    again = judged(str(tmp_path / "again"))
    assert {name: row["reason"] for name, row in again.items()} == REASONS
    assert again == judged(full)
    assert {row["audit"] for row in again.values()} == {True, False}
    assert again["flash"]["segments"] == [{"start_s": 1.0, "end_s": 1.0, "check": "mask", "score": pytest.approx(0.95)}]
    assert again["eu"]["severity"] == "high"


def test_the_day_of_the_run_ends_lists_unless_another_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "friends.csv").write_text("value,until\nann,2026-12-31\n")
    out = write_run(tmp_path, FULL_LABELS, FULL_ITEMS, FULL, as_of="2026-11-26")
    policy = str(tmp_path / "policy.yaml")
    assert rejudge(out, policy, str(tmp_path / "same")).moved == {}
    later = rejudge(out, policy, str(tmp_path / "later"), as_of=date(2027, 1, 1))
    assert later.moved == {("block", "review"): 1, ("pass", "block"): 1}
    kept = pq.read_schema(next((tmp_path / "later" / "verdicts").iterdir())).metadata
    assert kept[b"moderation.as_of"] == b"2027-01-01"
    record = json.loads((tmp_path / "later" / "rejudge.json").read_text())
    assert "entries" not in record["policy"]["lists"]["friends"]


def test_a_run_that_tells_no_day_is_asked_for_one(tmp_path: Path) -> None:
    (tmp_path / "friends.csv").write_text("value,until\nann,2026-12-31\n")
    out = write_run(tmp_path, FULL_LABELS, FULL_ITEMS, FULL)
    with pytest.raises(UsageError, match="--as-of"):
        rejudge(out, str(tmp_path / "policy.yaml"), str(tmp_path / "again"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "verdicts").iterdir())}


def test_what_is_there_by_receipt_is_not_judged_again(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS * 4, POLICY)
    policy = str(tmp_path / "policy.yaml")
    whole = rejudge(out, policy, str(tmp_path / "whole"))
    judged: list[str] = []

    def killed(settings: RejudgeSettings, shard_ids: Sequence[str]) -> None:
        rejudge_shards(settings.to_json(), shard_ids[:2])
        raise KeyboardInterrupt

    def counting(settings: RejudgeSettings, shard_ids: Sequence[str]) -> None:
        judged.extend(shard_ids)
        rejudge_shards(settings.to_json(), shard_ids)

    with pytest.raises(KeyboardInterrupt):
        rejudge(out, policy, str(tmp_path / "again"), judge_parts=killed)
    assert not (tmp_path / "again" / "_SUCCESS").exists()
    resumed = rejudge(out, policy, str(tmp_path / "again"), judge_parts=counting)
    assert len(judged) == 3
    assert (resumed.items, resumed.verdicts, resumed.moved) == (whole.items, whole.verdicts, whole.moved)
    assert files_of(tmp_path / "again") == files_of(tmp_path / "whole")


def test_processes_write_the_bytes_that_one_writes(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, [replace(i, name=f"{n}-{i.name}") for n in range(8) for i in ITEMS], POLICY)
    policy = str(tmp_path / "policy.yaml")
    rejudge(out, policy, str(tmp_path / "one"), workers=1)

    def by_two(settings: RejudgeSettings, shard_ids: Sequence[str]) -> None:
        judge_by_processes(settings.to_json(), [shard_ids[:5], shard_ids[5:]], 2)

    rejudge(out, policy, str(tmp_path / "two"), judge_parts=by_two)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_what_a_process_meets_is_told_in_its_words(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    lost = next((Path(out) / "votes").iterdir())

    def by_two(settings: RejudgeSettings, shard_ids: Sequence[str]) -> None:
        lost.unlink()
        judge_by_processes(settings.to_json(), [[shard_id] for shard_id in shard_ids], 2)

    with pytest.raises(UsageError, match="is gone"):
        rejudge(out, str(tmp_path / "policy.yaml"), str(tmp_path / "again"), judge_parts=by_two)


def test_a_rejudge_is_a_run_for_whatever_reads_runs(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    to = str(tmp_path / "again")
    strict = policy_file(tmp_path, POLICY.replace("block: 0.9", "block: 0.6"))
    rejudge(out, strict, to)
    assert read_status(to, now_s=0.0).state == "done"
    assert verify_output(to).well
    assert take_inventory(to).items == len(ITEMS)
    assert [check.name for check in describe_checks(to)] == ["mask"]
    assert export_run(to, "jsonl").items == len(ITEMS)
    with pytest.raises(UsageError, match="ask that run"):
        ask(to, make_question("hat", ["a hat"]))
    assert rejudge(to, str(tmp_path / "policy.yaml"), str(tmp_path / "back")).moved == {("block", "review"): 2}
    assert rows(str(tmp_path / "back")) == rows(out)


def test_verdicts_of_an_older_version_are_judged_again(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    added = ("threshold", "severity", "label", "reason_text", "segments", "audit")
    for path in (Path(out) / "verdicts").iterdir():
        table = pq.read_table(path).drop_columns(list(added))
        pq.write_table(table, path)
        receipt = Path(out) / "receipts" / f"{path.stem.removeprefix('part-')}.json"
        told = json.loads(receipt.read_text())
        told["sha256"]["verdicts"] = hashlib.sha256(path.read_bytes()).hexdigest()
        receipt.write_text(json.dumps(told))
    assert rejudge(out, str(tmp_path / "policy.yaml"), str(tmp_path / "again")).moved == {}
    assert set(added) <= set(rows(str(tmp_path / "again"))["sure"])


def test_what_no_certificate_covers_goes_to_review_where_certificates_are_required(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    told = rejudge(out, str(tmp_path / "policy.yaml"), str(tmp_path / "again"))
    assert len(told.doubts) == 1
    assert told.verdicts == {"pass": 1, "review": 3, "block": 1}
    required = policy_file(tmp_path, POLICY + "require_certificate: true\n")
    strict = rejudge(out, required, str(tmp_path / "strict"))
    assert strict.verdicts == {"review": 5}


def test_the_same_call_over_its_own_folder_writes_the_same(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    to = tmp_path / "again"
    rejudge(out, None, str(to))
    before = {**files_of(to), "rejudge.json": (to / "rejudge.json").read_bytes()}
    # As a call leaves it that was killed in the middle.
    (to / "rejudge.json").unlink()
    sorted((to / "verdicts").iterdir())[0].unlink()
    rejudge(out, None, str(to))
    assert {**files_of(to), "rejudge.json": (to / "rejudge.json").read_bytes()} == before
    assert json.loads((to / "rejudge.json").read_text())["state"] == "done"


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    out = write_run(tmp_path / "one", LABELS, ITEMS, POLICY)
    other = write_run(tmp_path / "two", LABELS, ITEMS, POLICY)
    with pytest.raises(UsageError, match="is the output of a run"):
        rejudge(out, None, other)
    strict = policy_file(tmp_path, POLICY.replace("block: 0.9", "block: 0.6"))
    rejudge(out, strict, str(tmp_path / "strict"))
    with pytest.raises(UsageError, match="holds the verdicts by another policy"):
        rejudge(out, None, str(tmp_path / "strict"))
    (tmp_path / "strict" / "run.json").unlink()
    with pytest.raises(UsageError, match="holds verdicts of something else"):
        rejudge(out, strict, str(tmp_path / "strict"))
