"""A run before it starts: lists are read then, travel with the task, and end by the day on which the run began."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moderation.config.load import load_config
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.pipeline.items import moderate_items
from moderation.policy.bind import bind
from moderation.results.record import write_record
from moderation.runtime.backfill import judging_task
from moderation.runtime.judging_task import JudgingTask
from moderation.runtime.night_run import NightRun
from moderation.runtime.nightly import _run_of
from moderation.runtime.prepare import prepare_run
from moderation.types import Item, MediaObject
from tests.fake_detectors import Fake, png, pools_of, stack_of

POLICY = """
checks: {explicit: {side: negative, votes: [open_nsfw.nsfw], block: 0.9}}
lists: {friends: {action: allow, by: owner, from: friends.csv}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "friends.csv").write_text("value,until\nann,2999-12-31\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    return load_config(None, [f"policy={tmp_path / 'policy.yaml'}"])


def test_a_run_that_goes_on_the_next_day_keeps_its_day(tmp_path: Path, config: Config) -> None:
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    today = datetime.now(UTC).date().isoformat()
    run = prepare_run(source, out, config)
    assert run.facts.as_of in (today, datetime.now(UTC).date().isoformat())
    write_record(run, "running")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "as_of": "2026-01-31"}))
    again = prepare_run(source, out, config)
    assert again.facts.as_of == "2026-01-31"
    assert (again.identity, again.facts.run_id) == (run.identity, run.facts.run_id)
    assert again.facts.metadata()["as_of"] == "2026-01-31"
    assert prepare_run(source, out, config, fresh=True).facts.as_of != "2026-01-31"


def test_a_policy_without_ends_has_no_day_and_the_record_stays_as_it_was(tmp_path: Path, config: Config) -> None:
    (tmp_path / "friends.csv").write_text("value\nann\n")
    run = prepare_run(str(tmp_path / "in"), str(tmp_path / "out"), config)
    write_record(run, "running")
    assert run.facts.as_of is None
    assert "as_of" not in run.facts.metadata()
    assert "as_of" not in json.loads((tmp_path / "out" / "run.json").read_text())


def test_a_day_that_is_none_is_said(tmp_path: Path, config: Config) -> None:
    run = prepare_run(str(tmp_path / "in"), str(tmp_path / "out"), config)
    write_record(run, "running")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "as_of": "yesterday"}))
    with pytest.raises(UsageError, match="`as_of` is not a date"):
        prepare_run(str(tmp_path / "in"), str(tmp_path / "out"), config)


def test_a_night_ends_lists_by_its_own_day(tmp_path: Path, config: Config) -> None:
    base = prepare_run(str(tmp_path / "in"), str(tmp_path / "out"), config)
    night = NightRun(night_id="20260131-235900-0", resumed=True)
    assert _run_of(base, "ledger", night).facts.as_of == "2026-01-31"


def test_the_entries_travel_with_the_task_and_the_file_is_not_needed_any_more(tmp_path: Path, config: Config) -> None:
    task = judging_task(prepare_run(str(tmp_path / "in"), str(tmp_path / "out"), config))
    (tmp_path / "friends.csv").unlink()
    copy = JudgingTask.from_json(task.to_json())
    assert copy.to_json() == task.to_json()
    assert copy._rules.lists["friends"].entries == task._rules.lists["friends"].entries
    assert copy._facts == task._facts


def test_the_pipeline_tells_the_policy_what_is_known_of_an_item(tmp_path: Path) -> None:
    picture = png(0, 255)
    sha = hashlib.sha256(picture).hexdigest()
    (tmp_path / "policy.yaml").write_text(
        f"""
checks:
  hot: {{side: negative, votes: [fake.red], block: 0.9}}
  calm: {{side: positive, votes: [fake.green], pass: 0.5}}
lists:
  files: {{action: deny, by: content_hash, entries: ["{sha}"], verdict: review}}
  people: {{action: deny, by: owner, entries: [{{value: ann, until: 2026-11-26}}]}}
"""
    )
    stack, pools = stack_of(Fake()), pools_of(1)
    given = {"ours": png(0, 254), "known": picture, "hers": png(0, 254)}
    items = [
        Item(item_id=n, uri=n, objects=(MediaObject(uri=n, name=f"{n}.png"),), attributes={"owner": o})
        for n, o in zip(given, ("bob", "bob", "ann"), strict=True)
    ]
    policy = load_whole_policy(tmp_path / "policy.yaml")
    for day, hers in ((26, "list:people:block"), (27, "positive:calm:pass")):
        bound = bind(policy, stack.labels, as_of=datetime(2026, 11, day).date())
        rows = moderate_items(
            items, config=Config(), stack=stack, policy=bound, pools=pools, fetch=lambda item: [given[item.item_id]]
        )
        reasons = {row.item.item_id: row.judgement.reason for row in rows if row.judgement}
        assert reasons == {"ours": "positive:calm:pass", "known": "list:files:review", "hers": hers}
    pools.fetch.shutdown()
    pools.decode.shutdown()
