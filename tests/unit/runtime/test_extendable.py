"""Which runs `--extend` takes, what it would score of them, and what it says of the others."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moderation import storage
from moderation.config.load import load_config
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import encode_shards
from moderation.planning.shards import make_shard
from moderation.planning.slices import Slice
from moderation.results.decided import keep_inputs
from moderation.results.output import check_owner
from moderation.results.receipts import commit_parts, readable_ids
from moderation.results.record import write_record
from moderation.runtime import extend as extend_module
from moderation.runtime.backfill import judging_task
from moderation.runtime.extend import describe_changes, extend, extension_run
from moderation.runtime.extendable import ExtendableRun, read_extendable
from moderation.runtime.extending_task import ExtendedRun, ExtendingTask
from moderation.runtime.prepare import prepare_run
from moderation.runtime.resume import RunOutcome
from moderation.types import Item, MediaObject, Shard

POLICY = "default: pass\nchecks:\n  blurred: {side: negative, votes: [quality.sharpness], review: 0.9}\n"


def config_of(folder: Path, *detectors: dict[str, Any] | str, policy: str = POLICY) -> Config:
    (folder / "policy.yaml").write_text(policy)
    listed = [{"name": d} if isinstance(d, str) else d for d in detectors]
    path = folder / "config.yaml"
    path.write_text(json.dumps({"policy": "policy.yaml", "stack": {"detectors": listed}}))
    return load_config(str(path), [])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run of `quality` over one picture."""
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes(b"")
    run = prepare_run(str(source), str(tmp_path / "out"), config_of(tmp_path, "quality"))
    shard = make_shard([Item(item_id="a", uri="a", objects=(MediaObject(uri="a", name="a.png"),))])
    storage.publish(plan_uri(run.out), encode_shards([shard]))
    parts = {"verdicts": b"", "votes": b""}
    commit_parts(
        run.out, shard.shard_id, items=1, parts=parts, rows={"verdicts": 1, "votes": 1}, format_="parquet", facts={}
    )
    write_record(run, "done")
    return tmp_path / "out"


def find(out: Path, *detectors: dict[str, Any] | str, **changes: Any) -> ExtendableRun:
    config = config_of(out.parent, *(detectors or ("quality", "pdq")), **changes)
    return read_extendable(str(out.parent / "in"), str(out), config, None)


def rewrite(out: Path, **changes: Any) -> None:
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({k: v for k, v in {**record, **changes}.items() if v is not None}))


def test_what_the_run_lacks_is_scored_and_nothing_else(out: Path) -> None:
    found = find(out)
    assert describe_changes(found.changes) == {"added": ["pdq"], "again": {}, "kept": ["quality"], "helpers": []}
    (pending,) = found.pending
    assert not found.nothing_left
    assert extension_run(found, pending).out == f"{out}/extensions/{pending.name}"
    again = find(out, "quality", {"name": "skin", "when": "quality.sharpness >= 0.5"})
    assert again.changes.added == ("skin",)
    assert again.pending[0].name != pending.name


def test_another_policy_needs_no_scoring_and_does_not_change_the_extension(out: Path) -> None:
    strict = POLICY.replace("0.9", "0.5")
    alone = find(out, "quality", policy=strict)
    assert (alone.pending, alone.nothing_left) == ((), False)
    both = find(out, policy=strict)
    assert [one.name for one in both.pending] == [one.name for one in find(out).pending]
    assert both.run.facts.run_id != find(out).run.facts.run_id


def test_the_same_stack_and_policy_leave_nothing(out: Path) -> None:
    assert find(out, "quality").nothing_left


def test_a_record_of_before_is_read_by_its_configuration(out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    del record["detectors"]
    (out / "run.json").write_text(json.dumps(record))
    assert find(out).changes.added == ("pdq",)
    rewrite(out, identity={**record["identity"], "stack": "another"})
    with pytest.raises(UsageError, match="before runs noted the versions"):
        find(out)


def test_changed_versions_are_named(out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    record["detectors"]["detectors"]["quality"] |= {"version": "0", "hash": "other"}
    rewrite(out, detectors=record["detectors"])
    found = find(out)
    assert list(found.changes.again) == ["quality"]
    assert found.changes.again["quality"][0] == "0"
    assert found.changes.scored == ("quality", "pdq")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"votes_of": "/other"}, "is a rejudge, whose votes lie in /other"),
        ({"state": "partial"}, "its run is not done"),
        ({"extensions": ["../x"]}, "are not ids of runs"),
        ({"extensions": ["0" * 16]}, "its plan or its run.json is gone"),
        ({"detectors": {"decoding": "0", "detectors": {}}}, "decoded by version 0"),
        ({"detectors": {"detectors": 3}}, "`detectors` is not readable"),
    ],
)
def test_other_runs_are_refused_by_what_they_are(out: Path, changes: dict[str, Any], words: str) -> None:
    rewrite(out, **changes)
    with pytest.raises(UsageError, match=words):
        find(out, "quality")


@pytest.mark.parametrize(
    ("identity", "words"), [({"night": "n"}, "is one night"), ({"limit": 5}, "limit was 5, is None now")]
)
def test_other_settings_are_refused(out: Path, identity: dict[str, Any], words: str) -> None:
    record = json.loads((out / "run.json").read_text())
    rewrite(out, identity={**record["identity"], **identity})
    with pytest.raises(UsageError, match=words):
        find(out)


def test_a_run_without_all_receipts_is_refused(out: Path) -> None:
    storage.delete_tree(f"{out}/receipts")
    with pytest.raises(UsageError, match="1 of 1 shards have no readable receipt"):
        find(out)


def test_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match=r"no run\.json"):
        find(tmp_path / "out")


def test_a_backfill_of_a_larger_stack_is_told_of_extend(out: Path) -> None:
    config = config_of(out.parent, "quality", "pdq")
    run = prepare_run(str(out.parent / "in"), str(out), config)
    with pytest.raises(UsageError, match="or --extend to score only"):
        check_owner(run)
    rewrite(out, extending="0" * 16)
    with pytest.raises(UsageError, match="has not come to its end"):
        check_owner(run)


@pytest.mark.parametrize("state", ["running", "partial"])
def test_a_larger_stack_over_a_run_that_is_not_done_is_told_how_to_finish_it(out: Path, state: str) -> None:
    before = config_of(out.parent, "quality")
    keep_inputs(str(out), prepare_run(str(out.parent / "in"), str(out), before).policy, before)
    kept = f"{out}/decided_by/{hashlib.sha256(POLICY.encode()).hexdigest()}.yaml"
    rewrite(out, state=state)
    config = config_of(out.parent, "quality", "pdq", policy=POLICY.replace("0.9", "0.8"))
    with pytest.raises(UsageError) as refused:
        check_owner(prepare_run(str(out.parent / "in"), str(out), config))
    message = str(refused.value)
    assert "--extend" not in message
    assert "name its detectors (--set stack.only=[quality], if they are as they were)" in message
    assert message.endswith(f"and its policy (--policy with a copy of {kept})")
    assert Path(kept).read_text() == POLICY


def test_the_task_is_the_same_after_its_journey(out: Path) -> None:
    found = find(out)
    run = extension_run(found, found.pending[0])
    task = ExtendingTask(
        config=run.config,
        policy=run.policy,
        facts=run.facts,
        run=ExtendedRun(out=str(out), format="parquet", extensions=("0" * 16,), home=run.out),
        changes=found.changes,
    )
    assert ExtendingTask.from_json(task.to_json()).to_json() == task.to_json()
    assert judging_task(run).to_json() != task.to_json()


HALVES = (Slice(index=1, count=2), Slice(index=2, count=2))


def commit(to: str, shard_id: str, *parts: str, **counts: int) -> None:
    commit_parts(
        to, shard_id, items=1, parts=dict.fromkeys(parts, b""), rows=dict.fromkeys(parts, 1), format_="parquet",
        facts={"counts": counts}, counted=parts[0],
    )  # fmt: skip


def shard_of(half: Slice) -> Shard:
    """A shard of one item that belongs to this slice."""
    names = (str(number) for number in itertools.count())
    shards = (make_shard([Item(item_id=n, uri=n, objects=(MediaObject(uri=n, name="a.png"),))]) for n in names)
    return next(shard for shard in shards if half.holds(shard.shard_id))


@pytest.fixture
def halves(out: Path) -> tuple[Shard, Shard]:
    """The shards of the run, one in each slice."""
    shards = shard_of(HALVES[0]), shard_of(HALVES[1])
    storage.publish(plan_uri(str(out)), encode_shards(shards))
    for shard in shards:
        commit(str(out), shard.shard_id, "verdicts", "votes")
    return shards


def begin_first_half(out: Path) -> str:
    """An extension whose first slice has begun; returns its folder."""
    found = find(out)
    run = extension_run(found, found.pending[0], HALVES[0])
    write_record(run, "running")
    return run.out


def extend_first_half(out: Path, *detectors: str, policy: str = POLICY) -> RunOutcome:
    config = config_of(out.parent, *detectors, policy=policy)
    return extend(str(out.parent / "in"), str(out), config, part=HALVES[0])


def test_a_slice_leaves_what_others_have_scored(out: Path, halves: tuple[Shard, Shard]) -> None:
    own, other = (shard.shard_id for shard in halves)
    home = begin_first_half(out)
    commit(home, own, "items", "votes", **{"status:ok": 1})
    commit(home, other, "items", "votes", **{"status:error": 1, "error:fetch_failed": 1})
    assert extend_first_half(out, "quality", "pdq").nothing_left
    assert readable_ids(home) == {own, other}


def test_a_slice_leaves_verdicts_that_are_being_put_in_place(out: Path, halves: tuple[Shard, Shard]) -> None:
    rewrite(out, extending="0" * 16)
    commit(begin_first_half(out), halves[0].shard_id, "items", "votes", **{"status:ok": 1})
    assert extend_first_half(out, "quality", "pdq").nothing_left


def test_a_slice_with_nothing_to_score_does_not_judge(out: Path, halves: tuple[Shard, Shard]) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="nothing is left to score; the command without --slice judges"):
        extend_first_half(out, "quality", policy=POLICY.replace("0.9", "0.5"))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_what_another_job_did_while_it_was_waited_for_is_not_done_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(out.parent, "quality", policy=POLICY.replace("0.9", "0.5"))
    source = str(out.parent / "in")
    assert not read_extendable(source, str(out), config, None).nothing_left

    @contextmanager
    def wait(*_: object, **__: object) -> Iterator[None]:
        write_record(prepare_run(source, str(out), config), "done")
        yield

    monkeypatch.setattr(extend_module, "occupy", wait)
    assert extend(source, str(out), config).nothing_left
