"""`moderation nightly` as a process: night after night over a folder and a manifest. Small stack, real Ray."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from moderation.policy.certified import Certificate, CertificateSet, certified_hash
from moderation.policy.model import load_policy
from moderation.results.certificates import certificates_path, write_certificates
from moderation.storage.lease import LeaseClaim, read_claims
from tests.job_runs import POLICY, JobProcess, job_env, make_pictures, make_tiny_config, run_job, summary, verdicts

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_config(tmp_path_factory.mktemp("config"))


def night(folder: Path, config: Path, *options: object, source: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_job(*arguments(folder, config, *options, source=source))


def arguments(folder: Path, config: Path, *options: object, source: Path | None = None) -> list[object]:
    places = ["--ledger", folder / "ledger", "--out", folder / "out", "--config", config]
    return ["nightly", source or folder / "in", *places, *options]


def nights(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "out").iterdir() if path.is_dir())


def names(out: Path) -> list[str]:
    return [uri.rsplit("/", 1)[-1] for uri in verdicts(out)["uri"].to_pylist()]


def touch(path: Path) -> None:
    """A change of the time alone."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


def test_nights_judge_what_is_new_or_changed_and_mark_what_has_gone(tmp_path: Path, config: Path) -> None:
    pictures = make_pictures(tmp_path / "in", 12, {3: (255, 0, 0)})
    first = night(tmp_path, config)
    assert first.returncode == 0, first.stderr
    assert "looked at 12 objects: 12 new" in first.stdout
    (one,) = nights(tmp_path)
    assert len(names(one)) == 12
    assert {p.name for p in one.iterdir()} == {
        "plan.parquet",
        "run.json",
        "decided_by",
        "verdicts",
        "votes",
        "receipts",
        "summary.json",
        "report.html",
        "_SUCCESS",
        "night",
    }

    quiet = night(tmp_path, config)
    assert quiet.returncode == 0, quiet.stderr
    assert "looked at 12 objects: 0 new, 12 unchanged" in quiet.stdout
    assert "nothing was judged" in quiet.stdout
    assert nights(tmp_path) == [one]  # a quiet night leaves a line
    (line,) = (tmp_path / "out" / "quiet.jsonl").read_text().splitlines()
    assert json.loads(line)["unchanged"] == 12
    assert "worker ready" not in quiet.stderr  # Ray was not even started

    touch(pictures / "0001.png")
    (pictures / "0002.png").unlink()
    make_pictures(tmp_path / "more", 2)
    shutil.copy(tmp_path / "more" / "0001.png", pictures / "new.png")
    third = night(tmp_path, config)
    assert third.returncode == 0, third.stderr
    assert "looked at 12 objects: 1 new, 1 changed, 10 unchanged, 1 deleted" in third.stdout
    assert names(nights(tmp_path)[1]) == ["0001.png", "new.png"]
    assert summary(nights(tmp_path)[1])["nightly"]["deleted"] == 1
    told = run_job("status", tmp_path / "out")
    assert "quiet" in told.stdout
    assert "nothing to do: the newest night is done" in told.stdout
    assert "nothing to do" in run_job("status", tmp_path / "ledger").stdout


def test_a_killed_night_is_gone_on_with_and_the_ledger_knows_only_finished_ones(tmp_path: Path) -> None:
    slow = make_tiny_config(tmp_path / "config", slow_s=0.1)
    make_pictures(tmp_path / "in", 60)
    with JobProcess(*arguments(tmp_path, slow, "--lease-s", "12"), env=job_env()) as job:
        deadline = time.monotonic() + 240
        while job.poll() is None and time.monotonic() < deadline:
            if list((tmp_path / "out").glob("*/receipts/*.json")):
                break
            time.sleep(0.02)
        job.kill()
        assert job.wait() == -signal.SIGKILL
    (unfinished,) = nights(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in (unfinished / "receipts").glob("*.json")}
    assert not list((tmp_path / "ledger").glob("entries/*.json"))
    make_pictures(tmp_path / "late", 1)
    shutil.copy(tmp_path / "late" / "0000.png", tmp_path / "in" / "late.png")
    while any(claim.expires > time.time() for claim in read_claims(str(tmp_path / "ledger"))):
        time.sleep(0.1)  # the dead one's lease ends by itself

    ended = night(tmp_path, slow)
    assert ended.returncode == 0, ended.stderr
    resumed, tonight = nights(tmp_path)
    assert resumed == unfinished
    after = {p.name: p.stat().st_mtime_ns for p in (resumed / "receipts").glob("*.json")}
    assert before.items() <= after.items()
    assert len(names(resumed)) == 60
    # What had come since the plan was made is judged by the same call.
    assert names(tonight) == ["late.png"]
    assert [p.stem for p in sorted((tmp_path / "ledger" / "entries").glob("*.json"))] == [resumed.name, tonight.name]


def test_the_second_nightly_leaves_with_the_name_of_the_first(tmp_path: Path, config: Path) -> None:
    make_pictures(tmp_path / "in", 1)
    now = time.time()
    held = LeaseClaim(token="x", host=socket.gethostname(), pid=4711, started=now, expires=now + 600, holding=True)
    (tmp_path / "ledger" / "lease").mkdir(parents=True)
    (tmp_path / "ledger" / "lease" / "x.json").write_text(json.dumps(asdict(held)))
    ended = night(tmp_path, config)
    assert ended.returncode == 4
    assert f"another nightly job holds the lease: process 4711 on {socket.gethostname()}" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_another_policy_is_said_and_rejudged_on_demand(tmp_path: Path, config: Path) -> None:
    make_pictures(tmp_path / "in", 3, {1: (180, 10, 10)})
    assert night(tmp_path, config).returncode == 0
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY.replace("block: 0.95", "block: 0.65"))
    told = night(tmp_path, config, "--policy", strict)
    assert told.returncode == 0, told.stderr
    assert "3 known objects were judged by another stack or policy" in told.stdout
    assert json.loads((tmp_path / "out" / "quiet.jsonl").read_text())["older"] == 3
    again = night(tmp_path, config, "--policy", strict, "--rejudge-older")
    assert again.returncode == 0, again.stderr
    assert "3 rejudged" in again.stdout
    assert verdicts(nights(tmp_path)[1])["verdict"].to_pylist() == ["pass", "block", "pass"]


def test_one_content_under_two_names_of_a_manifest_is_judged_once_where_its_author_is_trusted(
    tmp_path: Path, config: Path
) -> None:
    pictures = make_pictures(tmp_path / "in", 3, {1: (180, 10, 10)})
    shutil.copy(pictures / "0001.png", pictures / "copy.png")
    manifest = tmp_path / "in" / "tonight.csv"

    def write(*listed: str) -> None:
        hashes = {name: hashlib.sha256((pictures / name).read_bytes()).hexdigest() for name in listed}
        manifest.write_text("uri,content_hash\n" + "".join(f"{name},{found}\n" for name, found in hashes.items()))

    write("0000.png", "0001.png", "copy.png")
    doubted = night(tmp_path / "doubted", config, source=manifest)
    assert "3 new" in doubted.stdout
    assert "took over" not in doubted.stdout
    first = night(tmp_path, config, "--inherit-copies", source=manifest)
    assert first.returncode == 0, first.stderr
    assert "1 of them took over the verdict" in first.stdout
    rows = verdicts(nights(tmp_path)[0]).to_pylist()
    by_name = {row["uri"].rsplit("/", 1)[-1]: row for row in rows}
    assert by_name["copy.png"]["verdict"] == by_name["0001.png"]["verdict"] == "review"
    assert by_name["copy.png"]["reason"] == f"same_content:{by_name['0001.png']['item_id']}"
    assert summary(nights(tmp_path)[0])["items"] == 3

    # A later night takes it over from an earlier one, and needs no cluster for that.
    shutil.copy(pictures / "0001.png", pictures / "third.png")
    write("0000.png", "0001.png", "copy.png", "third.png")
    second = night(tmp_path, config, "--inherit-copies", source=manifest)
    assert second.returncode == 0, second.stderr
    assert names(nights(tmp_path)[1]) == ["third.png"]
    assert summary(nights(tmp_path)[1])["verdicts"]["review"] == 1
    assert summary(nights(tmp_path)[1])["workers"] == []


@pytest.mark.parametrize("place", ["--ledger", "--out"])
def test_a_ledger_or_output_below_the_source_is_refused(tmp_path: Path, config: Path, place: str) -> None:
    make_pictures(tmp_path / "in", 1)
    ended = night(tmp_path, config, place, tmp_path / "in" / "deep")
    assert ended.returncode == 2
    assert f"{tmp_path}/in/deep lies in SOURCE" in ended.stderr


def test_a_partial_night_is_finished_by_the_next_call(tmp_path: Path, config: Path) -> None:
    make_pictures(tmp_path / "in", 40)
    early = night(tmp_path, config, "--max-items", "1", "--set", "runtime.shards_in_flight=1", "--workers", "1")
    (one,) = nights(tmp_path)
    partial = summary(one)["state"] == "partial"  # all forty may have been in flight already
    assert early.returncode == (5 if partial else 0), early.stderr
    if partial:
        assert "ended early" in early.stdout
        assert not (one / "_SUCCESS").exists()
        assert not list((tmp_path / "ledger").glob("entries/*.json"))
    rest = night(tmp_path, config, "--set", "runtime.shards_in_flight=1", "--workers", "1")
    assert rest.returncode == 0, rest.stderr
    assert nights(tmp_path)[0] == one
    assert len(names(one)) == 40
    assert (one / "_SUCCESS").exists()


def test_new_labels_end_a_certificate_and_the_next_night_reviews_what_it_covered(
    tmp_path: Path,
) -> None:
    audited = POLICY + "audit: {salt: s, block: {check: reddish, rate: 1.0, from: 0.6}}\nrequire_certificate: true\n"
    own = make_tiny_config(tmp_path / "config")
    (own.parent / "policy.yaml").write_text(audited)
    labels = tmp_path / "labels.csv"
    options = ["--set", f"monitor.labels={labels}"]
    make_pictures(tmp_path / "in", 40, {n: (250 + n % 5, n // 5, 0) for n in range(40)})
    uncertified = night(tmp_path, own, *options)
    assert "warning: not certified: block:reddish, pass:default (there is no certificate)" in uncertified.stderr
    (first,) = nights(tmp_path)
    assert set(verdicts(first)["verdict"].to_pylist()) == {"review"}

    policy = load_policy(own.parent / "policy.yaml")
    certificate = Certificate(
        side="block", check="reddish", threshold=0.95, allowed=0.01, risk=0.025, labels=600, errors=0, bound=0.009,
        method="binomial",
    )  # fmt: skip
    today = datetime.now(UTC).date()
    held = CertificateSet(
        policy=certified_hash(policy),
        stack_fingerprint=summary(first)["stack_fingerprint"],
        salt_sha256="0" * 64,
        rates={"block:reddish": 1.0},
        issued=today,
        expires=today + timedelta(days=9),
        labels_sha256="1" * 64,
        rule="",
        agreement=None,
        certificates=(certificate,),
    )
    write_certificates(certificates_path(str(own.parent / "policy.yaml")), held)
    make_pictures(tmp_path / "two", 40, {n: (250 + n % 5, n // 5, 1) for n in range(40)})
    second_run = night(tmp_path, own, *options, source=tmp_path / "two")
    assert second_run.returncode == 0, second_run.stderr
    second = next(p for p in nights(tmp_path) if p != first and p.name != "monitor")
    assert set(verdicts(second)["verdict"].to_pylist()) == {"block"}

    rows = [f"{i},ok,audit,{r}" for i in verdicts(second)["item_id"].to_pylist() for r in "ab"]
    labels.write_text("\n".join(["item_id,label,source,reviewer", *rows]))
    make_pictures(tmp_path / "three", 3, {n: (250 + n, 0, 2) for n in range(3)})
    last_run = night(tmp_path, own, *options, source=tmp_path / "three")
    last = next(p for p in nights(tmp_path) if p not in (first, second) and p.name != "monitor")
    assert set(verdicts(last)["verdict"].to_pylist()) == {"review"}
    monitoring = summary(last)["monitoring"]
    assert monitoring["certificates"][0]["labels"] == 40
    assert "certificate ended: block:reddish: the monitor ended it: 40 of 40" in monitoring["reasons"][0]
    assert "certificate_ended" in last_run.stderr
    assert "the monitor ended it" in (last / "report.html").read_text()
