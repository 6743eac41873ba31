"""The detector `text` beside the package whose weights it runs (`RapidOCR()(picture)`), on the sample photographs.

`python -m benchmarks.text [--items 200] [--rounds 1] [--threads 2]`. Both read the same pixels, sixteen photographs
at a time, in turns, so that whatever else the machine does meets both alike. Figures, into `results/text.json`:

- `ratio`: pictures a second, ours by the package's, medians of the rounds; by the clock and by the processor's time
- `plain_ms`: a picture without text (nobody finds any), one at a time, each the median of three, far apart in time
- `words_found`: the share of the package's words that ours reads in the same picture. `same`: letter by letter, after
  NFKC and case folding. `nearly`: one letter in four may differ, and spaces may fall elsewhere (the package reads
  "NYKLINE", "microfibercleans"). `sure`: `nearly`, of words of three letters and more in lines that the package is sure
  of (0.9): of small print both read guesses.

- `gates`: `words_found` of the setting without a glance if one with that threshold stood before it, and the share of
  pictures without text that it would send on

- `stamps_read`: of stamps drawn half transparent on pictures without text, at random places, by the height of their
  print in pixels: the share that is read, but for one letter in four. The glance was not set by these

Two settings are measured: the default, and one that looks closely at every picture.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.machine import median, write_result
from benchmarks.peers.inputs import PHOTOGRAPHS
from benchmarks.peers.process import REPOSITORY
from moderation.detectors.text.detector import Text
from moderation.detectors.text.reader import find_peaks
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.runtime.worker import MALLOC_ENV
from moderation.types import U8

BATCH: Final = 16
PLAIN_ROUNDS: Final = 3
GATES: Final[Mapping[int, Sequence[float]]] = {
    320: (0.0, 0.02, 0.06, 0.15),
    416: (0.02, 0.04, 0.06, 0.15, 0.5),
    512: (0.02, 0.06, 0.15, 0.5),
}
STAMP: Final = "photo by agency.example"
STAMP_PX: Final = (10, 14, 20, 28)
STAMPED: Final = 50
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "no_glance": {"glance": {}},
}


def measure_text(items: int, rounds: int, settings: Sequence[str]) -> dict[str, Any]:
    """Run, in turns; returns the record."""
    from rapidocr import RapidOCR

    cpu = torch.device("cpu")
    ours: dict[str, Text] = {}
    for name in settings:
        ours[name] = Text(SETTINGS[name])
        ours[name].load(cpu, torch.float32, [str(resolve(w)) for w in Text.weights])
    threads = torch.get_num_threads()
    package = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": threads, "Global.log_level": "error"})
    every = sorted(PHOTOGRAPHS.glob("*.JPEG"))
    paths = every[:: max(1, len(every) // items)][:items]
    frames = [np.array(Image.open(path).convert("RGB")) for path in paths]
    clock: dict[str, list[float]] = {name: [] for name in ("package", *settings)}
    processor: dict[str, list[float]] = {name: [] for name in clock}
    read: dict[str, list[Any]] = {}
    package(frames[0][..., ::-1].copy())
    for number in range(rounds):
        read = {name: [] for name in clock}
        spent = {name: np.zeros(2) for name in clock}
        for start in range(0, len(frames), BATCH):
            part = frames[start : start + BATCH]
            began = _now()
            read["package"] += [package(frame[..., ::-1].copy()) for frame in part]
            spent["package"] += _now() - began
            for name, detector in ours.items():
                began = _now()
                with torch.inference_mode():
                    read[name] += detector.read(_batch(part))
                spent[name] += _now() - began
            if start % 64 == 0:
                print(f"  {start}: " + "  ".join(f"{n} {s[1]:.1f}" for n, s in spent.items()), flush=True)
        for name, (wall_s, cpu_s) in spent.items():
            clock[name].append(len(frames) / wall_s)
            processor[name].append(len(frames) / cpu_s)
        print(f"round {number + 1}: " + "  ".join(f"{n} {v[-1]:.2f}/s" for n, v in clock.items()), flush=True)
    wanted = [list(zip(found.txts or (), found.scores or (), strict=True)) for found in read["package"]]
    said = zip(frames, wanted, *(read[name] for name in settings), strict=True)
    plain = [frame for frame, *lines in said if not any(lines)]
    return {
        "items": len(frames),
        "rounds": rounds,
        "threads": threads,
        "settings": {name: dict(SETTINGS[name]) for name in settings},
        "pictures_per_s": {name: median(values) for name, values in clock.items()},
        "pictures_per_cpu_s": {name: median(values) for name, values in processor.items()},
        "ratio": {name: round(median(clock[name]) / median(clock["package"]), 3) for name in settings},
        "ratio_cpu": {name: round(median(processor[name]) / median(processor["package"]), 3) for name in settings},
        "package_words": sum(len(words(text)) for lines in wanted for text, _ in lines),
        "words_found": {
            name: found_shares(wanted, [[line.text for line in page] for page in read[name]]) for name in settings
        },
        "gates": _gates(ours[settings[-1]], frames, wanted, read[settings[-1]]),
        "plain_ms": {name: _plain_ms(ours[name], plain) for name in settings},
        "stamps_read": _stamps_read(ours, plain),
        "bars": {"ratio": 3.0, "words_found": 0.95, "plain_ms": 60.0},
    }


def words(text: str) -> list[str]:
    """Runs of letters and digits, whatever their case and width."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def found_shares(wanted: Sequence[Sequence[tuple[str, float]]], ours: Sequence[Sequence[str]]) -> dict[str, float]:
    """`same`, `nearly` and `sure` of the module's text."""
    counts: Counter[str] = Counter()
    for lines, texts in zip(wanted, ours, strict=True):
        own = Counter(word for text in texts for word in words(text))
        joined = ["".join(words(text)) for text in texts]
        for text, confidence in lines:
            for word in words(text):
                counts["all"] += 1
                if own[word]:
                    own[word] -= 1
                    counts["same"] += 1
                nearly = any(_contains_nearly(line, word) for line in joined)
                counts["nearly"] += nearly
                if confidence >= 0.9 and len(word) >= 3:
                    counts["all sure"] += 1
                    counts["sure"] += nearly
    return {
        "same": round(counts["same"] / max(1, counts["all"]), 3),
        "nearly": round(counts["nearly"] / max(1, counts["all"]), 3),
        "sure": round(counts["sure"] / max(1, counts["all sure"]), 3),
    }


def _gates(
    detector: Text, frames: Sequence[U8], wanted: Sequence[Sequence[tuple[str, float]]], read: Sequence[Any]
) -> dict[str, dict[str, float]]:
    """What a first look would do at each threshold, from what was read without: words left, and plain pictures too."""
    assert detector._reader is not None
    texts = [[line.text for line in page] for page in read]
    plain = [not theirs and not own for theirs, own in zip(wanted, texts, strict=True)]
    found: dict[str, dict[str, float]] = {}
    for short_px, thresholds in GATES.items():
        with torch.inference_mode():
            peaks = find_peaks(detector._reader, [torch.from_numpy(frame) for frame in frames], short_px)
        for least in thresholds:
            kept = [page if peak >= least else [] for page, peak in zip(texts, peaks, strict=True)]
            passed = [peak >= least for peak, bare in zip(peaks, plain, strict=True) if bare]
            found[f"{short_px}: {least:g}"] = {
                **found_shares(wanted, kept),
                "plain_looked_at": round(sum(passed) / max(1, len(passed)), 3),
            }
    return found


def _stamps_read(ours: Mapping[str, Text], plain: Sequence[U8]) -> dict[str, dict[str, float]]:
    random = np.random.default_rng(7)
    wanted = "".join(words(STAMP))
    shares: dict[str, dict[str, float]] = {name: {} for name in ours}
    for height in STAMP_PX:
        found: Counter[str] = Counter()
        for frame in plain[:STAMPED]:
            stamped = _stamp(frame, height, random)
            for name, detector in ours.items():
                with torch.inference_mode():
                    (lines,) = detector.read(_batch([stamped]))
                joined = "".join(word for line in lines for word in words(line.text))
                found[name] += _contains_nearly(joined, wanted)
        for name in ours:
            shares[name][str(height)] = round(found[name] / max(1, len(plain[:STAMPED])), 3)
    return shares


def _stamp(frame: U8, height: int, random: np.random.Generator) -> U8:
    picture = Image.fromarray(frame)
    font = ImageFont.load_default(height)
    drawn = Image.new("L", picture.size)
    x0, y0, x1, y1 = ImageDraw.Draw(drawn).textbbox((0, 0), STAMP, font=font)
    place = [float(random.uniform(0, max(1, room))) for room in (picture.width - x1 + x0, picture.height - y1 + y0)]
    ImageDraw.Draw(drawn).text((place[0] - x0, place[1] - y0), STAMP, fill=128, font=font)
    picture.paste((255, 255, 255), mask=drawn)
    return np.array(picture)


def _contains_nearly(line: str, word: str) -> bool:
    """Whether a part of `line` is `word` but for one letter in four."""
    above = [0] * (len(line) + 1)
    for row, char in enumerate(word, start=1):
        current = [row]
        for column, other in enumerate(line, start=1):
            current.append(min(above[column - 1] + (char != other), above[column] + 1, current[-1] + 1))
        above = current
    return min(above) <= len(word) // 4


def _plain_ms(detector: Text, plain: Sequence[U8]) -> dict[str, float]:
    """Milliseconds of a picture without text, alone, whether a glance ends it or not.

    All of them once, then all of them again: a burst of whatever else the machine does meets each but once.
    """
    spent: list[list[Any]] = [[] for _ in plain]
    for _ in range(PLAIN_ROUNDS):
        for frame, times in zip(plain, spent, strict=True):
            began = _now()
            with torch.inference_mode():
                detector.read(_batch([frame]))
            times.append(1000 * (_now() - began))
    if not plain:
        return {}
    wall, cpu = np.median(np.array(spent), axis=1).T.tolist()
    quarter = float(np.quantile(wall, 0.25))
    return {"median": median(wall), "quarter": round(quarter, 1), "median_cpu": median(cpu)}


def _batch(frames: Sequence[U8]) -> TensorFrames:
    return TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], torch.device("cpu"))


def _now() -> np.ndarray[Any, Any]:
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    given = parser.parse_args()
    if not MALLOC_ENV.keys() <= os.environ.keys():
        # Memory is managed as in a worker, for both; a process reads these once, when it begins.
        command = [sys.executable, "-m", "benchmarks.text", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **MALLOC_ENV})
    if not PHOTOGRAPHS.is_dir():
        sys.exit("no ../shared/data beside the repository: nothing to measure with")
    torch.set_num_threads(given.threads)
    record = measure_text(given.items, given.rounds, given.settings)
    print(json.dumps(record, indent=1))
    print(write_result("text", record).relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
