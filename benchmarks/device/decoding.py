"""Section `decoding`: JPEGs to pixels, by each decoder there is, in one thread and in as many as there are cores."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.device.models import Place, config_of, item_of
from benchmarks.device.pictures import MEGAPIXELS, read_variants
from benchmarks.device.record import Record
from benchmarks.device.timing import median_s
from moderation.config.model import MediaConfig
from moderation.media import decode_item

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_NVJPEG_BATCH = {"small": 64, "medium": 32, "large": 8}


def run(record: Record, place: Place) -> None:
    """Baseline files by every decoder; progressive ones by the pipeline's and by nvJPEG."""
    media = config_of("default", place).media
    canvas = media.canvas_px
    decoders: dict[str, Callable[[bytes], object]] = {"pipeline": partial(_by_pipeline, media), "pillow": _by_pillow}
    if simplejpeg is not None:
        decoders["simplejpeg"] = partial(simplejpeg.decode_jpeg, colorspace="RGB")
        decoders["simplejpeg scaled"] = partial(_scaled, canvas)
    cores = len(os.sched_getaffinity(0))
    seconds = 0.1 if place.tiny else 0.7
    for size in ("small",) if place.tiny else MEGAPIXELS:
        for kind in ("baseline", "progressive"):
            files = read_variants(place.scratch / "pictures", size, kind)
            if place.device.type == "cuda" and files:
                work = partial(_nvjpeg, files, _NVJPEG_BATCH[size], place.device)
                record.measure(f"{size} {kind}: nvjpeg", work, needs_s=2)
            for name, decode in decoders.items() if files else ():
                if kind == "progressive" and name != "pipeline":
                    continue
                for threads in (cores, 1):
                    title = f"{size} {kind}: {name}, {threads} threads"
                    record.measure(title, partial(_by_threads, decode, files, threads, seconds))


def _by_pipeline(media: MediaConfig, data: bytes) -> object:
    return decode_item(item_of(0), [data], media)


def _by_pillow(data: bytes) -> object:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _scaled(canvas: int, data: bytes) -> object:
    """By the largest of libjpeg's factors that leaves at least the canvas."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=canvas, min_width=canvas)


def _by_threads(
    decode: Callable[[bytes], object], files: Sequence[bytes], threads: int, seconds: float
) -> dict[str, Any]:
    """Pictures a second of so many threads, each decoding until the time is over."""
    decode(files[0])
    numbers = count()
    began_s = time.perf_counter()
    ends_s = began_s + seconds

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < ends_s:
            decode(files[next(numbers) % len(files)])
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    wall_s = time.perf_counter() - began_s
    return {"per_s": round(done / wall_s, 1), "files": len(files), "mean_bytes": sum(map(len, files)) // len(files)}


def _nvjpeg(files: Sequence[bytes], batch: int, device: torch.device) -> dict[str, Any]:
    from torchvision.io import ImageReadMode, decode_jpeg

    numbers = [i % len(files) for i in range(batch)]
    given = [torch.frombuffer(bytearray(files[i]), dtype=torch.uint8) for i in numbers]
    pixels = decode_jpeg(given, mode=ImageReadMode.RGB, device=device)
    theirs = np.asarray(Image.open(io.BytesIO(files[0])).convert("RGB"), np.int16)
    off = np.abs(pixels[0].permute(1, 2, 0).cpu().numpy().astype(np.int16) - theirs)
    seconds = median_s(lambda: decode_jpeg(given, mode=ImageReadMode.RGB, device=device), device, budget_s=0.7)
    facts = {"per_s": round(batch / seconds, 1), "batch": batch}
    return facts | {"levels_from_pillow": {"max": int(off.max()), "mean": round(float(off.mean()), 3)}}
