"""`backfill --extend` as a process: a finished run gets the detectors that it lacks, and is then what a full run is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from moderation.planning.slices import Slice
from moderation.results.reader import open_run
from tests.job_runs import make_pictures, run_job, summary, verdicts

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SMALL = [{"name": "tiny"}]
# `skin` runs on what is red: its condition reads the votes that the run has.
LARGE = [{"name": "tiny"}, {"name": "skin", "when": "tiny.red >= 0.4"}, {"name": "quality"}, {"name": "pdq"}]
RED = "default: pass\nchecks:\n  reddish: {side: negative, votes: [tiny.red], block: 0.95, review: 0.6}\n"
SKIN = RED + "  skin: {side: negative, votes: [skin.share], review: 0.2, null: ignore}\n"


def write_config(folder: Path, name: str, detectors: list[dict[str, object]], policy: str) -> Path:
    (folder / f"{name}.policy.yaml").write_text(policy)
    path = folder / f"{name}.yaml"
    config = {
        "policy": f"{name}.policy.yaml",
        "stack": {"detectors": detectors, "dtype": "fp32"},
        "shards": {"max_items": 8},
    }
    path.write_text(json.dumps(config))
    return path


def judge(*arguments: object) -> str:
    ended = run_job("backfill", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in`: pictures; `small` and `full`: runs of the small and the large stack over them."""
    folder = tmp_path_factory.mktemp("extend")
    pictures = make_pictures(folder / "in", 20, {3: (255, 0, 0), 7: (150, 105, 85), 9: (190, 10, 10)})
    (pictures / "notes.txt").write_text("not media")
    (pictures / "broken.png").write_bytes((pictures / "0001.png").read_bytes()[:40])
    small, large = write_config(folder, "small", SMALL, RED), write_config(folder, "large", LARGE, SKIN)
    judge(pictures, "--out", folder / "small", "--config", small)
    judge(pictures, "--out", folder / "full", "--config", large)
    return folder


def copy_of(made: Path, to: Path, name: str = "small") -> Path:
    shutil.copytree(made / name, to / "out")
    return to / "out"


def assert_same_run(out: Path, full: Path) -> None:
    """Two OUTs with the same votes and verdicts, of the same run."""
    one, other = open_run(str(out)), open_run(str(full))
    assert (one.run_id, one.stack_fingerprint, one.shard_ids) == (
        other.run_id,
        other.stack_fingerprint,
        other.shard_ids,
    )
    for shard_id in one.shard_ids:
        assert one.read_votes(shard_id).equals(other.read_votes(shard_id))
        assert one.read_verdicts(shard_id).equals(other.read_verdicts(shard_id))


def test_an_extended_run_is_a_full_run(made: Path, tmp_path: Path) -> None:
    out, large = copy_of(made, tmp_path), made / "large.yaml"
    base_votes = {p.name: p.read_bytes() for p in (out / "votes").iterdir()}
    refused = run_job("backfill", made / "in", "--out", out, "--config", large)
    assert refused.returncode == 2
    assert "--extend" in refused.stderr

    plan = judge(made / "in", "--out", out, "--config", large, "--extend", "--dry-run")
    assert "new: skin, quality, pdq" in plan
    assert "kept: tiny" in plan
    assert not (out / "extensions").exists()

    said = judge(made / "in", "--out", out, "--config", large, "--extend")
    assert "added: skin, quality, pdq" in said
    assert "pass -> review: 1" in said
    assert_same_run(out, made / "full")
    assert {p.name: p.read_bytes() for p in (out / "votes").iterdir()} == base_votes
    numbers, whole = summary(out), summary(made / "full")
    assert {k: numbers[k] for k in ("verdicts", "status", "errors", "checks", "frames_asked")} == {
        k: whole[k] for k in ("verdicts", "status", "errors", "checks", "frames_asked")
    }
    assert numbers["moved"] == {"pass:review": 1}

    assert "Nothing left" in judge(made / "in", "--out", out, "--config", large)
    assert "Nothing left" in judge(made / "in", "--out", out, "--config", large, "--extend")
    assert "nothing left to do" in judge(made / "in", "--out", out, "--config", large, "--extend", "--dry-run")
    assert run_job("verify", out).returncode == 0
    assert run_job("status", out).returncode == 0


def test_what_reads_an_extended_run_reads_the_joined_votes(made: Path, tmp_path: Path) -> None:
    out, large = copy_of(made, tmp_path), made / "large.yaml"
    old = run_job("rejudge", out, "--to", tmp_path / "before")
    assert old.returncode == 0, old.stderr
    judge(made / "in", "--out", out, "--config", large, "--extend")

    again, whole = tmp_path / "again", tmp_path / "whole"
    for source, to in ((out, again), (made / "full", whole)):
        ended = run_job("rejudge", source, "--policy", made / "large.policy.yaml", "--to", to)
        assert ended.returncode == 0, ended.stderr
    assert verdicts(again).equals(verdicts(whole))
    assert verdicts(again).equals(verdicts(made / "full"))
    # A rejudge of before goes on with the votes of before.
    assert (
        "skin.share" not in open_run(str(tmp_path / "before")).read_votes(open_run(str(out)).shard_ids[0]).column_names
    )
    for reader in (out, again):
        difference = run_job("policy", "diff", made / "small.policy.yaml", made / "large.policy.yaml", "--on", reader)
        assert "pass -> review: 1" in difference.stdout, difference.stderr
        why = run_job("why", reader, "0007.png")
        assert why.returncode == 0, why.stderr
        assert "skin" in why.stdout
    assert run_job("duplicates", out).returncode == 0  # by hashes that only the extension has
    exported = run_job("export", out, "--format", "coco", "--to", tmp_path / "coco.json")
    assert exported.returncode == 0, exported.stderr


def test_other_contents_and_lost_files_are_rows_that_say_so(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "in", tmp_path / "in")
    small, large = write_config(tmp_path, "small", SMALL, RED), write_config(tmp_path, "large", LARGE, SKIN)
    out = tmp_path / "out"
    judge(tmp_path / "in", "--out", out, "--config", small)
    shutil.copy(tmp_path / "in" / "0000.png", tmp_path / "in" / "0003.png")  # this one was blocked
    (tmp_path / "in" / "0004.png").unlink()
    arguments = [tmp_path / "in", "--out", out, "--config", large, "--extend"]
    failed = run_job("backfill", *arguments)
    assert failed.returncode == 3
    assert "nothing was judged" in failed.stderr
    assert verdicts(out)["error_code"].null_count == 20  # as it was
    judge(*arguments, "--set", "runtime.max_error_rate=0.2")
    rows = {row["uri"].rsplit("/", 1)[-1]: row for row in verdicts(out).to_pylist()}
    assert len(rows) == 22
    changed, gone = rows["0003.png"], rows["0004.png"]
    assert [changed[k] for k in ("verdict", "status", "reason", "error_code")] == [
        "review", "error", "error:changed", "changed",
    ]  # fmt: skip
    assert [gone[k] for k in ("verdict", "error_code")] == ["review", "not_found"]
    run = open_run(str(out))
    votes = pa.concat_tables([run.read_votes(shard_id) for shard_id in run.shard_ids])
    assert changed["item_id"] not in votes["item_id"].to_pylist()
    left = votes.filter(pc.equal(votes["item_id"], gone["item_id"])).to_pylist()
    assert [(row["tiny.red"] is not None, row["skin.share"]) for row in left] == [(True, None)]
    # A further extension leaves them as they are.
    other = write_config(tmp_path, "other", [*LARGE, {"name": "tiny", "alias": "second"}], SKIN)
    judge(tmp_path / "in", "--out", out, "--config", other, "--extend", "--set", "runtime.max_error_rate=0.2")
    after = {row["uri"].rsplit("/", 1)[-1]: row for row in verdicts(out).to_pylist()}
    assert {k: after["0003.png"][k] for k in changed} == changed
    assert run_job("verify", out).returncode == 0


def test_extensions_follow_each_other_and_a_damaged_one_is_scored_again(made: Path, tmp_path: Path) -> None:
    out = copy_of(made, tmp_path)
    middle = write_config(tmp_path, "middle", [LARGE[0], LARGE[2]], RED)
    judge(made / "in", "--out", out, "--config", middle, "--extend")
    judge(made / "in", "--out", out, "--config", made / "large.yaml", "--extend")
    names = json.loads((out / "run.json").read_text())["extensions"]
    assert len(names) == 2
    assert_same_run(out, made / "full")

    part = sorted((out / "extensions" / names[1] / "votes").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-9])
    assert run_job("verify", out).returncode == 1
    assert run_job("verify", out, "--repair").returncode == 1
    judge(made / "in", "--out", out, "--config", made / "large.yaml", "--extend")
    assert run_job("verify", out).returncode == 0
    assert_same_run(out, made / "full")

    part = sorted((out / "votes").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-9])
    assert run_job("verify", out, "--repair").returncode == 1
    judge(made / "in", "--out", out, "--config", made / "large.yaml")  # judges the shard by the whole stack
    arguments = [made / "in", "--out", out, "--config", made / "large.yaml", "--extend"]
    assert "damaged, scored again: quality, skin, pdq" in judge(*arguments, "--dry-run")
    judge(*arguments)
    assert run_job("verify", out).returncode == 0
    assert_same_run(out, made / "full")


def test_slices_score_and_a_call_without_one_judges(made: Path, tmp_path: Path) -> None:
    out, before = copy_of(made, tmp_path), verdicts(made / "small")
    arguments = [made / "in", "--out", out, "--config", made / "large.yaml", "--extend"]
    shards = open_run(str(out)).shard_ids
    empty = next(k for k in range(1, 9) if not any(Slice(count=8, index=k).holds(one) for one in shards))
    for part in (f"{empty}/8", "1/2", "2/2"):
        assert "without --slice judges" in judge(*arguments, "--slice", part)
    assert verdicts(out).equals(before)
    assert "0 shards to score" in judge(*arguments, "--dry-run")
    judge(*arguments)
    assert_same_run(out, made / "full")


def test_another_policy_alone_judges_in_place(made: Path, tmp_path: Path) -> None:
    out = copy_of(made, tmp_path, "full")
    strict = write_config(tmp_path, "strict", LARGE, SKIN.replace("0.95", "0.7"))
    said = judge(made / "in", "--out", out, "--config", strict, "--extend")
    assert "review -> block: 1" in said
    assert not any(p.name != "newest.json" and p.is_dir() and any(p.iterdir()) for p in (out / "extensions").iterdir())
    judge(made / "in", "--out", out, "--config", made / "large.yaml", "--extend")
    assert verdicts(out).equals(verdicts(made / "full"))


def test_nothing_is_judged_while_too_much_cannot_be_read(made: Path, tmp_path: Path) -> None:
    out, large = copy_of(made, tmp_path), made / "large.yaml"
    (made / "in").rename(made / "away")
    arguments = [made / "in", "--out", out, "--config", large, "--extend"]
    try:
        failed = run_job("backfill", *arguments)
    finally:
        (made / "away").rename(made / "in")
    assert failed.returncode != 0, failed.stdout
    assert verdicts(out).equals(verdicts(made / "small"))
    judge(*arguments)
    assert_same_run(out, made / "full")
