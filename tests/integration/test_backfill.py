"""The job as a process: what it writes, how it ends, how it resumes and refuses. Small stack, real Ray."""

from __future__ import annotations

import json
import time
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from tests.job_runs import (
    JobProcess,
    by_name,
    job_env,
    log_lines,
    make_pictures,
    make_tiny_config,
    part_bytes,
    read_parts,
    run_job,
    summary,
    verdicts,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pictures(tmp_path_factory.mktemp("pictures"), 40, {3: (255, 0, 0), 7: (180, 10, 10)})
    (folder / "notes.txt").write_text("not media")
    (folder / "broken.jpg").write_text("a text that is called a picture")
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def done(pictures: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    ended = run_job("backfill", pictures, "--out", out, "--config", config)
    assert ended.returncode == 0, ended.stderr
    return out


def test_every_file_has_a_row_and_its_verdict(done: Path) -> None:
    rows = by_name(verdicts(done), ["status", "verdict", "error_code", "check"])
    assert len(rows) == 42
    assert rows["0003.png"] == ("ok", "block", None, "reddish")
    assert rows["0007.png"] == ("ok", "review", None, "reddish")
    assert rows["0000.png"][:3] == ("ok", "pass", None)
    assert rows["notes.txt"][:3] == ("skipped", None, "not_media")
    assert rows["broken.jpg"][:3] == ("error", "review", "unsupported_type")


def test_the_output_tree_is_that_of_the_design(done: Path) -> None:
    names = {p.name for p in done.iterdir()}
    assert names == {
        "plan.parquet",
        "run.json",
        "decided_by",
        "verdicts",
        "votes",
        "receipts",
        "summary.json",
        "report.html",
        "_SUCCESS",
    }
    assert {p.name for p in (done / "verdicts").iterdir()} == {p.name for p in (done / "votes").iterdir()}
    assert json.loads((done / "run.json").read_text())["state"] == "done"


def test_the_summary_adds_up_to_the_tables(done: Path) -> None:
    found = summary(done)
    table = verdicts(done)
    assert found["verdicts"] == {"block": 1, "pass": 38, "review": 2}
    assert found["items"] == table.num_rows == 42
    assert found["frames"] == read_parts(done, "votes").num_rows == 40
    assert set(found["seconds"]) >= {"fetch", "decode", "score", "judge", "write"}


def test_duckdb_reads_both_tables(done: Path) -> None:
    counts = duckdb.sql(f"SELECT verdict, count(*) FROM '{done}/verdicts/*.parquet' GROUP BY verdict").fetchall()
    assert dict(counts) == {"block": 1, "pass": 38, "review": 2, None: 1}
    ((reddest,),) = duckdb.sql(
        f"""SELECT v.uri FROM '{done}/votes/*.parquet' t JOIN '{done}/verdicts/*.parquet' v USING (item_id)
            ORDER BY t."tiny.red" DESC LIMIT 1"""
    ).fetchall()
    assert reddest.endswith("0003.png")


def test_nothing_left_says_so_and_reads_nothing(done: Path, pictures: Path, config: Path) -> None:
    before = part_bytes(done)
    ended = run_job("backfill", pictures, "--out", done, "--config", config)
    assert ended.returncode == 0
    assert "Nothing left" in ended.stdout
    assert part_bytes(done) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--set", "media.max_frames=3"], "media.max_frames was 64, is 3 now"),
        (["--limit", "5"], "limit was None, is 5 now"),
        (["--set", "output.format=arrow"], "output.format"),
    ],
)
def test_another_run_into_the_same_out_is_refused(
    done: Path, pictures: Path, config: Path, change: list[str], words: str
) -> None:
    ended = run_job("backfill", pictures, "--out", done, "--config", config, *change)
    assert ended.returncode == 2
    assert words in ended.stderr and "--fresh" in ended.stderr


def test_fresh_starts_over_and_leaves_strangers_files_alone(pictures: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_job("backfill", pictures, "--out", out, "--config", config, "--limit", 5).returncode == 5
    (out / "mine.txt").write_text("keep")
    ended = run_job("backfill", pictures, "--out", out, "--config", config, "--limit", 9, "--fresh", "--json")
    assert ended.returncode == 5, ended.stderr
    assert json.loads(ended.stdout)["items"] == 9
    assert verdicts(out).num_rows == 9
    assert (out / "mine.txt").read_text() == "keep"


def test_more_errors_than_allowed_end_with_3(tmp_path: Path, config: Path) -> None:
    folder = make_pictures(tmp_path / "in", 4)
    (folder / "broken.jpg").write_text("not a picture")
    ended = run_job("backfill", folder, "--out", tmp_path / "out", "--config", config)
    assert ended.returncode == 3
    assert "max_error_rate" in ended.stderr
    assert verdicts(tmp_path / "out").num_rows == 5
    again = run_job("backfill", folder, "--out", tmp_path / "out", "--config", config)
    assert again.returncode == 3


def test_a_stack_that_does_not_load_ends_with_4_and_resumes(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 4)
    bad = make_tiny_config(tmp_path / "bad", load_dies=True)
    ended = run_job("backfill", folder, "--out", tmp_path / "out", "--config", bad)
    assert ended.returncode == 4
    assert "did not start" in ended.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "failed"


def test_arrow_parts_hold_the_same_rows(pictures: Path, config: Path, done: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    ended = run_job("backfill", pictures, "--out", tmp_path / "out", "--config", config, "--set", "output.format=arrow")
    assert ended.returncode == 0, ended.stderr
    parts = sorted((tmp_path / "out" / "verdicts").glob("part-*.arrow"))
    table = pa.concat_tables([pa.ipc.open_file(p).read_all() for p in parts]).sort_by("uri")
    assert table.to_pylist() == verdicts(done).to_pylist()


def test_off_a_terminal_there_is_a_json_line_a_shard(pictures: Path, config: Path, tmp_path: Path) -> None:
    ended = run_job("backfill", pictures, "--out", tmp_path / "out", "--config", config)
    shards = log_lines(ended.stderr, "shard")
    assert len(shards) == len(list((tmp_path / "out" / "receipts").iterdir())) == 6
    assert sum(line["rows"] for line in shards) == 42
    assert {line["run"] for line in shards} == {summary(tmp_path / "out")["run_id"]}


def test_max_items_ends_early_and_the_next_call_goes_on(
    pictures: Path, config: Path, done: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = run_job("backfill", pictures, "--out", out, "--config", config, "--max-items", 8)
    assert ended.returncode == 5, ended.stderr
    assert json.loads((out / "run.json").read_text())["state"] == "partial"
    assert not (out / "_SUCCESS").exists()
    assert 8 <= verdicts(out).num_rows < 42
    assert run_job("backfill", pictures, "--out", out, "--config", config).returncode == 0
    assert part_bytes(out) == part_bytes(done)
    assert (out / "_SUCCESS").exists()


def test_two_workers_write_the_same_bytes_as_one(pictures: Path, tmp_path: Path) -> None:
    # No worker scores before both are there: else the first one may have done it all by then.
    gate, one, two = (tmp_path / name for name in ("open", "one", "two"))
    config = make_tiny_config(tmp_path / "config", waits_for=str(gate))
    with JobProcess("backfill", pictures, "--out", two, "--config", config, "--workers", 2, env=job_env()) as job:
        while len(log_lines(job.stderr, "worker")) < 2 and job.poll() is None:
            time.sleep(0.1)
        gate.touch()
        assert job.wait() == 0, job.stderr
    assert len(summary(two)["workers"]) == 2
    assert run_job("backfill", pictures, "--out", one, "--config", config).returncode == 0
    assert part_bytes(two) == part_bytes(one)


def test_dry_run_prints_the_plan_and_writes_nothing(pictures: Path, config: Path, tmp_path: Path) -> None:
    ended = run_job("backfill", pictures, "--out", tmp_path / "out", "--config", config, "--dry-run", "--json")
    plan = json.loads(ended.stdout)
    assert (plan["items"], plan["shards"], plan["committed_shards"]) == (42, 6, 0)
    assert plan["size_bytes"] == sum(p.stat().st_size for p in pictures.iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: there is nothing there"),
        (["SOURCE", "--set", "stack.batchsize=3"], "did you mean 'batch_size'"),
        (["SOURCE", "--set", "runtime.workers=0"], "runtime.workers"),
        (["SOURCE", "--set", "stack.only=[tinny]"], "did you mean 'tiny'"),
        (["SOURCE", "--config", "defualt.yaml"], "default.yaml"),
        (["SOURCE", "--policy", "nosuch.yaml"], "nosuch.yaml"),
    ],
)
def test_wrong_usage_ends_with_2_in_one_sentence(
    arguments: list[str], words: str, pictures: Path, config: Path, tmp_path: Path
) -> None:
    given = [str(pictures) if a == "SOURCE" else a for a in arguments]
    if "--config" not in given:
        given += ["--config", str(config)]
    ended = run_job("backfill", *given, "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_ends_with_2(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ended = run_job("backfill", tmp_path / "in", "--out", tmp_path / "out", "--config", config)
    assert ended.returncode == 2 and "in: " in ended.stderr


def test_a_manifest_without_uri_ends_with_2(config: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,group\na.jpg,1\n")
    ended = run_job("backfill", tmp_path / "m.csv", "--out", tmp_path / "out", "--config", config)
    assert ended.returncode == 2 and "uri" in ended.stderr


def test_a_cluster_that_is_not_there_ends_with_4(pictures: Path, config: Path, tmp_path: Path) -> None:
    env = job_env(RAY_ADDRESS="127.0.0.1:1", RAY_GCS_RPC_SERVER_RECONNECT_TIMEOUT_S="1")
    ended = run_job("backfill", pictures, "--out", tmp_path / "out", "--config", config, env=env)
    assert ended.returncode == 4
    assert "no Ray cluster at 127.0.0.1:1" in ended.stderr


def test_an_album_and_a_missing_member_are_rows_too(config: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 3)
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "in" / "red.png")
    lines = [{"uri": "in/0000.png", "group": "post"}, {"uri": "in/red.png", "group": "post"}, {"uri": "in/gone.png"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = run_job("backfill", tmp_path / "m.jsonl", "--out", tmp_path / "out", "--config", config)
    assert ended.returncode == 3
    rows = verdicts(tmp_path / "out").to_pylist()
    album = next(r for r in rows if r["kind"] == "album")
    assert (album["verdict"], album["group_id"], album["frames_total"]) == ("block", "post", 2)
    assert album["evidence"][0]["frame"] == 1
    gone = next(r for r in rows if r["kind"] != "album")
    assert (gone["status"], gone["verdict"], gone["error_code"]) == ("error", "review", "not_found")


def test_a_source_without_any_media_does_not_end_well(tmp_path: Path, config: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("notes.txt", "more.md"):
        (tmp_path / "in" / name).write_text("not media")
    ended = run_job("backfill", tmp_path / "in", "--out", tmp_path / "out", "--config", config)
    assert ended.returncode == 3
    assert "none of the 2 items" in ended.stderr and "source.type=manifest" in ended.stderr
    assert {row[0] for row in by_name(verdicts(tmp_path / "out"), ["status"]).values()} == {"skipped"}
    nights = ["--ledger", tmp_path / "ledger", "--out", tmp_path / "nights"]
    night = run_job("nightly", tmp_path / "in", *nights, "--config", config)
    assert night.returncode == 3 and "none of the 2 items" in night.stderr


def test_out_inside_source_is_refused(pictures: Path, config: Path) -> None:
    ended = run_job("backfill", pictures, "--out", pictures / "out", "--config", config)
    assert ended.returncode == 2
    assert "lies in SOURCE" in ended.stderr and "Traceback" not in ended.stderr
    assert not (pictures / "out").exists()


def test_names_that_steer_a_terminal_are_escaped_in_all_that_is_printed(config: Path, tmp_path: Path) -> None:
    evil = "a\x1b[2J\u202e\nFORGED"
    source = make_pictures(tmp_path / "in" / evil, 2, {1: (255, 0, 0)})
    (source / f"{evil}.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    out = tmp_path / evil
    printed = []
    for arguments in (
        ("backfill", source, "--out", out, "--config", config, "--set", "runtime.max_error_rate=0"),
        ("status", out),
        ("verify", out),
        ("keyframes", source, "--out", tmp_path / f"cut{evil}", "--config", config),
        ("nightly", source, "--ledger", tmp_path / f"l{evil}", "--out", tmp_path / f"n{evil}", "--config", config),
    ):
        ended = run_job(*arguments)
        assert ended.returncode in (0, 3), ended.stderr
        printed += [*ended.stdout.split("\n"), *ended.stderr.split("\n")]
    assert len(verdicts(out)) == 3
    assert all(line.isprintable() and not line.startswith("FORGED") for line in printed)
    assert any("\\x1b[2J" in line for line in printed)
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert pages and all(line.isprintable() for page in pages for line in page.split("\n"))
