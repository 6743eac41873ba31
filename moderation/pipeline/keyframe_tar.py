"""The tar of a shard of cut videos: the entries of each item, and their bytes."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moderation.media import encode_jpeg
from moderation.media.keyframes import CUT_FROM
from moderation.sources.items import make_id
from moderation.sources.keys import PICTURES, VIDEOS
from moderation.sources.tar import MAX_SIDECAR
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject

# Manifest ids are strangers' text: only ids of this form name a folder; item.json holds the others.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")

TarEntry = tuple[str, bytes]  # name, content


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The tar entries of one item. frames: how many were cut; 0 where the item was passed on or failed."""

    item: Item
    members: tuple[TarEntry, ...]
    kind: Kind
    frames: int = 0
    error: ErrorCode | None = None

    @property
    def held_bytes(self) -> int:
        """Encoded bytes in memory."""
        return sum(len(data) for _, data in self.members)


def write_tar(cuts: Iterable[Cut]) -> bytes:
    """A tar of all entries, in order; the same cuts give the same bytes."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for cut in cuts:
                for name, data in cut.members:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()


def folder_name(item_id: str) -> str:
    """The item's folder in the tar: its id where that is a plain name, else a hash of it."""
    return item_id if _PLAIN_ID.fullmatch(item_id) else make_id("keyframes", item_id)


def cut_media(item: Item, media: Media) -> Cut:
    """The frames of a decoded video as entries, each with its time; and a record of the source video."""
    folder = folder_name(item.item_id)
    members: list[TarEntry] = []
    for frame in media.frames:
        members.append((f"{folder}/{frame.index:06d}.jpg", encode_jpeg(frame.pixels)))
        members.append((f"{folder}/{frame.index:06d}.json", _json({"time_s": frame.time_s})))
    members.append((f"{folder}/item.json", _about(item, media)))
    return Cut(item=item, members=tuple(members), kind=media.kind, frames=len(media.frames), error=media.error)


def pass_on(item: Item, payloads: Sequence[bytes]) -> Iterator[TarEntry]:
    """The entries of an item that is not a video; the tar's reader makes the same item of them."""
    if item.kind is Kind.KEYFRAMES:
        return _pass_on_keyframes(item, payloads)
    if len(payloads) > 1 or item.kind is Kind.ALBUM:
        return _pass_on_album(item, payloads)
    return _pass_on_picture(item, payloads[0])


def _pass_on_keyframes(item: Item, payloads: Sequence[bytes]) -> Iterator[TarEntry]:
    folder = folder_name(item.item_id)
    for place, (source, data) in enumerate(zip(item.objects, payloads, strict=True)):
        name = f"{folder}/{place if source.frame is None else source.frame:06d}"
        yield f"{name}.{_known_suffix(source) or 'jpg'}", data
        if source.time_s is not None:
            yield f"{name}.json", _json({"time_s": source.time_s})
    yield f"{folder}/item.json", _about(item)


def _pass_on_album(item: Item, payloads: Sequence[bytes]) -> Iterator[TarEntry]:
    folder = folder_name(item.item_id)
    for place, (source, data) in enumerate(zip(item.objects, payloads, strict=True)):
        # Without a media suffix the reader would not count it to the album; its type is decided by content.
        yield f"{folder}.{place}.{_known_suffix(source) or 'jpg'}", data
    yield f"{folder}.json", _about(item)


def _pass_on_picture(item: Item, data: bytes) -> Iterator[TarEntry]:
    folder = folder_name(item.item_id)
    suffix = _known_suffix(item.objects[0])
    # Without a known suffix its type is decided by content alone, as in the source.
    yield f"{folder}.{suffix}" if suffix else folder, data
    yield f"{folder}.json", _about(item)


def _known_suffix(source: MediaObject) -> str:
    suffix = source.name.rpartition(".")[2].lower()
    return suffix if suffix in PICTURES | VIDEOS else ""


def _about(item: Item, media: Media | None = None) -> bytes:
    cut_from: dict[str, object] = {"item_id": item.item_id, "uri": item.uri}
    if len(item.objects) == 1:
        cut_from |= {"etag": item.objects[0].etag, "size_bytes": item.objects[0].size_bytes}
    if media is not None:
        cut_from |= {
            "duration_s": media.duration_s,
            "widest_gap_s": media.widest_gap_s,
            "frames": len(media.frames),
            "frames_total": media.frames_total or None,
            "width": media.width,
            "height": media.height,
            "unseen": ",".join(media.unseen) or None,
            "error_code": media.error,
            "error_detail": media.error_detail or None,
        }
    cut_from = {name: value for name, value in cut_from.items() if value is not None}
    return _bound_sidecar(cut_from, item.attributes)


def _bound_sidecar(cut_from: Mapping[str, object], attributes: Mapping[str, str]) -> bytes:
    """The record of the source and the item's attributes, as far as a reader takes them: it drops a larger file."""
    # Attributes are a stranger's: one of the same name would take the place of what this job says of the video.
    known = {"cut_from", *(CUT_FROM + name for name in cut_from)}
    kept = {name: value for name, value in attributes.items() if name not in known}
    # First: of attributes that are too large for a row, the last are left out.
    whole = _json({"cut_from": cut_from, **kept})
    if len(whole) <= MAX_SIDECAR:
        return whole
    record = {**cut_from, "left_out": "attributes: too large"}
    # What an earlier job did not see of the video stays unseen.
    whole = _json({"cut_from": record, **{n: v for n, v in kept.items() if n.startswith(CUT_FROM)}})
    if len(whole) <= MAX_SIDECAR:
        return whole
    return _json({"cut_from": {"error_code": ErrorCode.TOO_LARGE, **record}})


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
