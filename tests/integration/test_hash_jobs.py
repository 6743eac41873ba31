"""The jobs on known pictures and duplicates, over the output of a real run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from moderation.ledger.rows import LEDGER_SCHEMA
from moderation.ledger.store import append
from tests.job_runs import read_parts, run_job

pytestmark = pytest.mark.ray

POLICY = """
version: 1
default: pass
checks:
  red_listed: {side: negative, votes: [known.similarity], review: 0.8, block: 0.99, null: ignore}
  share: {side: attribute, votes: [known.match], pool: mean}
"""


def photograph(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def job(*arguments: object) -> dict[str, Any]:
    ended = run_job(*arguments)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs and copies of them, an animation of four of them, and the output of a run over all."""
    home = tmp_path_factory.mktemp("known")
    source = home / "source"
    source.mkdir()
    for seed in range(4):
        photograph(seed, 640, 480).save(source / f"{seed}-large.png")
    photograph(0).save(source / "0-small.jpg", quality=70)
    (source / "1-same.png").write_bytes((source / "1-large.png").read_bytes())
    frames = [photograph(seed) for seed in (10, 11, 12, 13)]
    frames[0].save(source / "film.webp", save_all=True, append_images=frames[1:], lossless=True, duration=500)
    Image.new("RGB", (320, 240), (9, 9, 9)).save(source / "plain.png")
    config = {"stack": {"detectors": [{"name": "pdq"}]}, "policy": "policy.yaml", "shards": {"max_items": 3}}
    (home / "policy.yaml").write_text("version: 1\nchecks: {busy: {side: positive, votes: [pdq.quality], pass: 0.5}}\n")
    (home / "config.yaml").write_text(json.dumps(config))
    ended = run_job("backfill", source, "--out", home / "out", "--config", home / "config.yaml")
    assert ended.returncode == 0, ended.stderr
    return home


def ids(out: Path) -> dict[str, str]:
    """Item -> file name."""
    table = read_parts(out, "verdicts")
    return {r["item_id"]: r["uri"].rsplit("/", 1)[-1] for r in table.select(["item_id", "uri"]).to_pylist()}


def test_copies_are_grouped_and_written_beside_the_verdicts(run: Path) -> None:
    before = {p: p.read_bytes() for p in (run / "out" / "verdicts").iterdir()}
    report = job("duplicates", run / "out", "--write", "--members", "inherit", "--json")
    assert report["relations"] == {"exact": 1, "pdq": 1}
    names = ids(run / "out")
    rows = pq.read_table(run / "out" / "duplicates.parquet").to_pylist()
    heads = {names[r["item_id"]]: names[r["head_item_id"]] for r in rows}
    assert heads["0-small.jpg"] == heads["0-large.png"] == "0-large.png"
    assert heads["1-same.png"] == heads["1-large.png"]
    grouped = {r["item_id"]: r["group_id"] for r in read_parts(run / "out", "verdicts_grouped").to_pylist()}
    assert set(grouped) == set(names)
    assert {names[i] for i, g in grouped.items() if g} == set(heads)
    assert before == {p: p.read_bytes() for p in (run / "out" / "verdicts").iterdir()}
    again = job("duplicates", run / "out", "--json")
    assert again["members"] == report["members"]


def test_a_list_finds_pictures_and_both_shares_of_a_video(run: Path) -> None:
    votes = read_parts(run / "out", "votes").to_pylist()
    names = ids(run / "out")
    film = [v["pdq.hash"].hex() for v in votes if names[v["item_id"]] == "film.webp"]
    picture = next(v["pdq.hash"].hex() for v in votes if names[v["item_id"]] == "2-large.png")
    strangers = [np.random.default_rng(i).bytes(32).hex() for i in range(6)]
    lines = [f"{i},100,{h},{i}.000" for i, h in enumerate([*film[:2], *strangers])]
    (run / "film.vpdq").write_text("\n".join(lines))
    (run / "list.csv").write_text(f"hash,label\n{picture},advert\n")
    film_list = job("hashes", "build", run / "film.vpdq", "--exchange", "vpdq", "--out", run / "film.known", "--json")
    assert film_list["entries"] == 8
    known = ("--list", run / "film.known", "--sha256", film_list["sha256"])
    assert job("hashes", "match", run / "out", *known, "--json")["items_matched"] == 1
    (row,) = pq.read_table(run / "out" / "known.parquet").to_pylist()
    assert (names[row["item_id"]], row["group"], row["distance"]) == ("film.webp", "film.vpdq", 0)
    assert (row["frames_matched"], row["share_of_item"], row["share_of_listed"]) == (2, 0.5, 0.25)
    pictures = job("hashes", "build", run / "list.csv", "--out", run / "pictures.known", "--json")
    job("hashes", "match", run / "out", "--list", run / "pictures.known", "--sha256", pictures["sha256"], "--json")
    rows = pq.read_table(run / "out" / "known.parquet").to_pylist()
    assert [(names[r["item_id"]], r["label"], r["group"]) for r in rows] == [("2-large.png", "advert", picture)]


def test_the_detector_blocks_what_is_listed(run: Path) -> None:
    votes = read_parts(run / "out", "votes").to_pylist()
    names = ids(run / "out")
    (run / "red.csv").write_text(
        "hash,label\n" + "".join(f"{v['pdq.hash'].hex()},red\n" for v in votes if names[v["item_id"]] == "3-large.png")
    )
    built = job("hashes", "build", run / "red.csv", "--out", run / "red.known", "--json")
    (run / "known.yaml").write_text(POLICY)
    options = {"list": str(run / "red.known"), "sha256": built["sha256"]}
    config = {"stack": {"detectors": [{"name": "pdq"}, {"name": "known", "options": options}]}, "policy": "known.yaml"}
    (run / "known.json").write_text(json.dumps(config))
    ended = run_job("backfill", run / "source", "--out", run / "judged", "--config", run / "known.json")
    assert ended.returncode == 0, ended.stderr
    rows = {r["uri"].rsplit("/", 1)[-1]: r for r in read_parts(run / "judged", "verdicts").to_pylist()}
    blocked = rows.pop("3-large.png")
    assert blocked["reason"] == "negative:red_listed:block"
    assert {r["verdict"] for r in rows.values()} == {"pass", "review"}  # of a plain picture nothing is known
    assert rows["plain.png"]["score_share"] is None
    assert rows["film.webp"]["score_share"] == 0.0


def enter(ledger: Path, out: Path, gone: Path | None = None) -> None:
    """What `moderation nightly` would have entered of a run; with `gone` under a place that is no more."""
    receipts = {p.stem for p in (out / "receipts").glob("*.json")}
    rows = []
    for shard_id in sorted(receipts):
        for row in pq.read_table(out / "verdicts" / f"part-{shard_id}.parquet").to_pylist():
            key = hashlib.blake2b(f"{gone}{row['item_id']}".encode(), digest_size=16).digest()
            known = {name: row.get(name) for name in LEDGER_SCHEMA.names}
            rows.append({**known, "key": key, "run_out": str(gone or out), "part": shard_id, "format": "parquet"})
    append(
        str(ledger), "2026-01-01" if gone is None else "2026-01-02", iter([pa.Table.from_pylist(rows, LEDGER_SCHEMA)])
    )


def test_what_was_judged_earlier_is_found_by_content_and_by_hash(run: Path) -> None:
    second = run / "second"
    second.mkdir()
    (second / "2-again.png").write_bytes((run / "source" / "2-large.png").read_bytes())
    photograph(3).save(second / "3-small.jpg", quality=70)
    photograph(99).save(second / "new.png")
    ended = run_job("backfill", second, "--out", run / "night", "--config", run / "config.yaml")
    assert ended.returncode == 0, ended.stderr
    enter(run / "ledger", run / "out")
    report = job("duplicates", run / "night", "--ledger", run / "ledger", "--json")
    assert (report["items"], report["earlier"], report["unread"]) == (3, 8, 0)
    rows = pq.read_table(run / "night" / "duplicates.parquet").to_pylist()
    here, names = ids(run / "night"), ids(run / "out")
    found = {here[r["item_id"]]: (names[r["head_item_id"]], r["relation"]) for r in rows if r["run_out"] is None}
    assert found == {"2-again.png": ("2-large.png", "exact"), "3-small.jpg": ("3-large.png", "pdq")}
    assert {r["head_run_out"] for r in rows} == {str(run / "out")}
    # The night's own entry makes it no copy of itself.
    enter(run / "own", run / "night")
    assert job("duplicates", run / "night", "--ledger", run / "own", "--json")["members"] == 0


def test_earlier_items_whose_parts_are_gone_are_found_by_content_alone(run: Path) -> None:
    enter(run / "lost", run / "out", gone=run / "deleted")
    report = job("duplicates", run / "night", "--ledger", run / "lost", "--json")
    assert (report["earlier"], report["unread"], report["relations"]) == (8, 8, {"exact": 1})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--members", "inherits", "--write"), "did you mean 'inherit'"),
        (("--members", "inherit"), "add --write"),
        (("--embedding", "imagenet"), "no embeddings of 'imagenet'"),
        (("--distance", "99"), "0 to 47"),
        (("--ledger", "nowhere"), "there is no ledger"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_written(run: Path, arguments: tuple[str, ...], told: str) -> None:
    ended = run_job("duplicates", run / "out", *arguments)
    assert ended.returncode == 2
    assert told in " ".join(ended.stderr.split())


def test_a_bad_line_of_a_list_is_named(run: Path) -> None:
    (run / "bad.csv").write_text("hash,label\nabc,x\n")
    ended = run_job("hashes", "build", run / "bad.csv", "--out", run / "bad.known")
    assert ended.returncode == 2
    assert "bad.csv:2" in ended.stderr
    assert not (run / "bad.known").exists()
