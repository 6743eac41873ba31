"""What one core decodes: `python -m benchmarks.decode [--rounds 3] [--only stills animations videos]`.

Pictures of 0.2, 2 and 12 megapixels, baseline and progressive; animations; the keyframes of videos by codec. Each path
runs in one thread, in turn with the others, for so many rounds; figures are medians of pictures (frames) a second of
processor time, so that what else the machine does hardly counts. Ratios are to the bare Pillow pipeline of the same
files: open, convert, scale to the canvas. JSON goes to `benchmarks/results/decode.json`.

simplejpeg, torchcodec (which needs a shared FFmpeg for videos) and a system's `ffmpeg` (which writes the videos) are
left out where they are not installed, and the record says so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.decode_media import (
    animated_files,
    animated_paths,
    still_files,
    still_paths,
    video_files,
    video_paths,
)
from benchmarks.machine import RESULTS, machine_facts, median, write_result

SECONDS = 0.6  # of processor time, a path and round
BAR_LARGE = 4.0
# Of a set of files: their bytes by name of the path -> frames made.
Path_ = Callable[[bytes], int]


def measure_paths(
    paths: Mapping[str, Path_], files: Sequence[bytes], rounds: int, seconds: float = SECONDS
) -> dict[str, Any]:
    """Frames a second of processor time by path: median of the rounds, and each round. Paths take turns."""
    rates: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, decode in paths.items():
            if name in failed:
                continue
            try:
                rate = _rate(decode, files, seconds)
            except Exception as error:  # noqa: BLE001 - a decoder that lacks a library fails in its own way
                failed[name] = f"{type(error).__name__}: {error}"[:200]
                continue
            if number:  # the first round warms up
                rates.setdefault(name, []).append(round(rate, 2))
    record: dict[str, Any] = {name: {"frames_per_s": median(each), "rounds": each} for name, each in rates.items()}
    bare = record.get(next(iter(paths), ""))
    for each in record.values() if bare else ():
        each["of_bare"] = round(each["frames_per_s"] / bare["frames_per_s"], 2)
    return record | {name: {"failed": why} for name, why in failed.items()}


def _rate(decode: Path_, files: Sequence[bytes], seconds: float) -> float:
    """Of whole passes over the files, so that each path has the same ones; of all threads of the process."""
    frames, began_s = 0, time.process_time()
    while True:
        for data in files:
            frames += decode(data)
        spent_s = time.process_time() - began_s
        if spent_s >= seconds:
            return frames / spent_s


def measure_stills(rounds: int) -> dict[str, Any]:
    """By size and kind."""
    record = {}
    for title, files in still_files().items():
        record[title] = {
            "mean_bytes": round(sum(map(len, files)) / len(files)),
            **measure_paths(still_paths(), files, rounds),
        }
        _tell(title, record[title])
    return record


def measure_animations(rounds: int) -> dict[str, Any]:
    """By format."""
    record = {}
    for title, data in animated_files().items():
        record[title] = measure_paths(animated_paths(), [data], rounds)
        _tell(title, record[title])
    return record


def measure_videos(rounds: int) -> dict[str, Any]:
    """By codec: keyframes, and frames two seconds apart."""
    record = {}
    with tempfile.TemporaryDirectory() as scratch:
        for title, data in video_files(Path(scratch)).items():
            record[title] = {"bytes": len(data), **measure_paths(video_paths(), [data], rounds)}
            _tell(title, record[title])
    return record


def _tell(title: str, record: Mapping[str, Any]) -> None:
    shown = {name: each.get("frames_per_s", "failed") for name, each in record.items() if isinstance(each, dict)}
    print(f"{title}: " + "  ".join(f"{name} {value}" for name, value in shown.items()), flush=True)


def main() -> None:
    """Measure and write; parts that are not asked for stay as the last record has them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parts: dict[str, Callable[[int], dict[str, Any]]] = {
        "stills": measure_stills,
        "animations": measure_animations,
        "videos": measure_videos,
    }
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    given = parser.parse_args()

    before = RESULTS / "decode.json"
    record: dict[str, Any] = json.loads(before.read_text()) if before.is_file() else {}
    for name in given.only:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        record[name] = parts[name](given.rounds) | {"at": at, "machine": machine_facts(), "rounds": given.rounds}
    large = [
        own["moderation"].get("of_bare") for title, own in record.get("stills", {}).items() if title.startswith("12 ")
    ]
    record |= {
        "timing": "processor seconds of one thread, paths in turn, medians",
        "large_of_bare_pillow": large,
        "bar_large_of_bare_pillow": BAR_LARGE,
    }
    # The machine and the time stand in each part: parts may be measured on different days.
    of_all_parts = ("at", "machine", "note", "rounds")
    print(write_result("decode", {key: value for key, value in record.items() if key not in of_all_parts}))


if __name__ == "__main__":
    main()
