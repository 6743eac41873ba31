"""Bounds of decoding: pixels, time, and the size of frames.

Native decoders cannot be interrupted. `decode_with_deadline` therefore decodes an item in a thread of its own, which
the caller abandons at the deadline; the thread runs until its native call returns, then sees its `Deadline` and ends.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.types import ErrorCode

_T = TypeVar("_T")

# Part of the stack's fingerprint: changes whenever the same bytes may give other pixels.
DECODE_VERSION = "5"
# Scaling by a few percent blurs without saving work: 600x450 to 597x448 changed an imagenet score by 0.0498.
MAX_UNSCALED_RATIO = 1.15
# Limit for all frames of one item together; in a larger album the rest is `unseen`.
MAX_FRAMES_BYTES = 512 * 1024 * 1024
# For each further object of an item its decoding may take so much longer; the watchdog of a shard allows the same.
OBJECT_S = 4.0
MAX_LONG_SIDE_RATIO = 4  # times the canvas: a strip of 100 x 50,000 must not become 448 x 224,000

_abandoned: set[threading.Thread] = set()
_abandoned_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The time at which an item's decoding is abandoned."""

    ends_s: float  # on time.monotonic()'s clock
    timeout_s: float

    def check(self) -> None:
        """Raises ItemError(TIMEOUT) after the deadline."""
        if time.monotonic() > self.ends_s:
            raise self.error()

    def error(self) -> ItemError:
        """The error to raise after the deadline."""
        return ItemError(ErrorCode.TIMEOUT, f"decoding took more than {self.timeout_s:g} s")


class TimedBytes(io.BytesIO):
    """Encoded bytes for a decoder; reading past the deadline raises ItemError(TIMEOUT).

    Pillow reads 64 KiB at a time, so this checks between strips, in the decoding thread.
    """

    def __init__(self, data: bytes, deadline: Deadline) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        self._deadline.check()
        return super().read(size)


def start_deadline(timeout_s: float) -> Deadline:
    """A deadline `timeout_s` seconds from now."""
    return Deadline(ends_s=time.monotonic() + timeout_s, timeout_s=timeout_s)


def decode_with_deadline(decode: Callable[[], _T], deadline: Deadline) -> _T:
    """The result of `decode()`, run in a thread that is abandoned at the deadline.

    Raises ItemError(TIMEOUT), and whatever `decode` raises. `abandoned_decodes()` counts the threads still running.
    """
    result: list[_T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(decode())
        except BaseException as error:  # noqa: BLE001 - passed to the waiting thread, which raises it
            raised.append(error)
        finally:
            with _abandoned_lock:
                _abandoned.discard(threading.current_thread())

    thread = threading.Thread(target=run, name="decode", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline.ends_s - time.monotonic()))
    if thread.is_alive():
        with _abandoned_lock:
            if not result and not raised:  # else it ended between the two lines above
                _abandoned.add(thread)
                raise deadline.error()
        thread.join()
    if raised:
        raise raised[0]
    return result[0]


def abandoned_decodes() -> int:
    """How many abandoned decodes still hold a thread and memory in this process."""
    with _abandoned_lock:
        return sum(t.is_alive() for t in _abandoned)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raises ItemError(TOO_MANY_PIXELS), or CORRUPT for a picture without area."""
    if width < 1 or height < 1:
        raise ItemError(ErrorCode.CORRUPT, f"a picture of {width}x{height} pixels")
    if width * height > max_pixels:
        raise ItemError(ErrorCode.TOO_MANY_PIXELS, f"{width}x{height} is more than {max_pixels} pixels")


def canvas_size(width: int, height: int, canvas_px: int) -> tuple[int, int]:
    """The size to which a frame is scaled: short side `canvas_px`, never larger than the picture.

    A short side of at most MAX_UNSCALED_RATIO times the canvas is kept; the long side is at most MAX_LONG_SIDE_RATIO
    times the canvas.
    """
    short_scale = canvas_px / min(width, height)
    if short_scale * MAX_UNSCALED_RATIO >= 1.0:
        short_scale = 1.0
    scale = min(short_scale, MAX_LONG_SIDE_RATIO * canvas_px / max(width, height), 1.0)
    if scale == 1.0:
        return width, height
    return max(1, round(width * scale)), max(1, round(height * scale))


def spread(total: int, limit: int) -> list[int]:
    """Select at most `limit` of the indices 0..total-1, evenly spaced, including the first and the last."""
    if total <= limit:
        return list(range(total))
    if limit == 1:
        return [total // 2]
    return [round(k * (total - 1) / (limit - 1)) for k in range(limit)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLimits:
    """What one object of an item of several may have of the item's limits; max_tiles below 2: no tiles."""

    max_frames: int
    max_tiles: int

    def apply(self, config: MediaConfig) -> MediaConfig:
        """The configuration with these limits."""
        return with_max_tiles(with_max_frames(config, self.max_frames), self.max_tiles)


def with_max_frames(config: MediaConfig, max_frames: int) -> MediaConfig:
    """The same limits with another number of frames."""
    return config if config.max_frames == max_frames else config.model_copy(update={"max_frames": max_frames})


def with_max_tiles(config: MediaConfig, max_tiles: int) -> MediaConfig:
    """The same limits with at most `max_tiles` tiles per picture; no tiles where fewer than two remain."""
    if config.tiles == "off" or max_tiles >= config.max_tiles:
        return config
    return config.model_copy(update={"max_tiles": max_tiles} if max_tiles >= 2 else {"tiles": "off"})
