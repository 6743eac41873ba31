"""Another policy over kept votes, and over questions asked afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation.analysis.rejudge import rejudge
from moderation.config.model import OutputConfig
from moderation.detectors.clip.questions import make_question
from moderation.errors import UsageError
from moderation.results.asked import write_ask_record, write_asked
from moderation.results.layout import VOTES, part_uri
from moderation.results.reader import read_part
from moderation.results.receipts import committed_ids
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


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_question_asked_afterwards_is_a_vote_like_any_other(tmp_path: Path, format_: str) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY, format_=format_)
    question = make_question("hat", ["a hat"])
    ids = sorted(committed_ids(out))
    for shard_id in ids:
        votes = read_part(part_uri(out, VOTES, shard_id, format_), format_)
        hats = [[0.95 if name == "fine" else 0.05] for name in votes["item_id"].to_pylist()]
        scores = pa.array([h[0] for h in hats], pa.float32()).to_numpy()[:, None]
        write_asked(out, "hat", shard_id, votes, scores, ["a.hat"], OutputConfig(format=format_))
    write_ask_record(out, RUN_ID, asdict(question), ["a.hat"], len(ids))
    with_hat = policy_file(tmp_path, POLICY + "  hat: {side: negative, votes: [a.hat], review: 0.5}\n")
    found = rejudge(out, with_hat, str(tmp_path / "again"))
    assert found.asks == ("hat",)
    assert found.moved == {("pass", "review"): 1}


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
