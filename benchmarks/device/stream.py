"""Section `stream`: from JPEG bytes to verdicts by the pipeline's own threads, and what the host waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Literal

import torch

from benchmarks.device.models import Place, config_of, item_of, load_stack, policy_of
from benchmarks.device.pictures import read_variants
from benchmarks.device.record import Record
from benchmarks.device.timing import Utilisation
from moderation.config.model import Config
from moderation.detectors import views
from moderation.pipeline.clock import Clock
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import make_pools
from moderation.policy.bind import BoundPolicy
from moderation.scoring.stack import Stack
from moderation.types import Item

STACKS = ("default", "clip_b32", "clip_l14")
BATCH = 256
_FEW_BATCH = 64  # one thread decodes this many in a second or less
# size, decode threads: of every stack with all threads, then with fewer.
ALL_THREADS = (("small", 16), ("medium", 16), ("large", 16))
FEWER = (("small", 8), ("medium", 8), ("small", 4), ("medium", 4), ("small", 1), ("medium", 1))
_UPLOAD = views._upload


def run(record: Record, place: Place) -> None:
    """All threads first: batches of 256, of the packaged 16, and the share of time that kernels run. Then fewer."""
    measures: dict[str, Callable[..., dict[str, Any]]] = {}
    for name in STACKS[:1] if place.tiny else STACKS:
        if not record.measure(f"{name}: load", partial(_load, name, place, measures), needs_s=8):
            continue
        measure = measures[name]
        if place.tiny:
            record.measure(f"{name}: small 2 threads", partial(measure, "small", 2))
            record.measure(f"{name}: small 2 processes", partial(measure, "small", 2, decoder="process"))
            continue
        for size, threads in ALL_THREADS:
            record.measure(f"{name}: {size} {threads} threads", partial(measure, size, threads), needs_s=4)
        for size, threads in ALL_THREADS[:2]:
            # Threads wait for each other's Python; processes copy their frames.
            work = partial(measure, size, threads, decoder="process")
            record.measure(f"{name}: {size} {threads} processes", work, needs_s=8)
        work = partial(measure, "small", 16, batch=16)
        record.measure(f"{name}: small 16 threads, batches of 16", work, needs_s=4)
        work = partial(measure, "small", 16, profiled=True)
        record.measure(f"{name}: small 16 threads, profiled", work, needs_s=12)
    for name, measure in measures.items() if not place.tiny else ():
        for size, threads in FEWER:
            work = partial(measure, size, threads, batch=_FEW_BATCH if threads == 1 else 0)
            record.measure(f"{name}: {size} {threads} threads", work, needs_s=5)


def _load(name: str, place: Place, measures: dict[str, Callable[..., dict[str, Any]]]) -> dict[str, Any]:
    measures[name] = partial(_measure, place, *load_streamed(name, place))
    return {}


def load_streamed(name: str, place: Place) -> tuple[Config, Stack, BoundPolicy]:
    """A stack on the device, with the configuration and the policy that its items are judged by."""
    config = config_of(name, place, batch=4 if place.tiny else BATCH)
    # Frames that wait must not be what limits: two batches of them.
    runtime = config.runtime.model_copy(update={"frame_budget_bytes": 4 << 30, "shards_in_flight": 1})
    config = config.model_copy(update={"runtime": runtime})
    stack = load_stack(config)
    return config, stack, policy_of(name, config, stack)


def _measure(
    place: Place,
    config: Config,
    stack: Stack,
    policy: BoundPolicy,
    size: str,
    threads: int,
    *,
    batch: int = 0,
    profiled: bool = False,
    decoder: Literal["thread", "process"] = "thread",
) -> dict[str, Any]:
    runtime = config.runtime.model_copy(update={"decoder": decoder})
    config = config.model_copy(update={"runtime": runtime})
    payloads = read_variants(place.scratch / "pictures", size)
    seconds = 0.5 if place.tiny else 0.7 if profiled else 2.0
    stack.batch_size = batch or config.stack.batch_size
    if not profiled or place.device.type != "cuda":
        return _stream(config, stack, policy, payloads, threads, seconds)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        facts = _stream(config, stack, policy, payloads, threads, seconds, warm=False)
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    busy_s = _covered_s([(e.time_range.start, e.time_range.end) for e in events])
    span_us = max(e.time_range.end for e in events) - min(e.time_range.start for e in events)
    return facts | {"kernels_and_copies": len(events), "busy_share": round(busy_s / (span_us / 1e6), 4)}


def _covered_s(ranges: Sequence[tuple[float, float]]) -> float:
    """Seconds in at least one of the ranges (microseconds)."""
    covered = end = 0.0
    for start, stop in sorted(ranges):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered / 1e6


def _stream(
    config: Config,
    stack: Stack,
    policy: BoundPolicy,
    payloads: Sequence[bytes],
    threads: int,
    seconds: float,
    *,
    warm: bool = True,
) -> dict[str, Any]:
    """Pictures a second between two ends of batches, once the pipeline is full."""
    clock = Clock()
    upload_s: list[float] = []

    def timed_upload(*given: Any) -> Any:  # noqa: ANN401 - the arguments of another function
        began_s = time.perf_counter()
        try:
            return _UPLOAD(*given)
        finally:
            upload_s.append(time.perf_counter() - began_s)

    views._upload = timed_upload
    try:
        with open_rows(config, stack, policy, payloads, threads, clock) as rows:
            if warm:
                _take(rows, stack.batch_size, 0.3)
            before = {**clock.seconds, **clock.waits, "upload": sum(upload_s)}
            with Utilisation() as used:
                began_s = time.perf_counter()
                done = _take(rows, stack.batch_size, seconds)
                wall_s = time.perf_counter() - began_s
            after = {**clock.seconds, **clock.waits, "upload": sum(upload_s)}
    finally:
        views._upload = _UPLOAD
    spent = {name: round((after[name] - before[name]) / wall_s, 4) for name in after}
    mean_bytes = sum(map(len, payloads)) // len(payloads)
    return {
        "per_s": round(done / wall_s, 1),
        "pictures": done,
        "batch": stack.batch_size,
        "mean_bytes": mean_bytes,
        "nvml_percent": used.percent,
        # Of each second: `decode` and `fetch` are of all threads together, `upload` is a part of `score`.
        "seconds_a_second": spent,
    }


@contextmanager
def open_rows(
    config: Config, stack: Stack, policy: BoundPolicy, payloads: Sequence[bytes], threads: int, clock: Clock
) -> Iterator[Iterator[Any]]:
    """Rows of these pictures over and over, as a worker with so many decode threads makes them."""
    pools = make_pools(config, threads)

    def fetch(item: Item) -> Sequence[bytes]:
        return [payloads[int(item.item_id) % len(payloads)]]

    # Endless: with a `fetch` of one's own items are only iterated.
    rows = moderate_items(_items(), config=config, stack=stack, policy=policy, pools=pools, clock=clock, fetch=fetch)  # type: ignore[arg-type]
    try:
        yield rows
    finally:
        rows.close()  # type: ignore[attr-defined]
        pools.fetch.shutdown(wait=True, cancel_futures=True)
        pools.decode.shutdown(wait=True, cancel_futures=True)
        # The processes end with the threads that own them.


def _items() -> Iterator[Item]:
    return (item_of(index) for index in count())


def _take(rows: Iterator[Any], batch: int, seconds: float) -> int:
    """Take rows in whole batches until the time is over; how many."""
    ends_s = time.perf_counter() + seconds
    done = 0
    while not done or time.perf_counter() < ends_s:
        for _ in range(batch):
            next(rows)
        done += batch
    return done
