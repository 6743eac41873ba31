"""Messages between a worker and its decoder processes: JSON and bytes over a socket, pixels through shared memory.

Nothing is unpickled: a decoder that a stranger's file has taken over must not be able to run code in the worker.

    to the decoder    uint32 length, JSON {item, limits, payloads: a size or an error each}, then the payloads' bytes
    from the decoder  uint32 length, JSON {media, frames} with a descriptor of the memory that holds the pixels
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moderation.errors import ItemError
from moderation.media.limits import MemberLimits
from moderation.media.objects import Payload
from moderation.types import ErrorCode, Frame, Item, Kind, Media, MediaObject, Role

_LENGTH = struct.Struct("!I")
MAX_HEADER_BYTES = 64 << 20  # enough for an album of many thousand objects
_CHUNK_BYTES = 1 << 20
# Maps all pages at once: one by one, at first touch, they take longer than the copy.
_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)


def send_request(
    sock: socket.socket, item: Item, payloads: Sequence[Payload], limits: MemberLimits | None = None
) -> None:
    """Send an item and the payloads of its objects. Raises OSError when the other end is gone."""
    described = [len(p) if isinstance(p, bytes) else {"code": str(p.code), "detail": p.detail} for p in payloads]
    bounds = None if limits is None else [limits.max_frames, limits.max_tiles]
    _send_json(sock, {"item": _describe_item(item), "payloads": described, "limits": bounds})
    for payload in payloads:
        if isinstance(payload, bytes):
            sock.sendall(payload)


def receive_request(sock: socket.socket) -> tuple[Item, list[Payload], MemberLimits | None] | None:
    """The next item with the limits of its own; None when the worker has gone."""
    header = _receive_json(sock)
    if header is None:
        return None
    payloads: list[Payload] = []
    for entry in header["payloads"]:
        if isinstance(entry, int):
            payloads.append(_receive_exactly(sock, entry))
        else:
            payloads.append(ItemError(ErrorCode(entry["code"]), entry["detail"]))
    bounds = header["limits"]
    limits = None if bounds is None else MemberLimits(max_frames=bounds[0], max_tiles=bounds[1])
    return _read_item(header["item"]), payloads, limits


def send_media(sock: socket.socket, media: Media) -> None:
    """Send the result of decoding; the pixels lie frame after frame in memory that is handed over."""
    total = sum(frame.pixels.nbytes for frame in media.frames)
    frames = [
        {"shape": frame.pixels.shape, "index": frame.index, "width": frame.width, "height": frame.height}
        | {"time_s": frame.time_s, "role": str(frame.role), "parent": frame.parent, "box": frame.box}
        | {"readings": dict(frame.readings)}
        for frame in media.frames
    ]
    fields = {name: getattr(media, name) for name in _MEDIA_FIELDS}
    header = json.dumps({"media": fields, "frames": frames}).encode()
    if not total:
        sock.sendall(_LENGTH.pack(len(header)) + header)
        return
    descriptor = os.memfd_create("moderation-frames")
    try:
        os.ftruncate(descriptor, total)
        with mmap.mmap(descriptor, total, flags=_FLAGS) as memory:
            start = 0
            for frame in media.frames:
                target = np.frombuffer(memory, np.uint8, frame.pixels.size, start).reshape(frame.pixels.shape)
                target[...] = frame.pixels
                start += frame.pixels.nbytes
                del target  # memory can't be unmapped while an array refers to it
        socket.send_fds(sock, [_LENGTH.pack(len(header))], [descriptor])
        sock.sendall(header)
    finally:
        os.close(descriptor)


def receive_media(sock: socket.socket) -> Media | None:
    """The decoder's result; None when it is gone. Raises ValueError for a malformed answer, OSError."""
    data, descriptors, _, _ = socket.recv_fds(sock, _LENGTH.size, 4)
    try:
        if len(data) < _LENGTH.size:
            rest = _receive_some(sock, _LENGTH.size - len(data)) if data else None
            if rest is None:
                return None
            data += rest
        (size,) = _LENGTH.unpack(data)
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        text = _receive_some(sock, size)
        if text is None:
            return None
        answer = json.loads(text)
        return _read_media(answer["media"], answer["frames"], descriptors)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


_MEDIA_FIELDS = ("kind", "frames_total", "duration_s", "widest_gap_s", "width", "height", "error", "error_detail",
                "unseen", "reader")  # fmt: skip


def _read_media(fields: Mapping[str, Any], frames: Sequence[Mapping[str, Any]], descriptors: Sequence[int]) -> Media:
    values = {name: fields[name] for name in _MEDIA_FIELDS}
    values |= {
        "kind": Kind(fields["kind"]),
        "error": None if fields["error"] is None else ErrorCode(fields["error"]),
        "unseen": tuple(map(str, fields["unseen"])),
    }
    return Media(**values, frames=_read_frames(frames, descriptors))


def _read_frames(described: Sequence[Mapping[str, Any]], descriptors: Sequence[int]) -> tuple[Frame, ...]:
    if not described:
        return ()
    sizes = [_count_bytes(frame["shape"]) for frame in described]
    if len(descriptors) != 1 or os.fstat(descriptors[0]).st_size < sum(sizes):
        raise ValueError("frames without their pixels")
    # The arrays keep it mapped; it is unmapped with the last of them.
    memory = mmap.mmap(descriptors[0], sum(sizes), flags=_FLAGS)
    frames = []
    start = 0
    for frame, size in zip(described, sizes, strict=True):
        pixels = np.frombuffer(memory, np.uint8, size, start).reshape(frame["shape"])
        start += size
        frames.append(
            Frame(
                index=frame["index"],
                pixels=pixels,
                width=frame["width"],
                height=frame["height"],
                time_s=frame["time_s"],
                role=Role(frame["role"]),
                parent=frame["parent"],
                box=None if frame["box"] is None else tuple(frame["box"]),
                readings={str(name): float(value) for name, value in frame["readings"].items()},
            )
        )
    return tuple(frames)


def _count_bytes(shape: Sequence[int]) -> int:
    height, width, channels = shape
    if channels != 3 or height < 1 or width < 1:
        raise ValueError(f"a frame of {list(shape)}")
    return int(height) * int(width) * 3


def _describe_item(item: Item) -> dict[str, Any]:
    # Only what decoding needs: a URI may carry a signature.
    return {
        "kind": item.kind,
        "error": item.error,
        "error_detail": item.error_detail,
        "attributes": dict(item.attributes),  # of keyframes: how they were cut
        # Like a name, a place in a table and the store's type are claims to be media.
        "objects": [
            {"name": o.name, "frame": o.frame, "time_s": o.time_s, "column": o.column, "content_type": o.content_type}
            for o in item.objects
        ],
    }


def _read_item(fields: Mapping[str, Any]) -> Item:
    return Item(
        item_id="",
        uri="",
        objects=tuple(MediaObject(uri="", **entry) for entry in fields["objects"]),
        kind=None if fields["kind"] is None else Kind(fields["kind"]),
        error=None if fields["error"] is None else ErrorCode(fields["error"]),
        error_detail=fields["error_detail"],
        attributes=fields["attributes"],
    )


def _send_json(sock: socket.socket, value: object) -> None:
    text = json.dumps(value).encode()
    sock.sendall(_LENGTH.pack(len(text)) + text)


def _receive_json(sock: socket.socket) -> dict[str, Any] | None:
    length = _receive_some(sock, _LENGTH.size)
    if length is None:
        return None
    text = _receive_some(sock, _LENGTH.unpack(length)[0])
    if text is None:
        return None
    header: dict[str, Any] = json.loads(text)
    return header


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = _receive_some(sock, size)
    if data is None:
        raise EOFError("the worker has gone")
    return data


def _receive_some(sock: socket.socket, size: int) -> bytes | None:
    """Receive `size` bytes; None when the other end is gone before them."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = sock.recv_into(view[:_CHUNK_BYTES])
        if not count:
            return None
        view = view[count:]
    return bytes(buffer)
