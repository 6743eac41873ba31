"""The Prometheus counters of a run, scraped from Ray's exporter, are its receipts added up."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from moderation.results.receipts import Receipt
from tests.job_runs import REPOSITORY, job_env, make_pictures, make_tiny_config, run_job, summary
from tests.ray_cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.long]

# The driver sends its last counts when it ends; the exporter of a busy machine may take a while to show them.
PATIENCE_S = 120
Series = frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def done(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every verdict, files that are no media, and errors."""
    folder = make_pictures(tmp_path_factory.mktemp("in"), 30, {3: (255, 0, 0), 7: (180, 10, 10)})
    (folder / "notes.txt").write_text("not media")
    (folder / "broken.jpg").write_text("a text that is called a picture")
    (folder / "empty.png").write_bytes(b"")
    out = tmp_path_factory.mktemp("out") / "run"
    config = make_tiny_config(tmp_path_factory.mktemp("config"))
    # A process of its own: counters of this one may still belong to a cluster that it left.
    errors_allowed = ("--set", "runtime.max_error_rate=0.5")
    ended = run_job("backfill", folder, "--out", out, "--config", config, *errors_allowed, env=job_env())
    assert ended.returncode == 0, ended.stderr
    return out


def scrape(port: int, run_id: str) -> dict[str, dict[Series, float]]:
    """Series of our metrics of one run: name -> labels of ours -> value."""
    # Loopback, and no proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, dict[Series, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_moderation_") and sample.labels.get("run") == run_id:
                ours = frozenset((k, v) for k, v in sample.labels.items() if k in OURS)
                series = found.setdefault(sample.name, {})
                assert ours not in series, "the same counter twice"
                series[ours] = sample.value
    return found


OURS = ("step", "check", "verdict", "code", "reason", "wait")


def receipts(out: Path) -> list[Receipt]:
    return [Receipt(**json.loads(p.read_text())) for p in sorted((out / "receipts").iterdir())]


@pytest.fixture(scope="module")
def scraped(ray_cluster: Cluster, done: Path) -> dict[str, dict[Series, float]]:
    """What the exporter shows once the counters have arrived there."""
    return scrape_all(ray_cluster, done)


def scrape_all(cluster: Cluster, out: Path) -> dict[str, dict[Series, float]]:
    run_id, shards = summary(out)["run_id"], len(receipts(out))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = scrape(cluster.metrics_port, run_id)
        if found.get("ray_moderation_shards_total", {}).get(frozenset()) == shards:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not all shards are counted: {found}")


def labelled(**labels: str) -> Series:
    return frozenset(labels.items())


def added(parts: Iterator[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)  # type: ignore[arg-type]  # a Counter adds floats as well
    return dict(total)


def test_totals_are_those_of_the_receipts(done: Path, scraped: dict[str, dict[Series, float]]) -> None:
    found = receipts(done)
    assert scraped["ray_moderation_items_total"] == {labelled(): sum(r.rows_in for r in found)} == {labelled(): 33}
    assert scraped["ray_moderation_shards_total"] == {labelled(): len(found)}
    assert scraped["ray_moderation_frames_total"] == {labelled(): sum(r.counts["frames"] for r in found)}
    assert scraped["ray_moderation_bytes_total"] == {labelled(): sum(r.bytes_read for r in found)}


def test_verdicts_and_errors_add_up_by_their_labels(done: Path, scraped: dict[str, dict[Series, float]]) -> None:
    assert scraped["ray_moderation_verdicts_total"] == {
        labelled(check="reddish", verdict="block"): 1,
        labelled(check="reddish", verdict="review"): 1,
        labelled(check="", verdict="review"): 2,
        labelled(check="", verdict="pass"): 28,
    }
    counts = added(r.counts for r in receipts(done))
    errors = {k.removeprefix("error:"): n for k, n in counts.items() if k.startswith("error:")}
    assert set(errors) == {"not_media", "unsupported_type", "empty"}
    assert scraped["ray_moderation_errors_total"] == {labelled(code=code): n for code, n in errors.items()}


def test_seconds_by_step_add_up(done: Path, scraped: dict[str, dict[Series, float]]) -> None:
    seconds = {step: s for step, s in added(r.seconds for r in receipts(done)).items() if s > 0}
    assert scraped["ray_moderation_seconds_total"] == {
        labelled(step=step): pytest.approx(s, abs=1e-6) for step, s in seconds.items()
    }


def test_nothing_is_queued_at_the_end(scraped: dict[str, dict[Series, float]]) -> None:
    assert scraped["ray_moderation_queue_depth"] == {labelled(): 0}


def test_the_dashboard_asks_for_names_that_are_exported(scraped: dict[str, dict[Series, float]]) -> None:
    text = (REPOSITORY / "cluster" / "grafana" / "moderation.json").read_text()
    asked = set(re.findall(r"ray_moderation_[a-z_]+", text))
    # A run without trouble has no retries to show.
    assert asked - {"ray_moderation_retries_total"} <= set(scraped)


def test_both_nights_of_a_call_are_counted(ray_cluster: Cluster, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 30)
    config = make_tiny_config(tmp_path / "config")
    command = ("nightly", tmp_path / "in", "--ledger", tmp_path / "ledger", "--out", tmp_path / "out")
    assert run_job(*command, "--config", config, "--max-items", 8).returncode == 5
    make_pictures(tmp_path / "more", 31)
    shutil.copy(tmp_path / "more" / "0030.png", tmp_path / "in" / "late.png")
    ended = run_job(*command, "--config", config, env=job_env())
    assert ended.returncode == 0, ended.stderr
    first, second = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    found = scrape_all(ray_cluster, second)
    assert found["ray_moderation_items_total"] == {labelled(): 1}
    assert summary(first)["items"] == 30
