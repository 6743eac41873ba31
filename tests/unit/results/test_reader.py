"""A run is opened once and read by its parts; what is not there is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.results.layout import VOTES, part_uri
from moderation.results.reader import load_policy_of_run, open_run, read_column_names, read_present
from tests.finished_run import RUN_ID, Made, write_run

LABELS = ("a.mask",)
POLICY = "default: pass\nchecks: {mask: {side: negative, votes: [a.mask], review: 0.5}}\n"
ITEMS = [Made(name=name, votes=[(0.1,), (0.7,)]) for name in ("a", "b", "c")]


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_selected_columns_are_those_of_the_whole_part(tmp_path: Path, format_: str) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY, shard_items=2, format_=format_)
    run = open_run(out)
    assert (run.run_id, run.format, len(run.shard_ids)) == (RUN_ID, format_, 2)
    for shard_id in run.shard_ids:
        whole = run.read_votes(shard_id)
        assert run.read_votes(shard_id, ["frame", "a.mask"]).equals(whole.select(["frame", "a.mask"]))
        uri = part_uri(out, VOTES, shard_id, format_)
        assert read_column_names(uri, format_) == tuple(whole.column_names)
        assert read_present(uri, format_, ["gone", "frame"]).column_names == ["frame"]
        with pytest.raises(UsageError, match="has no column gone"):
            run.read_verdicts(shard_id, ["uri", "gone"])


def test_a_part_without_a_receipt_is_not_read(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY, shard_items=2)
    first, second = open_run(out).shard_ids
    (Path(out) / "receipts" / f"{first}.json").unlink()
    assert open_run(out).shard_ids == (second,)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (None, r"no run\.json; not the output of a run"),
        ("{", r"run\.json: not readable"),
        ("[]", r"run\.json: not that of a run"),
        (json.dumps({"config": {}}), r"run\.json is not readable as that of a run"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, record: str | None, words: str) -> None:
    if record is not None:
        (tmp_path / "run.json").write_text(record)
    with pytest.raises(UsageError, match=words):
        open_run(str(tmp_path))


def test_a_policy_that_is_gone_must_be_named(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path, LABELS, ITEMS, POLICY, keep_policy=False))
    with pytest.raises(UsageError, match="name one by --policy"):
        load_policy_of_run(run)
