"""What a run cost: hours of its GPUs, by the price that the configuration names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tell_cost(summary: Mapping[str, Any], price_per_gpu_hour: float | None) -> dict[str, Any] | None:
    """`gpu_hours, price_per_gpu_hour, run, per_million_items` of a call; None without a price.

    A GPU is paid for from the start of the call to its end, start-up included. Values are None where the time is not
    known, or no worker had a GPU. summary: `wall_s`, `workers` with their `gpu_ids`, `items_this_call`; of merged
    slices `gpu_hours`.
    """
    if price_per_gpu_hour is None:
        return None
    hours = summary.get("gpu_hours")
    if hours is None:
        hours = count_gpu_hours(summary)
    items = summary.get("items_this_call", summary.get("items"))
    run = None if hours is None else hours * price_per_gpu_hour
    return {
        "gpu_hours": hours,
        "price_per_gpu_hour": price_per_gpu_hour,
        "run": None if run is None else round(run, 4),
        "per_million_items": round(run / items * 1e6, 4) if run is not None and items else None,
    }


def count_gpu_hours(summary: Mapping[str, Any]) -> float | None:
    """GPUs of the workers, each once, times the time of the call; None where no worker had one, or no time is known."""
    wall_s = summary.get("wall_s")
    gpus = {
        (worker.get("node"), gpu)
        for worker in summary.get("workers") or ()
        if isinstance(worker, Mapping)
        for gpu in worker.get("gpu_ids") or ()
    }
    return None if not gpus or wall_s is None else round(len(gpus) * wall_s / 3600, 6)
