"""The reviewers' page over 20,000 items in headless Chromium: what a reviewer waits for, and how many items are decided
in a minute by a script that presses keys as fast as the page lets it. JSON into results/.

`python -m benchmarks.review [--items 20000] [--decide 400]`. The pictures are drawn, 1,000 by 750 pixels, 500 different
ones. Times are those of the page's own clock: from the key to the paint of what comes next; of the first item, from the
start of the navigation.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import write_result
from moderation.review.desk import open_desk
from moderation.review.wire import NextItems
from tests.finished_run import Made, write_run
from tests.job_runs import JobProcess, job_env
from tests.review_server import ANNA, LABELS, POLICY, SETTINGS, draw_picture

CHROMIUM = "/usr/bin/chromium"
PICTURES = 500
# Decides item after item inside the page, each as soon as it is painted; ends after `count` decisions of the page.
PRESS = """
async ([key, count]) => {
  const wait = () => new Promise((done) => {
    const look = () => (document.body.dataset.state === "ready" ? done() : setTimeout(look, 1));
    look();
  });
  performance.clearMeasures();
  await wait();
  const began = performance.now();
  for (let pressed = 0; pressed < count; pressed++) {
    document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    await wait();
  }
  const tookMs = performance.now() - began;
  return [tookMs, performance.getEntriesByName("next").map((entry) => entry.duration)];
}
"""


def make_run_of(folder: Path, items: int) -> str:
    """A run for review; its pictures are links to a few hundred files."""
    source = folder / "in"
    for number in range(PICTURES):
        draw_picture(folder / "drawn" / f"{number}.jpg", number, (1000, 750))
    source.mkdir()
    random = np.random.default_rng(0)
    made = []
    for number in range(items):
        name = f"{number:06d}.jpg"
        os.link(folder / "drawn" / f"{number % PICTURES}.jpg", source / name)
        votes = [(float(random.uniform(0.3, 0.95)), float(random.uniform(0, 0.2)), 0.1)]
        made.append(Made(name=name, votes=votes))
    return write_run(folder, LABELS, made, POLICY, shard_items=256)


def time_session(out: str) -> dict[str, float]:
    """Seconds to open a review, and milliseconds of the server for ten items with all that the page needs of them."""
    began = time.perf_counter()
    with open_desk(out, SETTINGS) as desk:
        opened = time.perf_counter() - began
        times, have = [], []
        for _ in range(30):
            began = time.perf_counter()
            answer = desk.next_items(ANNA, NextItems(n=10, have=tuple(have[-100:])))
            times.append(time.perf_counter() - began)
            have += [entry["item_id"] for entry in answer["items"]]
    return {"session_opens_s": round(opened, 3), "next_ten_on_the_server_ms": round(1000 * float(np.median(times)), 1)}


def open_page(page: Page, link: str) -> float:
    """Load the page anew; milliseconds until its first item is painted."""
    page.goto(link)
    page.wait_for_function("() => document.body.dataset.state === 'ready'", timeout=60_000)
    first = page.evaluate(
        "() => { const [e] = performance.getEntriesByName('next'); return e.startTime + e.duration; }"
    )
    return float(first)


def press_keys(page: Page, key: str, count: int, items_each: int) -> dict[str, float]:
    """What pressing a key `count` times takes, where each decides `items_each` items."""
    took_ms, durations = page.evaluate(PRESS, [key, count])
    return {
        "decided": count * items_each,
        "decided_a_minute": round(60_000 * count * items_each / took_ms),
        "next_ms_median": round(float(np.median(durations)), 1),
        "next_ms_95": round(float(np.quantile(durations, 0.95)), 1),
        "next_ms_most": round(float(np.max(durations)), 1),
        "over_100_ms": sum(duration > 100 for duration in durations),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--decide", type=int, default=400, help="items in the view of one; grids: twice as many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="review") as name:
        out = make_run_of(Path(name), options.items)
        record: dict[str, Any] = {"items": options.items, **time_session(out)}
        env = job_env(MODERATION_REVIEW_SECRET="a secret of this benchmark")
        command = ("review", "serve", out, "--port", "0", "--reviewer", "anna", "--hidden-share", "0")
        with JobProcess(*command, env=env) as job, sync_playwright() as playwright:
            while "token=" not in job.stdout:
                assert job.poll() is None, job.stderr
                time.sleep(0.05)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            link = job.stdout.split()[-1]
            firsts = [open_page(page, link) for _ in range(3)]
            record["first_item_ms"] = {"first_load": round(firsts[0]), "again": round(firsts[-1])}
            page.evaluate("() => localStorage.setItem('settings', JSON.stringify({veil: 'grey', breakMin: 0}))")
            open_page(page, link)
            record["one_item"] = press_keys(page, "p", options.decide, 1)
            for cells in (9, 36):
                settings = f"{{veil: 'grey', breakMin: 0, cells: '{cells}'}}"
                page.evaluate(f"() => localStorage.setItem('settings', JSON.stringify({settings}))")
                page.evaluate("() => sessionStorage.setItem('grid', 'true')")
                open_page(page, link)
                record[f"grid_of_{cells}"] = press_keys(page, "p", max(1, 2 * options.decide // cells), cells)
            page.wait_for_function("() => !Object.keys(localStorage).some(key => key.startsWith('outbox:'))")
            browser.close()
            job.terminate()
            job.wait(30)
    record["times_as_fast_as_2000_an_hour"] = round(record["one_item"]["decided_a_minute"] * 60 / 2000, 1)
    print(write_result("review", record).read_text())


if __name__ == "__main__":
    main()
