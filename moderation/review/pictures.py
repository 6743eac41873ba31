"""The pictures of an item for the reviewers' page: fetched again, checked, decoded apart, scaled, re-encoded.

A page never gets the uploader's bytes. The bytes are those that were judged: their hash is compared. Decoding happens
in processes of its own, which a crafted file may crash without harm to the server.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from moderation import storage
from moderation.config.model import MediaConfig
from moderation.errors import ItemError, ModerationError, one_line
from moderation.media.decoder_pool import DecoderPool
from moderation.media.preview import encode_preview
from moderation.review.planned_items import PlannedItem
from moderation.sources.content import content_hash
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Evidence, Frame, Item, Kind, MediaObject, Role

LARGE_PX: Final = 1024  # longer side of the one picture in front of the reviewer
SMALL_PX: Final = 320  # of the grid, of strips and albums
_SHARP_PX: Final = 800  # short side that stills are decoded to; the run's own canvas is for the detectors
_MAX_STRIP: Final = 36  # frames of a video, pictures of an album
_THREADS: Final = 3
# Of address space: the libraries of video decoders alone map over 3 GiB, which the default of a run leaves no room for.
_FILM_BYTES: Final = 6 << 30
_CACHE_BYTES: Final = 256 << 20
_MAX_WAITING: Final = 400  # items that are fetched or wait for it
_ENTRY_BYTES: Final = 1_000  # of an item without pictures: what is wrong with it


class BusyError(ModerationError):
    """More pictures are wanted at once than are made: ask again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPicture:
    """One picture of an item. large, small: JPEGs, longer side at most LARGE_PX and SMALL_PX."""

    frame: int
    time_s: float | None
    large: bytes
    small: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPictures:
    """What there is to see of an item; where it is nothing, or not all, `error` says why.

    total: decoded frames, of which at most 36 are here. deciding: the place of the one that the verdict rests on.
    """

    pictures: tuple[ItemPicture, ...] = ()
    total: int = 0
    deciding: int = 0
    error: ErrorCode | None = None
    error_detail: str = ""

    @property
    def is_passing(self) -> bool:
        """Whether it shows nothing now and may in a moment; what shows a part is kept."""
        return not self.pictures and self.error in _PASSING

    @property
    def held_bytes(self) -> int:
        """Memory that it takes."""
        return _ENTRY_BYTES + sum(len(p.large) + len(p.small) for p in self.pictures)


class PictureDesk:
    """Makes pictures by a few threads ahead of need and keeps the last ones, within a bound of bytes.

    memory_bytes: of one decoder process; `runtime.decoder_memory_bytes` of the run.
    """

    def __init__(self, media: MediaConfig, memory_bytes: int, find: Callable[[str], PlannedItem | None]) -> None:
        sharp = media.model_copy(update={"canvas_px": max(media.canvas_px, _SHARP_PX), "tiles": "off", "wholes": "off"})
        self._media, self._find = media, find
        self._stills = DecoderPool(sharp, memory_bytes)
        # A video has hundreds of frames, and must give the very frames that were judged: as the run decoded it.
        self._films = DecoderPool(media, max(memory_bytes, _FILM_BYTES))
        self._threads = ThreadPoolExecutor(_THREADS, "pictures")
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[ItemPictures]] = OrderedDict()
        self._held_bytes = 0
        self._waiting = 0

    def ask(self, item_id: str) -> Future[ItemPictures]:
        """The pictures of an item, made once for all who ask; the future raises KeyError for an unknown item.

        Raises BusyError.
        """
        with self._lock:
            future = self._kept.get(item_id)
            if future is not None:
                self._kept.move_to_end(item_id)
                return future
            if self._waiting >= _MAX_WAITING:
                raise BusyError(f"{_MAX_WAITING} items wait for their pictures")
            self._waiting += 1
            future = self._kept[item_id] = self._threads.submit(self._make, item_id)
        future.add_done_callback(lambda done: self._settle(item_id, done))
        return future

    def prepare(self, item_id: str) -> None:
        """Begin to make the pictures of an item that will be asked for, unless there is enough to do."""
        with suppress(BusyError):
            self.ask(item_id)

    def warm_up(self) -> None:
        """Start the decoders' processes, which takes a second or two, before the first picture is asked for."""
        data = encode_preview(np.zeros((8, 8, 3), np.uint8), SMALL_PX)
        item = Item(item_id="", uri="", objects=(MediaObject(uri="", name="a.jpg"),))
        with suppress(RuntimeError):  # closed already
            for _ in range(_THREADS):
                self._threads.submit(self._stills.decode, item, [data])

    def close(self) -> None:
        """End the threads and their processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._stills.close()
        self._films.close()

    def _settle(self, item_id: str, done: Future[ItemPictures]) -> None:
        with self._lock:
            self._waiting -= 1
            if done.cancelled() or done.exception() is not None or done.result().is_passing:
                self._kept.pop(item_id, None)  # the next who asks tries again
                return
            self._held_bytes += done.result().held_bytes
            for key in list(self._kept):
                if self._held_bytes <= _CACHE_BYTES:
                    return
                if key != item_id and self._kept[key].done():
                    self._held_bytes -= self._kept.pop(key).result().held_bytes

    def _make(self, item_id: str) -> ItemPictures:
        item = self._find(item_id)
        if item is None:
            raise KeyError(item_id)
        try:
            return self._decode(item, self._fetch(item))
        except ItemError as error:
            return ItemPictures(error=error.code, error_detail=error.detail)
        except (ModerationError, OSError) as error:
            return ItemPictures(error=ErrorCode.FETCH_FAILED, error_detail=storage.mask_signatures(one_line(error)))

    def _fetch(self, item: PlannedItem) -> list[bytes]:
        """The bytes that were judged. Raises ItemError."""
        payloads = Fetcher([item.item], self._media)(item.item)
        if not payloads:
            raise ItemError(item.item.error or ErrorCode.NOT_FOUND, item.item.error_detail or "no object is named")
        for payload in payloads:
            if isinstance(payload, ItemError):
                raise payload
        read = [payload for payload in payloads if isinstance(payload, bytes)]
        judged = item.judged.content_hash
        if judged is not None and content_hash(read) != judged:
            raise ItemError(ErrorCode.CHANGED, "its content is not the one that was judged")
        return read

    def _decode(self, item: PlannedItem, payloads: Sequence[bytes]) -> ItemPictures:
        pool = self._films if item.judged.kind in (Kind.VIDEO, Kind.ANIMATION) else self._stills
        media = pool.decode(item.item, payloads)
        shown = [frame for frame in media.frames if frame.role in _SHOWN_ROLES]
        frames = sorted(shown, key=lambda frame: frame.role is not Role.FRAME)
        deciding = deciding_place(frames, item.judged.evidence)
        places = _choose_places(sum(frame.role is Role.FRAME for frame in frames), len(frames), deciding)
        return ItemPictures(
            pictures=tuple(_encode(frames[place]) for place in places),
            total=len(frames),
            deciding=places.index(deciding) if places else 0,
            error=media.error,
            error_detail=media.error_detail,
        )


# A picture may have been decided by how it looks over black, or in another viewer.
_SHOWN_ROLES: Final = frozenset({Role.FRAME, Role.BACKDROP, Role.VARIANT})
# What may be otherwise in a moment.
_PASSING: Final = frozenset({ErrorCode.FETCH_FAILED, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY})


def _encode(frame: Frame) -> ItemPicture:
    return ItemPicture(
        frame=frame.index,
        time_s=frame.time_s,
        large=encode_preview(frame.pixels, LARGE_PX),
        small=encode_preview(frame.pixels, SMALL_PX),
    )


def deciding_place(frames: Sequence[Frame], evidence: Sequence[Evidence]) -> int:
    """The place among `frames` of the one that the first evidence names, by its index or else the nearest time."""
    for vote in evidence:
        same = [place for place, frame in enumerate(frames) if frame.index == vote.frame]
        if same:
            return same[0]
        wanted = vote.time_s
        if wanted is not None and frames:
            return min(range(len(frames)), key=lambda place: abs((frames[place].time_s or 0.0) - wanted))
    return 0


def _choose_places(own: int, count: int, deciding: int) -> list[int]:
    """Of the item's own frames, which come first, as many as there is room for; then how else they are shown.

    The deciding one is always among them, so that they may be one more.
    """
    places = {*spread(own, _MAX_STRIP, min(deciding, max(0, own - 1))), *([deciding] if count else [])}
    others = [place for place in range(own, count) if place not in places]
    return sorted({*places, *others[: max(0, _MAX_STRIP - len(places))]})


def spread(count: int, most: int, kept: int) -> list[int]:
    """At most `most` of the places 0..count-1, evenly spread, ascending; `kept` is one of them."""
    if count <= most:
        return list(range(count))
    places = {round(step * (count - 1) / (most - 1)) for step in range(most)}
    if kept not in places:
        places.discard(min((place for place in places), key=lambda place: abs(place - kept)))
        places.add(kept)
    return sorted(places)
