"""Clocks: medians of calls that end with the device idle, and the device's own clock where there is one."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_s(
    work: Callable[[], object], device: torch.device, *, budget_s: float, warm: int = 2, least: int = 3, most: int = 30
) -> float:
    """Median seconds of a call on the host's clock, the device idle before and after."""
    for _ in range(warm):
        work()
    times: list[float] = []
    ends_s = time.monotonic() + budget_s
    # A call of seconds is not repeated for the sake of a median.
    while len(times) < most and (time.monotonic() < ends_s or len(times) < (least if sum(times) < 2 else 1)):
        synchronise(device)
        began_s = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def device_median_s(
    work: Callable[[], object], device: torch.device, *, budget_s: float, warm: int = 3, most: int = 50
) -> float:
    """Median seconds of a call on the device's clock: calls are queued, so that the host's work hides where it can."""
    if device.type != "cuda":
        return median_s(work, device, budget_s=budget_s, warm=1, least=1, most=most)
    for _ in range(warm):
        work()
    synchronise(device)
    once_s = median_s(work, device, budget_s=0, warm=0, least=1)
    count = max(5, min(most, int(budget_s / max(once_s, 1e-5))))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    synchronise(device)
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events)) / 1000


def peak_mib(device: torch.device) -> float | None:
    """Most memory that tensors held since `reset_peak`."""
    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if device.type == "cuda" else None


def reset_peak(device: torch.device) -> None:
    """Start to count anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@dataclass(slots=True)
class Utilisation:
    """NVML's figure, sampled by a thread: the share of the last fraction of a second in which any kernel ran."""

    samples: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Utilisation:
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:  # noqa: BLE001 - no such library or no such device: then there is no figure
            return self
        self._thread = threading.Thread(target=self._sample, args=(pynvml, handle), daemon=True)
        self._thread.start()
        return self

    def _sample(self, nvml: Any, handle: Any) -> None:  # noqa: ANN401 - a library without types
        while not self._stop.wait(0.05):
            self.samples.append(int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def percent(self) -> float | None:
        """Mean of the samples."""
        return round(statistics.mean(self.samples), 1) if self.samples else None
