"""Whether a site works: sends a few drawn pictures through storage, workers, weights and tables; reports one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from moderation import storage
from moderation.config.model import Config
from moderation.errors import FatalError
from moderation.media import encode_jpeg
from moderation.results.verify import verify_output
from moderation.runtime.backfill import backfill
from moderation.runtime.exporters import describe_metrics
from moderation.types import U8

PICTURES: Final = 25
SIDE_PX: Final = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeReport:
    """The result. metrics: where they are exported, or why not. sentence: all of it in one line."""

    items: int
    errors: int
    devices: tuple[str, ...]
    items_per_s: float | None
    startup_s: float | None
    out: str
    metrics: str
    sentence: str


def smoke(out: str, config: Config) -> SmokeReport:
    """Draw 25 pictures into `out`/in, judge them into `out`/run, and read back what was written.

    Each call begins both anew. Raises FatalError where a picture has no row, or an error, or a part is not as it was
    committed; and all that a backfill raises.
    """
    out = storage.canonical(out).rstrip("/")
    source, run = storage.join(out, "in"), storage.join(out, "run")
    for name, data in draw_pictures():
        storage.publish(storage.join(source, name), data)
    outcome = backfill(source, run, config, fresh=True)
    summary = outcome.summary
    _check_rows(summary)
    verification = verify_output(run)
    if not verification.well:
        raise FatalError(f"smoke: {verification.findings[0].sentence}")
    return _report(summary, run, verification.parts, describe_metrics(str(summary["run_id"]), summary.get("pool")))


def draw_pictures() -> Iterator[tuple[str, bytes]]:
    """(name, JPEG) of pictures that are the same every time: a gradient, a disc and a bar in changing colours."""
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    for number in range(PICTURES):
        pixels: U8 = np.empty((SIDE_PX, SIDE_PX, 3), np.uint8)
        for channel in range(3):
            pixels[..., channel] = (rows * (channel + 1) + columns * (number + 1)) % 256
        centre = 60 + 8 * number
        disc = (rows - SIDE_PX // 2) ** 2 + (columns - centre) ** 2 < 40**2
        pixels[disc] = (10 * number, 255 - 10 * number, 128)
        pixels[20:40, : 10 * (number + 1)] = (255, 255, 255)
        yield f"{number:02d}.jpg", encode_jpeg(pixels)


def _check_rows(summary: Mapping[str, Any]) -> None:
    errors = summary["status"].get("error", 0)
    if summary["items"] != PICTURES or errors or summary.get("state") != "done":
        codes = ", ".join(f"{count} {code}" for code, count in summary["errors"].items()) or "none"
        raise FatalError(
            f"smoke: {summary['items']} of {PICTURES} drawn pictures have a row, errors: {codes}; look at"
            f" {summary['out']}/report.html"
        )


def _report(summary: Mapping[str, Any], run: str, parts: int, metrics: str) -> SmokeReport:
    workers = summary.get("workers") or []
    devices = tuple(sorted({f"{worker['device']} in {worker['dtype']}" for worker in workers if "dtype" in worker}))
    rate, startup_s = summary.get("items_per_s"), summary.get("startup_s")
    pace = "" if rate is None or startup_s is None else f", {rate:.1f} items/s after {startup_s:.0f} s to start"
    count = f"{len(workers)} worker{'' if len(workers) == 1 else 's'}"
    sentence = (
        f"smoke: well: {PICTURES} of {PICTURES} pictures judged on {' and '.join(devices)} by {count}{pace};"
        f" weights loaded; storage listed, read and written; {parts} parts verified in {run}; {metrics}"
    )
    return SmokeReport(
        items=summary["items"],
        errors=summary["status"].get("error", 0),
        devices=devices,
        items_per_s=rate,
        startup_s=startup_s,
        out=run,
        metrics=metrics,
        sentence=sentence,
    )
