"""Status: how far a run is, from plan, states and receipts alone, while it is listed, judged, stuck or done."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from moderation import storage
from moderation.config.model import Config, ShardConfig
from moderation.errors import UsageError
from moderation.planning.plan import plan_shards
from moderation.planning.slices import Slice, slice_home
from moderation.results.layout import extension_home, newest_extension_uri
from moderation.results.occupancy import occupy
from moderation.results.receipts import Receipt
from moderation.results.status import STUCK_S, RunStatus, read_status
from moderation.storage.claims import read_claims
from moderation.storage.lease import hold_lease
from moderation.types import Shard

CONFIG = Config(shards=ShardConfig(max_items=2))
BEGAN_S = 1_700_000_000.0  # 2023-11-14T22:13:20+00:00


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://status-{tmp_path.name}"


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:03d}.jpg").write_bytes(b"x")
    return str(folder)


def say(home: str, state: str, **facts: object) -> None:
    record = {"run_id": "r1", "state": state, "updated_at": "2023-11-14T22:13:20+00:00", **facts}
    storage.publish(storage.join(home, "run.json"), json.dumps(record).encode())


def commit(out: str, shard: Shard, at_s: float) -> None:
    """A receipt, ten seconds of work each."""
    receipt = Receipt(
        shard_id=shard.shard_id,
        rows_in=len(shard.items),
        rows={"verdicts": len(shard.items)},
        sha256={},
        counts={"verdict:pass": 1, "verdict:review": 1, "error:corrupt": 1},
        committed_at=at_s,
    )
    storage.publish(storage.join(out, "receipts", f"{shard.shard_id}.json"), json.dumps(asdict(receipt)).encode())


def status_at(out: str, seconds: float, max_read: int = 100) -> RunStatus:
    return read_status(out, now_s=BEGAN_S + seconds, max_read=max_read)


def test_where_no_run_is_it_says_so(out: str) -> None:
    with pytest.raises(UsageError, match="no run there"):
        status_at(out, 0)


def test_rows_that_were_copied_are_counted_apart(source: str, out: str) -> None:
    say(out, "running")
    first, *_ = plan_shards(source, out, CONFIG)
    commit(out, first, BEGAN_S + 10)
    commit(out, replace(first, shard_id="f" * len(first.shard_id)), BEGAN_S + 11)
    found = status_at(out, 50)
    assert (found.items_done, found.items_copied, found.shards_done) == (2, 2, 1)
    assert found.verdicts == {"pass": 1, "review": 1}


def test_half_way_it_tells_rate_time_left_and_what_was_found(source: str, out: str) -> None:
    say(out, "running")
    for n, shard in enumerate(list(plan_shards(source, out, CONFIG))[:5]):
        commit(out, shard, BEGAN_S + 10 * (n + 1))
    found = status_at(out, 50)
    assert (found.state, found.run_id) == ("running", "r1")
    assert (found.shards_done, found.shards_total, found.items_done, found.items_total) == (5, 10, 10, 20)
    assert found.items_per_s == pytest.approx(0.2)
    assert found.left_s == pytest.approx(50)
    assert found.last_receipt_age_s == 0
    assert found.verdicts == {"pass": 5, "review": 5}
    assert found.errors == {"corrupt": 5}
    assert found.exact and not found.seems_stuck


def test_while_the_listing_goes_on_totals_are_not_known(source: str, out: str) -> None:
    say(out, "running")
    shards = plan_shards(source, out, CONFIG)
    first = [next(shards) for _ in range(3)]
    commit(out, first[0], BEGAN_S + 5)
    found = status_at(out, 10)
    assert (found.items_total, found.shards_total, found.left_s) == (None, None, None)
    assert (found.shards_done, found.items_done) == (1, 2)
    (part,) = found.parts
    assert (part.listing_ended, part.shards) == (False, 3)


def test_before_the_first_receipt_nothing_is_made_up(source: str, out: str) -> None:
    say(out, "running")
    list(plan_shards(source, out, CONFIG))
    found = status_at(out, 60)
    assert (found.items_done, found.items_per_s, found.left_s, found.last_receipt_age_s) == (0, None, None, None)
    assert (found.verdicts, found.errors, found.seems_stuck) == ({}, {}, False)


def test_a_run_that_commits_nothing_any_more_shows(source: str, out: str) -> None:
    say(out, "running")
    for shard in list(plan_shards(source, out, CONFIG))[:5]:
        commit(out, shard, BEGAN_S + 10)
    found = status_at(out, 10 + STUCK_S + 1)
    assert found.seems_stuck
    assert found.last_receipt_age_s == STUCK_S + 1
    assert found.items_per_s is not None and found.items_per_s < 0.02  # the silence counts
    say(out, "partial")
    assert not status_at(out, 10 + STUCK_S + 1).seems_stuck


def test_a_pause_between_two_calls_is_no_part_of_the_rate(source: str, out: str) -> None:
    shards = list(plan_shards(source, out, CONFIG))
    commit(out, shards[0], BEGAN_S - 86_400)
    say(out, "running")
    for n, shard in enumerate(shards[1:5]):
        commit(out, shard, BEGAN_S + n + 1)
    assert status_at(out, 4).items_per_s == pytest.approx(2.0)


def test_a_failed_run_gives_its_reason_and_no_time_left(source: str, out: str) -> None:
    say(out, "failed", error="the output is not writable")
    first, *_ = plan_shards(source, out, CONFIG)
    commit(out, first, BEGAN_S + 1)
    found = status_at(out, 100)
    assert (found.state, found.left_s) == ("failed", None)
    assert found.parts[0].error == "the output is not writable"


def test_slices_add_up_and_those_not_begun_are_named(source: str, out: str) -> None:
    planned = {}
    for index, state in ((1, "done"), (3, "running")):
        part = Slice(index=index, count=3)
        home = slice_home(out, part)
        planned[index] = list(plan_shards(source, home, CONFIG, slice_=part))
        say(home, state)
    for shard in planned[1]:
        commit(out, shard, BEGAN_S + 1)
    found = status_at(out, 2)
    assert [(p.slice, p.state, p.shards_done, p.shards) for p in found.parts] == [
        ("1/3", "done", len(planned[1]), len(planned[1])),
        ("3/3", "running", 0, len(planned[3])),
    ]
    assert found.slices_missing == ("2/3",)
    assert (found.state, found.merged) == ("running", False)
    assert (found.shards_total, found.items_total) == (10, 20)  # one listing sees the whole source
    assert found.shards_done == len(planned[1])


def test_of_many_receipts_a_sample_is_read_and_scaled(source: str, out: str) -> None:
    say(out, "running")
    for n, shard in enumerate(plan_shards(source, out, CONFIG)):
        commit(out, shard, BEGAN_S + 10 * (n + 1))
    found = status_at(out, 100, max_read=5)
    assert (found.exact, found.receipts_read) == (False, 5)
    assert found.verdicts == {"pass": 10, "review": 10}
    assert (found.shards_done, found.items_done) == (10, 20)  # exact all the same
    assert found.items_per_s == pytest.approx(0.2, rel=0.5)


def test_reading_the_status_writes_nothing(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    say(str(out), "running")
    shards = plan_shards(source, str(out), CONFIG)
    next(shards)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    status_at(str(out), 1)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


@pytest.mark.parametrize("where", ["out", "slice", "night", "extension"])
def test_a_run_whose_job_died_is_told_at_once_from_one_at_work(tmp_path: Path, where: str) -> None:
    root = str(tmp_path)
    homes = {"slice": slice_home(root, Slice(index=1, count=2)), "extension": extension_home(root, "a" * 16)}
    ledger = str(tmp_path / "ledger")
    say(homes.get(where, root), "running", identity={"ledger": ledger} if where == "night" else {})
    if where == "extension":
        say(root, "done")
        storage.publish(newest_extension_uri(root), b'{"extension": "' + b"a" * 16 + b'"}')

    def told() -> RunStatus:
        found = status_at(root, 5 * 60)
        return found if where != "extension" or found.extension is None else found.extension

    assert (told().job, told().seems_dead) == (None, True)
    part = Slice(index=1, count=2) if where == "slice" else None
    with hold_lease(ledger) if where == "night" else occupy(root, part):
        assert not told().seems_dead
        assert (told().job or "").startswith(f"process {os.getpid()} on")
    say(homes.get(where, root), "done")
    assert (told().job, told().seems_dead) == (None, False)


def leave_claim(out: str, **facts: object) -> None:
    with occupy(out):
        (claim,) = read_claims(out)
    left = asdict(claim) | {"token": "x", **facts}
    storage.publish(storage.join(out, "lease", "x.json"), json.dumps(left).encode())


def test_what_was_committed_just_now_tells_more_than_a_lease_that_ended(source: str, out: str) -> None:
    say(out, "running")
    commit(out, next(iter(plan_shards(source, out, CONFIG))), BEGAN_S + 280)
    leave_claim(out, process="another-boot/pid:[1]/77", expires=BEGAN_S)
    assert not status_at(out, 300).seems_dead
    assert status_at(out, 600).seems_dead


def test_a_job_that_is_seen_to_be_gone_or_has_left_no_claim_is_told_sooner(source: str, out: str) -> None:
    say(out, "running")
    commit(out, next(iter(plan_shards(source, out, CONFIG))), BEGAN_S + 280)
    assert not status_at(out, 285).seems_dead
    assert status_at(out, 300).seems_dead  # it gave the lease up, and could not say that it failed (a full disk)
    leave_claim(out, pid=1)
    assert status_at(out, 281).seems_dead


def test_a_rejudge_has_no_lease_to_be_missed(out: str) -> None:
    say(out, "running", votes_of="elsewhere")
    assert not status_at(out, 600).seems_dead
