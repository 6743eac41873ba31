"""Context: parts of a picture as extra frames, and the whole picture that an album was cut from.

Networks see a frame at 224 pixels. For a nine-picture collage, a screenshot of eight screens or a 24 MP crowd that is
too little, so these are cut into tiles. Of a picture that was cut into nine the pieces mean nothing alone, so they are
stitched. Both are off by default (`media.tiles`, `media.wholes`); their cost is more frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from moderation.config.model import MediaConfig
from moderation.media.limits import canvas_size
from moderation.media.pixels import scale_array
from moderation.media.seams import ALBUM_LAYOUTS, Box, Stitch, find_grid, stitch_album
from moderation.types import U8, Frame, Kind, Media, Role

DETAIL_RATIO = 3  # a picture to be tiled is decoded to this many canvas sizes: tiles of a 3 x 3 cut are then sharp
_MIN_LONG_RATIO = 2.0  # length over width, from which a picture is cut along its length
_OVERLAP = 0.15  # share of a tile that overlaps the next: what lies on a cut is whole in one of them
_MAX_PROPORTION_RATIO = 1.05  # between the proportions of a cut picture's members


def detailed(config: MediaConfig) -> MediaConfig:
    """The limits for decoding a picture for `add_tiles`."""
    if config.tiles == "off":
        return config
    return config.model_copy(update={"canvas_px": min(4096, DETAIL_RATIO * config.canvas_px)})


def add_tiles(media: Media, config: MediaConfig) -> Media:
    """A still picture decoded with `detailed(config)`: its frame at canvas size, followed by its tiles.

    Tiles have `role=TILE`, the frame as parent, their box in it, and indices after the item's frames. Backdrops
    and variants are tiled like their frames.
    """
    if config.tiles == "off" or media.kind is not Kind.IMAGE or media.frames_total != 1 or not media.frames:
        return media
    scaled = tuple(_scale_to_canvas(frame, config) for frame in media.frames)
    tiles = [tile for frame in media.frames for tile in _cut_frame(frame, config)]
    first = media.frames_total + sum(frame.role is not Role.FRAME for frame in media.frames)
    return replace(media, frames=(*scaled, *(replace(tile, index=first + k) for k, tile in enumerate(tiles))))


def _scale_to_canvas(frame: Frame, config: MediaConfig) -> Frame:
    return replace(frame, pixels=scale_array(frame.pixels, canvas_size(frame.width, frame.height, config.canvas_px)))


def _cut_frame(frame: Frame, config: MediaConfig) -> Iterator[Frame]:
    boxes = find_grid(frame.pixels, config.max_tiles)
    if not boxes and config.tiles == "auto":
        boxes = tuple(cut_boxes(frame.width, frame.height, config.canvas_px, config.max_tiles))
    for box in boxes:
        yield _cut_tile(frame, box, config)


def cut_boxes(width: int, height: int, canvas_px: int, max_tiles: int) -> Iterator[Box]:
    """Overlapping boxes that cover a picture at about canvas size each; none where the canvas shows it well.

    A long picture (twice as long as wide) is cut along its length into nearly square pieces; one of twice the canvas or
    more in both directions into 2 x 2, of three times or more into 3 x 3. At most `max_tiles`.
    """
    short, long = min(width, height), max(width, height)
    if long >= _MIN_LONG_RATIO * short:
        count = min(max_tiles, max(2, math.ceil((long / short - _OVERLAP) / (1 - _OVERLAP))))
        rows, columns = (count, 1) if height == long else (1, count)
    else:
        each = min(DETAIL_RATIO, short // canvas_px)
        while each * each > max_tiles:
            each -= 1
        if each < 2:
            return
        rows = columns = each
    for top, bottom in _spans(rows):
        for left, right in _spans(columns):
            yield left, top, right, bottom


def _spans(count: int) -> list[tuple[float, float]]:
    """`count` equal spans of 0..1, each overlapping the next."""
    length = 1 / (count - (count - 1) * _OVERLAP)
    step = length * (1 - _OVERLAP)
    return [(k * step, min(1.0, k * step + length)) for k in range(count)]


def _cut_tile(frame: Frame, box: Box, config: MediaConfig) -> Frame:
    height, width = frame.pixels.shape[:2]
    left, right = _pixels(box[0], box[2], width)
    top, bottom = _pixels(box[1], box[3], height)
    piece = np.ascontiguousarray(frame.pixels[top:bottom, left:right])
    # Width and height are those of the stored picture, as for every frame; the pixels are those decoded.
    wide, high = round((box[2] - box[0]) * frame.width), round((box[3] - box[1]) * frame.height)
    size = canvas_size(piece.shape[1], piece.shape[0], config.canvas_px)
    return Frame(
        index=frame.index,  # the caller, who knows all frames, renumbers it
        pixels=scale_array(piece, size),
        width=max(1, wide),
        height=max(1, high),
        time_s=frame.time_s,
        role=Role.TILE,
        parent=frame.index,
        box=_as_stored(box),
    )


def _as_stored(box: Box) -> Box:
    """A box in the precision of the tables, so that judging from them gives the same result."""
    x0, y0, x1, y1 = (float(np.float32(side)) for side in box)
    return x0, y0, x1, y1


def _pixels(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(length - 1, max(0, round(start * length)))
    return first, max(first + 1, min(length, round(end * length)))


def stitch_frames(frames: Sequence[Frame], index: int, config: MediaConfig) -> tuple[Frame, ...]:
    """An album's frames, followed by the picture that they were cut from, if any.

    frames: one per member, in order, all of them stills. The stitched picture gets `role=WHOLE` and this index; its
    pieces get it as their parent. They stay frames of the item, which was uploaded in pieces.
    """
    if config.wholes == "off" or len(frames) not in ALBUM_LAYOUTS or not _agree_in_proportions(frames):
        return tuple(frames)
    stitch = stitch_album([f.pixels for f in frames])
    if stitch is None:
        return tuple(frames)
    boxes = [(c / stitch.columns, r / stitch.rows) for r in range(stitch.rows) for c in range(stitch.columns)]
    members = tuple(
        replace(f, parent=index, box=_as_stored((x, y, x + 1 / stitch.columns, y + 1 / stitch.rows))) if bound else f
        for f, (x, y), bound in zip(frames, boxes, stitch.bound, strict=True)
    )
    return (*members, _stitch(frames, stitch, index, config))


def _agree_in_proportions(frames: Sequence[Frame]) -> bool:
    shapes = sorted(f.width / f.height for f in frames)
    return shapes[-1] <= _MAX_PROPORTION_RATIO * shapes[0]


def _stitch(frames: Sequence[Frame], stitch: Stitch, index: int, config: MediaConfig) -> Frame:
    columns, rows = stitch.columns, stitch.rows
    width = sum(f.width for f in frames[:columns])
    height = sum(f.height for f in frames[::columns])
    wide, high = canvas_size(width, height, config.canvas_px)
    size = max(1, wide // columns), max(1, high // rows)
    pieces = [scale_array(f.pixels, size) for f in frames]
    lines = [np.concatenate(pieces[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
    pixels: U8 = np.ascontiguousarray(np.concatenate(lines, axis=0))
    return Frame(index=index, pixels=pixels, width=width, height=height, role=Role.WHOLE)
