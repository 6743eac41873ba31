"""OUT keeps what decided: the policy and what the configuration named, whatever becomes of the files."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.model import load_policy, policy_hash
from moderation.results.decided import describe_damage, describe_drift, keep_inputs, read_index
from moderation.results.output import start_over
from moderation.results.reader import load_policy_of_run, open_run
from moderation.results.verify import verify_output
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5, block: 0.9}
  size: {side: attribute, votes: [a.mask]}
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run that has kept its policy."""
    folder = Path(write_run(tmp_path, ("a.mask",), [Made(name="a", votes=[(0.6,)])], POLICY))
    policy = load_policy(tmp_path / "policy.yaml")
    keep_inputs(str(folder), policy, Config(policy=str(tmp_path / "policy.yaml")))
    record = json.loads((folder / "run.json").read_text()) | {"identity": {"policy": policy_hash(policy)}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_the_policy_is_read_from_out_when_its_file_is_gone(
    out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_policy(tmp_path / "policy.yaml")
    (tmp_path / "policy.yaml").unlink()
    assert load_policy_of_run(open_run(str(out))) == before
    assert "is not there any more" in caplog.text


def test_the_policy_is_read_from_out_when_its_file_says_something_else(
    out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.replace("0.9", "0.7"))
    assert load_policy_of_run(open_run(str(out))).checks["mask"].block == 0.9
    assert "has changed since this run" in caplog.text


def test_a_comment_is_no_change(out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "policy.yaml").write_text("# of 2026\n" + POLICY)
    load_policy_of_run(open_run(str(out)))
    assert caplog.text == ""


def test_another_policy_is_read_where_one_is_named(out: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(POLICY.replace("0.9", "0.7"))
    assert load_policy_of_run(open_run(str(out)), str(tmp_path / "other.yaml")).checks["mask"].block == 0.7


def test_of_a_run_that_kept_nothing_the_file_is_read_and_a_change_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(write_run(tmp_path, ("a.mask",), [Made(name="a", votes=[(0.6,)])], POLICY))
    record = json.loads((out / "run.json").read_text()) | {"identity": {"policy": "0" * 64}}
    (out / "run.json").write_text(json.dumps(record))
    assert load_policy_of_run(open_run(str(out))).checks["mask"].block == 0.9
    assert "has changed since this run, which did not keep" in caplog.text
    (tmp_path / "policy.yaml").unlink()
    with pytest.raises(UsageError, match="not there any more; name one by --policy"):
        load_policy_of_run(open_run(str(out)))


def test_the_same_inputs_are_kept_as_the_same_files(out: Path, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in (out / "decided_by").iterdir()}
    keep_inputs(str(out), load_policy(tmp_path / "policy.yaml"), Config(policy=str(tmp_path / "policy.yaml")))
    assert {p.name: p.read_bytes() for p in (out / "decided_by").iterdir()} == before
    assert (out / "decided_by" / f"{hashlib.sha256(POLICY.encode()).hexdigest()}.yaml").read_text() == POLICY


def test_questions_and_tuned_prompts_are_kept(tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "policy.yaml").write_text(POLICY)
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "tuned.safetensors")
    tuned = hashlib.sha256((tmp_path / "tuned.safetensors").read_bytes()).hexdigest()
    questions = {"mask": {"yes": ["a mask"], "embeddings": f"file://{tmp_path}/tuned.safetensors", "sha256": tuned}}
    entry = {"name": "clip", "alias": "small", "options": {"questions": questions}, "weights": "hf://o/n/f"}
    config = Config.model_validate({"policy": str(tmp_path / "policy.yaml"), "stack": {"detectors": [entry]}})
    keep_inputs(str(tmp_path / "out"), load_policy(tmp_path / "policy.yaml"), config)
    index = read_index(str(tmp_path / "out"))
    assert index is not None
    (kept,) = index["detectors"]
    assert kept["pinned"][0]["locator"] == "hf://o/n/f"
    assert kept["pinned"][1]["sha256"] == tuned
    folder = tmp_path / "out" / "decided_by"
    assert json.loads((folder / kept["options"]).read_text())["questions"] == questions
    assert (folder / f"{tuned}.safetensors").read_bytes() == (tmp_path / "tuned.safetensors").read_bytes()


def test_verify_names_what_was_kept_and_is_gone(out: Path) -> None:
    assert verify_output(str(out)).well
    kept = next((out / "decided_by").glob("*.yaml"))
    kept.write_text("default: pass\n")
    assert list(describe_damage(str(out))) == [f"{kept} is not as it was: it says what decided"]
    kept.unlink()
    verification = verify_output(str(out))
    assert [finding.sentence for finding in verification.findings] == [f"{kept} is gone: it says what decided"]


def test_verify_notes_a_policy_that_has_changed_and_is_well(out: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.replace("0.9", "0.7"))
    verification = verify_output(str(out))
    assert verification.well
    assert verification.notes == (describe_drift(str(out), open_run(str(out)).record),)


def test_lists_and_definitions_are_kept_with_their_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "friends.csv").write_text("value\nann\n")
    text = POLICY.replace("block: 0.9", "block: 0.9, definition: weapon")
    text += "lists:\n  friends: {action: allow, by: owner, from: friends.csv}\n"
    out = Path(write_run(tmp_path, ("a.mask",), [Made(name="a", votes=[(0.6,)])], text))
    policy = load_whole_policy(tmp_path / "policy.yaml")
    keep_inputs(str(out), policy, Config(policy=str(tmp_path / "policy.yaml")))
    record = json.loads((out / "run.json").read_text()) | {"identity": {"policy": policy_hash(policy)}}
    (out / "run.json").write_text(json.dumps(record))
    kept = read_index(str(out))
    assert kept is not None
    assert "title:" in (out / "decided_by" / kept["definitions"]["mask"]).read_text()
    assert load_policy_of_run(open_run(str(out))) == policy
    assert caplog.text == ""
    # The same policy file names a list that holds other entries now.
    (tmp_path / "friends.csv").write_text("value\nbob\n")
    assert load_policy_of_run(open_run(str(out))) == policy
    assert "has changed since this run" in caplog.text


def test_an_index_that_is_not_ours_names_no_file_elsewhere(out: Path) -> None:
    index = json.loads((out / "decided_by" / "index.json").read_text())
    index["files"] = {"../run.json": "0" * 64}
    (out / "decided_by" / "index.json").write_text(json.dumps(index))
    assert "is no file of its folder" in next(describe_damage(str(out)))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"policy": []}'])
def test_an_unreadable_index_is_none(out: Path, text: str) -> None:
    (out / "decided_by" / "index.json").write_text(text)
    assert describe_drift(str(out), {}) is None
    assert list(describe_damage(str(out))) == []


def test_starting_over_removes_what_was_kept(out: Path) -> None:
    start_over(str(out))
    assert not (out / "decided_by").exists()
