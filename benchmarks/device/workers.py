"""Section `workers`: several processes share one GPU, as several workers do: pictures a second of all together.

Each has its own interpreter, whose lock the threads of one process wait for. They are started once; each measurement
uses some of them, with their share of the cores for decoding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.device.models import Place
from benchmarks.device.pictures import read_variants
from benchmarks.device.record import Record
from benchmarks.device.stream import load_streamed, open_rows
from benchmarks.device.timing import Utilisation
from benchmarks.device.weights import PACK
from moderation.pipeline.clock import Clock

# Stack, size, processes; each process decodes with its share of the cores.
MEASURED: Sequence[tuple[str, str, int]] = (
    ("default", "small", 8), ("default", "small", 16), ("default", "small", 4), ("default", "small", 1),
    ("clip_l14", "small", 8), ("clip_l14", "medium", 8),
    ("clip_b32", "small", 8), ("clip_b32", "small", 16),
    ("default", "medium", 8), ("clip_l14", "small", 4), ("default", "large", 8), ("clip_l14", "small", 1),
    ("clip_b32", "small", 1), ("default", "small", 2),
)  # fmt: skip
_TINY: Sequence[tuple[str, str, int]] = (("default", "small", 2),)
_WARM_S, _MEASURED_S, _NEEDS_S = 2.0, 4.0, 9.0


@dataclass(slots=True, kw_only=True)
class _Worker:
    """One process; it answers each line with one."""

    process: subprocess.Popen[str]

    def ask(self, asked: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Mapping[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: Mapping[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"a worker ended with exit code {self.process.wait()}")


def run(record: Record, place: Place) -> None:
    """Start them, load all stacks, then measure."""
    measured = _TINY if place.tiny else MEASURED
    most = max(count for _, _, count in measured)
    workers: list[_Worker] = []
    try:
        if not record.measure("start", partial(_start, place, most, workers), needs_s=20):
            return
        loaded: set[str] = set()
        for name, size, count in measured:
            if name not in loaded:
                loaded.add(name)
                if not record.measure(f"{name}: load", partial(_load, workers, name), needs_s=20):
                    return
            work = partial(_measure, workers[:count], name, size, place)
            record.measure(f"{name}: {size}, {count} processes", work, needs_s=_NEEDS_S)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def _start(place: Place, count: int, workers: list[_Worker]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.device", "worker", "--scratch", str(place.scratch)]
    command += ["--cpu"] if place.tiny else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(count):
        process = subprocess.Popen(
            command, cwd=PACK, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        workers.append(_Worker(process=process))
    for worker in workers:
        worker.answer()
    return {"processes": count}


def _load(workers: Sequence[_Worker], name: str) -> dict[str, Any]:
    for worker in workers:
        worker.ask({"load": name})
    seconds = [float(worker.answer()["seconds"]) for worker in workers]
    return {"slowest_s": round(max(seconds), 1)}


def _measure(workers: Sequence[_Worker], name: str, size: str, place: Place) -> dict[str, Any]:
    """All at once: rows between two moments of the clock that processes share."""
    threads = max(1, len(os.sched_getaffinity(0)) // len(workers))
    warm_s, measured_s = (0.5, 1.0) if place.tiny else (_WARM_S, _MEASURED_S)
    begins_s = time.monotonic() + warm_s
    for worker in workers:
        asked = {"stack": name, "size": size, "threads": threads, "begins_s": begins_s}
        worker.ask({**asked, "ends_s": begins_s + measured_s})
    with Utilisation() as used:
        time.sleep(max(0.0, begins_s - time.monotonic()))
        used.samples.clear()
        answers = [worker.answer() for worker in workers]
    done = sum(int(answer["rows"]) for answer in answers)
    per_s = sum(answer["rows"] / answer["span_s"] for answer in answers if answer["rows"])
    facts: dict[str, Any] = {"per_s": round(per_s, 1), "processes": len(workers), "threads": threads}
    facts |= {"pictures": done, "nvml_percent": used.percent}
    waits: dict[str, float] = {}
    for answer in answers:
        for kind, seconds in answer["seconds"].items():
            waits[kind] = waits.get(kind, 0.0) + seconds / answer["span_s"] / len(answers)
    # Of each second of one process; of `decode` and `fetch` of all its threads together.
    return facts | {"seconds_a_second": {kind: round(seconds, 4) for kind, seconds in waits.items()}}


def serve(place: Place) -> None:
    """What one process does: a line of JSON asks, a line answers."""
    torch.set_num_threads(1)
    held: dict[str, Any] = {}
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "load" in asked:
            began_s = time.monotonic()
            held[asked["load"]] = load_streamed(asked["load"], place)
            # A first batch takes seconds: kernels are loaded, memory is pinned.
            first = {"size": "small", "threads": 2, "begins_s": 0.0}
            _count(held[asked["load"]], first | {"ends_s": time.monotonic() + _WARM_S}, place)
            print(json.dumps({"seconds": time.monotonic() - began_s}), flush=True)
        else:
            print(json.dumps(_count(held[asked["stack"]], asked, place)), flush=True)


def _count(held: Any, asked: Mapping[str, Any], place: Place) -> dict[str, Any]:  # noqa: ANN401 - of `load_streamed`
    payloads = read_variants(place.scratch / "pictures", asked["size"])
    torch.set_num_threads(asked["threads"])
    clock, rows_seen, before, first_s = Clock(), 0, {}, 0.0
    with open_rows(*held, payloads, asked["threads"], clock) as rows:
        while (now_s := time.monotonic()) < asked["ends_s"]:
            if now_s >= asked["begins_s"]:
                if not before:
                    before, first_s = {**clock.seconds, **clock.waits}, now_s
                rows_seen += 1
            next(rows)
        # Rows come in whole batches: from the end of one to that of another.
        span_s = time.monotonic() - first_s
    after = {**clock.seconds, **clock.waits}
    return {
        "rows": rows_seen,
        "span_s": span_s,
        "seconds": {kind: after[kind] - before.get(kind, 0.0) for kind in after},
    }
