"""Items of several objects, object by object: each is decoded and scored by itself, and the results are gathered.

An album or a set of keyframes may have any number of pictures. Held together they would need memory without bound; so
only as many are held as wait for the next batch, like the pictures of separate items. Large ones are also fetched in
ranges. The row is that of the item decoded as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import pairwise

import numpy as np

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.album import claimed_limits, gather_album, may_be_cut, member_limits
from moderation.media.keyframes import KEYFRAME_LIMITS, chosen_positions, gather_keyframes
from moderation.media.limits import OBJECT_S, MemberLimits
from moderation.media.objects import Payload
from moderation.scoring.batching import Decoded
from moderation.scoring.votes import BatchVotes, join_votes, take_votes
from moderation.types import U8, ErrorCode, Item, Kind, Media, MediaObject, Role

Scored = tuple[Decoded, BatchVotes | ItemError | None]

_NO_PIXELS: U8 = np.empty((0, 0, 3), np.uint8)
# Of an object whose size is not known before it is fetched: a large photograph.
_UNKNOWN_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class TimeSpent:
    """Seconds that decoding the objects of one item has taken so far, in all threads together."""

    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: float) -> None:
        """Add the time of one object."""
        with self._lock:
            self.seconds += seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRange:
    """Objects `start` to `stop` of an item, which are fetched at once: nearly always all of them.

    wanted: positions of the item's objects that are decoded. limits: of each; None where their content decides.
    """

    item: Item
    start: int
    stop: int
    spent: TimeSpent
    wanted: Container[int]
    limits: MemberLimits | None = None

    @property
    def is_whole(self) -> bool:
        """Whether these are all objects of the item."""
        return self.stop - self.start == len(self.item.objects)

    @property
    def expected_bytes(self) -> int:
        """What it will hold when it is fetched, as far as it is known."""
        return self.item.size_bytes if self.is_whole else sum(map(_expected, self.item.objects[self.start : self.stop]))

    @property
    def request(self) -> Item:
        """The item with these objects only."""
        if self.is_whole:
            return self.item
        # With a kind: what the manifest says of an object alone does not hold for one of several.
        kind = self.item.kind or Kind.ALBUM
        return replace(self.item, objects=self.item.objects[self.start : self.stop], kind=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What is decoded at once: one object of an item of several, or (position None) a whole item.

    payloads: of these objects. wanted: False for a keyframe that is left out because there are too many.
    """

    item: Item
    position: int | None
    payloads: Sequence[Payload]
    spent: TimeSpent
    limits: MemberLimits | None = None
    wanted: bool = True

    def is_late(self, timeout_s: float) -> bool:
        """Whether the objects before it took all the time of the item. timeout_s: of one object."""
        return self.spent.seconds > timeout_s + OBJECT_S * (len(self.item.objects) - 1)

    @property
    def held_bytes(self) -> int:
        """Size of its encoded bytes."""
        return sum(len(p) for p in self.payloads if isinstance(p, bytes))

    @property
    def request(self) -> Item:
        """The item with the object that is decoded, by its content."""
        if self.position is None:
            return self.item
        return replace(self.item, objects=(self.item.objects[self.position],), kind=None)


def split_item(item: Item, max_bytes: int, config: MediaConfig, *, whole: bool = False) -> Iterator[ObjectRange]:
    """The ranges in which an item is fetched, each of about `max_bytes` (or one object)."""
    count = len(item.objects)
    if whole or _decoded_whole(item, config):
        yield ObjectRange(item=item, start=0, stop=count, spent=TimeSpent(), wanted=range(count))
        return
    begins = list(_begins(item, max_bytes, config))
    # Told once: an item of 100,000 objects may have thousands of ranges, and each of these looks at all objects.
    wanted: Container[int] = range(count)
    limits = claimed_limits(item.objects, config) if len(begins) > 1 else None
    if item.kind is Kind.KEYFRAMES:
        limits, wanted = KEYFRAME_LIMITS, chosen_positions(item, config)
    spent = TimeSpent()
    for start, stop in pairwise([*begins, count]):
        yield ObjectRange(item=item, start=start, stop=stop, spent=spent, wanted=wanted, limits=limits)


def _begins(item: Item, max_bytes: int, config: MediaConfig) -> Iterator[int]:
    """Where the ranges of an item begin."""
    start = held = 0
    yield start
    for position, source in enumerate(item.objects):
        size_bytes = min(_expected(source), config.max_bytes)
        if position > start and held + size_bytes > max_bytes:
            yield position
            start, held = position, 0
        held += size_bytes


def _expected(source: MediaObject) -> int:
    return _UNKNOWN_BYTES if source.size_bytes is None else source.size_bytes


def split_members(
    part: ObjectRange, payloads: Sequence[Payload], config: MediaConfig, *, whole: bool = False
) -> Iterator[Member]:
    """What is decoded of a fetched range, in order. payloads: one per object of it. whole: the item at once."""
    item = part.item
    if whole or _decoded_whole(item, config):
        yield Member(item=item, position=None, payloads=payloads, spent=part.spent)
        return
    limits = part.limits or member_limits(payloads, config)
    for position, payload in enumerate(payloads, part.start):
        yield Member(
            item=item,
            position=position,
            payloads=[payload],
            spent=part.spent,
            limits=limits,
            wanted=position in part.wanted,
        )


def _decoded_whole(item: Item, config: MediaConfig) -> bool:
    """Whether an item is one object, was refused, or is an album whose few pictures are compared with each other."""
    count = len(item.objects)
    return count < 2 or item.error is not None or (item.kind is not Kind.KEYFRAMES and may_be_cut(count, config))


def gather_items(scored: Iterable[Scored], config: MediaConfig) -> Iterator[Scored]:
    """Items with their votes, in order, from the items and members that `split_members` made of them."""
    members: list[Scored] = []
    for decoded, votes in scored:
        if decoded.position is None:
            yield decoded, votes
            continue
        # The pixels have been scored: let them go.
        bare = tuple(replace(frame, pixels=_NO_PIXELS) for frame in decoded.media.frames)
        members.append((replace(decoded, media=replace(decoded.media, frames=bare)), votes))
        if decoded.position == len(decoded.item.objects) - 1:
            yield _gather(members, config)
            members = []


def _gather(members: Sequence[Scored], config: MediaConfig) -> Scored:
    item = members[0][0].item
    sizes = [decoded.size_bytes for decoded, _ in members if decoded.size_bytes is not None]
    hashes = [decoded.content_hash for decoded, _ in members if decoded.content_hash is not None]
    whole = Decoded(
        item=item,
        media=_gather_media(item, [decoded.media for decoded, _ in members], config)
        if sizes
        else _unread(item, members),
        size_bytes=sum(sizes) if sizes else (item.size_bytes or None),
        content_hash=_join_hashes(hashes) if len(hashes) == len(members) else None,
    )
    return whole, _gather_votes(members)


def _gather_media(item: Item, media: Sequence[Media], config: MediaConfig) -> Media:
    if item.kind is not Kind.KEYFRAMES:
        return gather_album(media, config)
    wanted = chosen_positions(item, config)
    return gather_keyframes(item, {k: m for k, m in enumerate(media) if k in wanted or m.error is not None})


def _unread(item: Item, members: Sequence[Scored]) -> Media:
    first = members[0][0].media
    return Media(kind=item.kind or Kind.UNKNOWN, error=first.error or ErrorCode.EMPTY, error_detail=first.error_detail)


def _join_hashes(hashes: Sequence[str]) -> str:
    """As `sources.content.content_hash` of the bytes together."""
    return sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()


def _gather_votes(members: Sequence[Scored]) -> BatchVotes | ItemError | None:
    """The votes of all members in the order of the item's frames: tiles and backdrops follow after all others."""
    failed = next((votes for _, votes in members if isinstance(votes, ItemError)), None)
    parts = [votes for _, votes in members if isinstance(votes, BatchVotes)]
    if failed is not None or not parts:
        return failed
    extra = [frame.role is not Role.FRAME for decoded, _ in members for frame in decoded.media.frames]
    votes = join_votes(parts)
    return take_votes(votes, sorted(range(len(extra)), key=extra.__getitem__)) if any(extra) else votes
