"""Frozen domain types; see the glossary in ARCHITECTURE.md. Imports nothing but numpy and the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


class Kind(StrEnum):
    """What an item is."""

    IMAGE = "image"
    ANIMATION = "animation"
    VIDEO = "video"
    KEYFRAMES = "keyframes"
    ALBUM = "album"
    UNKNOWN = "unknown"  # not decoded: skipped, or an error before the type was known


class Role(StrEnum):
    """What a frame is to its item; only a `frame` counts as one of its frames."""

    FRAME = "frame"
    TILE = "tile"  # a part of a frame, looked at more closely
    WHOLE = "whole"  # pictures of an album put together that were one picture
    BACKDROP = "backdrop"  # a transparent frame over black: a viewer may show it over either
    VARIANT = "variant"  # a frame as other viewers show it: other colours, another side up, without its transparency


class Verdict(StrEnum):
    """What is decided of an item."""

    BLOCK = "block"
    REVIEW = "review"
    PASS = "pass"


class Status(StrEnum):
    """Whether an item could be judged."""

    OK = "ok"
    ERROR = "error"
    SKIPPED = "skipped"
    ESCALATED = "escalated"  # on an illegal list: blocked, and nothing else is kept or shown of it


class ErrorCode(StrEnum):
    """Why an item's `status` is not `ok`."""

    TOO_LARGE = "too_large"  # more bytes than media.max_bytes
    TOO_MANY_PIXELS = "too_many_pixels"  # more pixels than media.max_pixels
    TOO_LONG = "too_long"  # longer than media.max_seconds
    TRUNCATED = "truncated"  # the head decoded and was scored, the rest is missing
    UNSUPPORTED_TYPE = "unsupported_type"  # the name says media, the content does not
    CORRUPT = "corrupt"  # a known type that its decoder refuses
    EMPTY = "empty"  # no bytes
    NO_FRAMES = "no_frames"  # a container without a single picture
    TIMEOUT = "timeout"  # decoding passed media.decode_timeout_s
    NOT_FOUND = "not_found"
    CHANGED = "changed"  # another object than the one that was listed, or than its manifest says
    FORBIDDEN = "forbidden"  # storage refused, or outside source.allow
    FETCH_FAILED = "fetch_failed"  # storage kept failing after its retries
    DECODER_CRASHED = "decoder_crashed"  # the process died on this item
    OUT_OF_MEMORY = "out_of_memory"  # the item alone does not fit in a worker
    SCORE_FAILED = "score_failed"  # a detector raised on it
    NOT_MEDIA = "not_media"  # status=skipped: media neither by content nor by name


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaObject:
    """Where the encoded bytes of a picture or video lie: an object (`uri`), a byte range of it (`offset`, `size_bytes`:
    a tar's member), or a cell of a Parquet/Arrow file (`row_group`, `row`, `column`)."""

    uri: str
    name: str  # what its name says of its type ("a/b.jpg"); never used as a path
    size_bytes: int | None = None
    etag: str | None = None  # an opaque version: etag, or size and time of a local file
    offset: int | None = None
    row_group: int | None = None
    row: int | None = None  # within the row group
    column: str | None = None
    frame: int | None = None  # of pre-cut keyframes: index in the video
    time_s: float | None = None
    content_type: str | None = None  # what the store said with the bytes; not part of a plan


class TypedBytes(bytes):
    """Encoded bytes with the type that the store gave them."""

    content_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What gets one verdict."""

    item_id: str
    uri: str
    objects: tuple[MediaObject, ...]
    kind: Kind | None = None  # None: decided by content
    attributes: Mapping[str, str] = field(default_factory=dict)
    error: ErrorCode | None = None  # known before fetching, e.g. FORBIDDEN; nothing is read then
    error_detail: str = ""

    @property
    def size_bytes(self) -> int:
        """Encoded bytes, 0 where unknown."""
        return sum(o.size_bytes or 0 for o in self.objects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A bounded list of items: the unit of scheduling, retry and commit; `shard_id` is a content hash."""

    shard_id: str
    items: tuple[Item, ...]

    @property
    def size_bytes(self) -> int:
        """Encoded bytes, 0 where unknown."""
        return sum(i.size_bytes for i in self.items)

    def __reduce__(self) -> tuple[object, ...]:
        # Plain tuples: pickling 256 items as dataclasses takes 2 ms of the driver, this 0.3.
        return _restore_shard, (self.shard_id, [(_ITEM(i), [_OBJECT(o) for o in i.objects]) for i in self.items])


_OBJECT_NAMES = tuple(f.name for f in fields(MediaObject))
_ITEM_NAMES = tuple(f.name for f in fields(Item) if f.name != "objects")
_OBJECT, _ITEM = attrgetter(*_OBJECT_NAMES), attrgetter(*_ITEM_NAMES)


def _restore_shard(shard_id: str, rows: list[tuple[Any, Any]]) -> Shard:
    def media(values: Any) -> MediaObject:  # noqa: ANN401 - fields of several types
        return MediaObject(**dict(zip(_OBJECT_NAMES, values, strict=True)))

    items = (Item(objects=tuple(map(media, o)), **dict(zip(_ITEM_NAMES, v, strict=True))) for v, o in rows)
    return Shard(shard_id=shard_id, items=tuple(items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture of an item, decoded.

    pixels: uint8 [H,W,3], sRGB, upright, alpha over white (`backdrop`: over black; `variant`: as others show it);
    perhaps scaled down to the canvas the stack asked for.
    width, height: of the picture as stored (upright), before scaling.
    parent: index of the frame of which this one is a part, and which is therefore its context; box: where it lies in
    that, x0, y0, x1, y1 in 0..1.
    readings: what its whole file says of itself, on the first frame of the file: `c2pa.present`; NaN = cannot be said.
    """

    index: int
    pixels: U8
    width: int
    height: int
    time_s: float | None = None
    role: Role = Role.FRAME
    parent: int | None = None
    box: tuple[float, float, float, float] | None = None
    readings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What decoding found in one item: its frames, or why there are none.

    `error` with frames (TRUNCATED, or a broken member of an album) means: scored, but never passed.
    """

    kind: Kind
    frames: tuple[Frame, ...] = ()
    frames_total: int = 0
    duration_s: float | None = None
    widest_gap_s: float | None = None  # between two scored frames, or the ends of the video
    width: int | None = None
    height: int | None = None
    error: ErrorCode | None = None
    error_detail: str = ""
    unseen: tuple[str, ...] = ()  # what a viewer may be shown of it that is not among its frames: "track", "document"
    # Of a video: what read its frames, and why, where it was not the first choice. Of keyframes: what is only claimed.
    reader: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How much of an item was looked at: what a policy may ask before it passes one.

    widest_gap_s: between two scored frames, or the ends of a video. unseen: see `Media`.
    """

    kind: Kind
    duration_s: float | None = None
    widest_gap_s: float | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Part of a frame that a detector points at; x0, y0, x1, y1 in 0..1 of the frame."""

    detector: str
    label: str
    score: float
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemVotes:
    """All votes on one item.

    scores: float32 [F,L], a column for each of `labels`; NaN = not asked (null in the tables).
    roles, parents, boxes: as of `Frame`; empty where every frame is a `frame` without a parent.
    """

    labels: tuple[str, ...]
    frames: tuple[int, ...]
    times_s: tuple[float | None, ...]
    scores: F32
    regions: tuple[tuple[Region, ...], ...] = ()
    blobs: Mapping[str, tuple[bytes | None, ...]] = field(default_factory=dict)  # "pdq.hash": a value a frame
    roles: tuple[Role, ...] = ()
    parents: tuple[int | None, ...] = ()
    boxes: tuple[tuple[float, float, float, float] | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A vote that a verdict rests on. box: 0..1 of the frame; of a tile, of the frame that it is cut from."""

    detector: str
    label: str
    score: float
    frame: int | None = None
    time_s: float | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """What a policy may ask of an item besides its votes: all of it stands in the item's row of the verdicts.

    content_hash: sha256 of its bytes, hexadecimal. pdq: of the frame in the middle, hexadecimal.
    """

    item_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    content_hash: str | None = None
    pdq: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Frames of a video that follow each other and that a check finds: times of the first and the last of them.

    score: the highest of its frames.
    """

    start_s: float
    end_s: float
    check: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the policy makes of one item's votes.

    scores: one number a check, None = not computed. `reason` is `<stage>:<check>:<action>`, as
    `context:explicit:review`; or `list:<list>:<action>`, `error:<code>`, `unseen:<what>`. threshold: the one that
    decided, of `check`. severity, label: of the check that objected. reason_text: the reason in words. audit: drawn to
    be labelled, whatever the verdict.
    """

    verdict: Verdict
    reason: str
    check: str | None
    score: float | None
    confidence: float | None
    evidence: tuple[Evidence, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    threshold: float | None = None
    severity: str | None = None
    label: str | None = None
    reason_text: str = ""
    segments: tuple[Segment, ...] = ()
    audit: bool = False
    review_rank: float | None = None  # None: not for review, or nothing is known to order it by
