"""One holder at a time; the second is told who and until when; a dead one's lease ends; a lost one is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from threading import Timer

import pytest

from moderation import storage
from moderation.errors import FatalError
from moderation.storage.lease import LEASE_S, Lease, LeaseClaim, LeaseHeldError, hold_lease, read_claims


@pytest.fixture(params=["local", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "ledger") if request.param == "local" else f"memory://lease-{tmp_path.name}"


def put(ledger: str, *, expires_in_s: float, holding: bool = True) -> LeaseClaim:
    now = time.time()
    claim = LeaseClaim(
        token="other", host="night-host", pid=4711, started=now - 60, expires=now + expires_in_s, holding=holding
    )
    storage.publish(storage.join(ledger, "lease", "other.json"), json.dumps(asdict(claim)).encode())
    return claim


def test_the_second_one_is_told_who_holds_it_and_until_when(ledger: str) -> None:
    held = put(ledger, expires_in_s=100)
    words = r"process 4711 on night-host, since .* UTC, until .* UTC \(ends in \d+ s"
    with pytest.raises(LeaseHeldError, match=words), hold_lease(ledger):
        pass
    assert read_claims(ledger) == [held]


def test_a_lease_that_has_ended_is_taken(ledger: str) -> None:
    put(ledger, expires_in_s=-1)
    with hold_lease(ledger) as lease:
        lease.check()
        (claim,) = read_claims(ledger)
        assert claim.token != "other"
        assert claim.holding


def test_the_lease_of_a_job_that_died_on_another_host_holds_until_it_ends(ledger: str) -> None:
    # Nobody here can tell that its process is gone: not by its number, which no process of this machine has.
    dead = replace(put(ledger, expires_in_s=1.5), pid=2**22 + 1, process="another-boot/pid:[1]/77")
    storage.publish(storage.join(ledger, "lease", "other.json"), json.dumps(asdict(dead)).encode())
    with pytest.raises(LeaseHeldError, match=r"ends in [12] s unless it is renewed"), hold_lease(ledger):
        pass
    time.sleep(max(0.0, dead.expires - time.time()) + 0.01)
    with hold_lease(ledger) as lease:
        lease.check()
        assert [claim.token for claim in read_claims(ledger)] != ["other"]


def test_who_waits_gets_the_lease_of_a_dead_job_once_it_ends(ledger: str, caplog: pytest.LogCaptureFixture) -> None:
    dead = replace(put(ledger, expires_in_s=0.4), process="another-boot/pid:[1]/77")
    storage.publish(storage.join(ledger, "lease", "other.json"), json.dumps(asdict(dead)).encode())
    with hold_lease(ledger, wait=True) as lease:
        assert time.time() >= dead.expires
        lease.check()
    assert "waiting for at most" in caplog.text


def test_who_waits_is_refused_once_the_holder_renews(ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.storage.lease._POLL_S", 0.05)
    alive = put(ledger, expires_in_s=30)
    renewed = replace(alive, expires=alive.expires + 30)
    later = json.dumps(asdict(renewed)).encode()
    renewal = Timer(0.2, lambda: storage.publish(storage.join(ledger, "lease", "other.json"), later))
    renewal.start()
    with pytest.raises(LeaseHeldError, match="holds the lease"), hold_lease(ledger, wait=True):
        pass
    renewal.join()
    assert time.time() < alive.expires
    assert [claim.token for claim in read_claims(ledger)] == ["other"]


def test_nobody_waits_for_a_job_of_this_machine_or_for_a_long_lease(
    ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderation.storage.lease.time.sleep", pytest.fail)
    put(ledger, expires_in_s=600)
    with pytest.raises(LeaseHeldError), hold_lease(ledger, wait=True):
        pass
    storage.delete_tree(storage.join(ledger, "lease", "other.json"))
    with hold_lease(ledger), pytest.raises(LeaseHeldError), hold_lease(ledger, wait=True):
        pass


def test_nobody_is_kept_waiting_longer_than_the_lease_after_the_last_renewal(ledger: str) -> None:
    with hold_lease(ledger):
        (claim,) = read_claims(ledger)
        assert 0 < claim.expires - time.time() <= LEASE_S


def test_a_job_that_is_refused_leaves_no_folder_where_none_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), hold_lease(str(tmp_path / "new")):
        raise ValueError
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with hold_lease(str(tmp_path / "mine")):
        pass
    assert (tmp_path / "mine").is_dir()


def test_two_that_are_only_starting_both_give_way(ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.storage.lease._WAIT_S", 0.001)
    other = put(ledger, expires_in_s=100, holding=False)
    with pytest.raises(LeaseHeldError, match="other nightly jobs are starting"), hold_lease(ledger):
        pass
    assert read_claims(ledger) == [other]


def test_a_released_lease_leaves_nothing_behind(ledger: str) -> None:
    with hold_lease(ledger):
        assert len(read_claims(ledger)) == 1
    assert read_claims(ledger) == []


def test_a_lease_is_released_when_the_work_fails(ledger: str) -> None:
    with pytest.raises(ZeroDivisionError), hold_lease(ledger):
        raise ZeroDivisionError
    assert read_claims(ledger) == []


def test_what_is_not_a_claim_blocks_nobody(ledger: str) -> None:
    storage.publish(storage.join(ledger, "lease", "x.json"), b"{cut sho")
    storage.publish(storage.join(ledger, "lease", "y.json"), b'{"surprise": 1}')
    with hold_lease(ledger) as lease:
        lease.check()
        assert len(read_claims(ledger)) == 1


def test_a_held_lease_is_renewed(ledger: str) -> None:
    with hold_lease(ledger, 3.0) as lease:
        (first,) = now = read_claims(ledger)
        deadline = time.monotonic() + 30
        while now == [first] and time.monotonic() < deadline:
            time.sleep(0.05)
            now = read_claims(ledger)
        assert now[0].token == first.token
        assert now[0].expires > first.expires
        lease.check()


def test_a_holder_that_finds_another_notices_and_leaves_its_claim(ledger: str) -> None:
    lost = threading.Event()
    with hold_lease(ledger, 1.5, lost.set) as lease:
        other = put(ledger, expires_in_s=100)
        assert lost.wait(30)
        with pytest.raises(FatalError, match=r"was lost: "):
            lease.check()
    assert read_claims(ledger) == [other]


def test_a_holder_that_starved_goes_on_if_nobody_came(ledger: str) -> None:
    over = put(ledger, expires_in_s=-5)
    lost = threading.Event()
    lease = Lease(ledger, over, 1.5, lost.set)
    deadline = time.monotonic() + 30
    while read_claims(ledger) == [over] or not read_claims(ledger)[0].holding:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lease.check()
    assert not lost.is_set()
    lease.release()
    assert read_claims(ledger) == []


def test_a_holder_that_starved_gives_way_to_who_came(ledger: str) -> None:
    over = replace(put(ledger, expires_in_s=100, holding=False), token="mine", expires=time.time() - 5)
    lost = threading.Event()
    lease = Lease(ledger, over, 1.5, lost.set)
    assert lost.wait(30)
    with pytest.raises(FatalError, match="was lost: taken by process 4711"):
        lease.check()
    lease.release()
    assert [claim.token for claim in read_claims(ledger)] == ["other"]


def test_somebody_who_only_asks_does_not_cost_the_holder_its_lease(ledger: str) -> None:
    with hold_lease(ledger, 3.0) as lease:
        first = {c.token: c for c in read_claims(ledger)}
        put(ledger, expires_in_s=100, holding=False)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            mine = next(c for c in read_claims(ledger) if c.token in first)
            if mine != first[mine.token]:
                break
            time.sleep(0.05)
        time.sleep(0.3)  # the renewal writes, then looks at the others
        lease.check()
        assert mine.expires > first[mine.token].expires


def test_of_many_that_start_together_one_works_at_a_time(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    lock = threading.Lock()
    inside: set[int] = set()
    most: list[int] = []
    refused: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with hold_lease(ledger):
                with lock:
                    inside.add(number)
                    most.append(len(inside))
                time.sleep(0.2)
                with lock:
                    inside.remove(number)
        except LeaseHeldError as error:
            refused.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) + len(refused) == 6
    assert set(most) == {1}
    assert read_claims(ledger) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"started": "yesterday"},
        {"expires": "never"},
        {"expires": 1e300},
        {"expires": float("nan")},
        {"expires": 253402300800.0},
        {"pid": "4711"},
        {"holding": "yes"},
        {"host": None},
        {"token": "../../head"},
        {"token": ""},
    ],
)
def test_a_claim_of_strange_types_or_without_an_end_blocks_nobody(ledger: str, fields: dict[str, object]) -> None:
    claim = asdict(put(ledger, expires_in_s=100)) | fields
    storage.publish(storage.join(ledger, "lease", "other.json"), json.dumps(claim).encode())
    storage.publish(storage.join(ledger, "head.json"), b"{}")
    with hold_lease(ledger) as lease:
        lease.check()
    assert storage.read_optional(storage.join(ledger, "head.json")) == b"{}"


def test_fields_of_a_later_version_do_not_make_a_claim_void(ledger: str) -> None:
    claim = asdict(put(ledger, expires_in_s=100)) | {"queue": 3}
    storage.publish(storage.join(ledger, "lease", "other.json"), json.dumps(claim).encode())
    with pytest.raises(LeaseHeldError), hold_lease(ledger):
        pass


def test_the_lease_of_a_process_that_was_killed_is_over_at_once(tmp_path: Path) -> None:
    code = f"""
import time
from moderation.storage.lease import hold_lease
with hold_lease({str(tmp_path)!r}):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LeaseHeldError, match=f"process {process.pid} on"), hold_lease(str(tmp_path)):
            pass
        process.kill()
        process.wait()
    with hold_lease(str(tmp_path)) as lease:
        lease.check()
    assert read_claims(str(tmp_path)) == []
