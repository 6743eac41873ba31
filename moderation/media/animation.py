"""Pictures with several frames or pages: GIF, APNG, WebP, AVIF sequences, TIFF, HEIC collections."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import MediaType
from moderation.media.choice import FrameChoice
from moderation.media.compose import Canvas, survey_layers
from moderation.media.image import OpenedPicture, mark_deep_key, open_layer, open_picture, read_still
from moderation.media.layers import Layer, gif_layers, lacks_colours, png_layers
from moderation.media.likeness import grid_of
from moderation.media.limits import Deadline, check_pixels, spread
from moderation.media.pixels import (
    DECODER_ERRORS,
    Picture,
    corrupt,
    describe,
    drop_xmp,
    gather_frames,
    load_partly,
    still_media,
    to_picture,
)
from moderation.media.samples import mend_tiff
from moderation.media.shown import as_in_file, as_layer
from moderation.media.tiles import add_tiles, detailed
from moderation.types import ErrorCode, Kind, Media

_LAYERED: dict[MediaType, Callable[[bytes], Iterable[Layer]]] = {MediaType.GIF: gif_layers, MediaType.PNG: png_layers}
_TOO_FEW_COLOURS = "its table of colours is too short, or missing"
# A frame of these formats is painted over earlier ones, so all frames must be decoded; each has its time.
_SEQUENTIAL = frozenset({MediaType.GIF, MediaType.PNG, MediaType.WEBP, MediaType.AVIF})
# Pages and pictures of a collection are decoded one by one; each may have 100 MP.
MAX_PAGES = 256
# Browsers show a frame of 10 ms or less for 100 ms, so even a frame without duration is seen.
_MIN_SHOWN_S, _SHOWN_INSTEAD_S = 0.01, 0.1


@dataclass(slots=True)
class Reel:
    """What was read of an animation. end_s: of its last frame, 0 without times; problem: what broke, else ""."""

    choice: FrameChoice
    total: int
    end_s: float = 0.0
    problem: str = ""


def decode_picture(data: bytes, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """A picture as IMAGE (one frame), or as ANIMATION where it has several: at most max_frames of those that look new.

    `time_s` and `duration_s` come from the frames' own durations; pages have none. A break after the first frame
    yields the frames before it and `error=TRUNCATED`. Frames left out because there are too many show in
    `widest_gap_s`; they are also reported as unseen `frames` where more than a small share of the time looks like no
    scored frame. Raises ItemError: TOO_MANY_PIXELS, UNSUPPORTED_TYPE, TIMEOUT, CORRUPT (not one frame decoded).
    """
    opened = open_picture(data, media_type, config, deadline)
    if media_type in _LAYERED:
        return _decode_layered(opened, media_type, config, deadline)
    try:
        total = int(getattr(opened.image, "n_frames", 1))
    except DECODER_ERRORS:
        total = 1  # the directory of frames is broken; the first frame may still decode
        opened = replace(opened, mended=ErrorCode.TRUNCATED)
    if total <= 1:
        return add_tiles(read_still(opened, detailed(config)), config)
    steps = range(total) if media_type in _SEQUENTIAL else spread(total, MAX_PAGES)
    reel = _read_frames(opened.image, media_type, steps, _start(data, total, config), config, deadline)
    return _gather(reel, opened, total, total - len(steps), media_type)


def _start(data: bytes, total: int, config: MediaConfig) -> Reel:
    return Reel(FrameChoice(config.max_frames, lambda: hashlib.blake2b(data, digest_size=32).digest()), total)


def _decode_layered(opened: OpenedPicture, media_type: MediaType, config: MediaConfig, deadline: Deadline) -> Media:
    """A GIF or PNG. One layer that covers its screen is decoded as it is; else they are composed as browsers do."""
    read_layers = _LAYERED[media_type]
    survey = survey_layers(read_layers(opened.data), opened.image.size, deadline)
    if isinstance(opened.image, PngImageFile) and survey.total < opened.image.n_frames:
        opened = replace(opened, mended=ErrorCode.TRUNCATED)
    if survey.is_still:
        still = add_tiles(read_still(opened, detailed(config)), config)
        lacking = survey.first is not None and lacks_colours(opened.image, survey.first.colours)
        return replace(still, error=ErrorCode.TRUNCATED, error_detail=_TOO_FEW_COLOURS) if lacking else still
    check_pixels(*survey.size, config.max_pixels)
    drawn = detailed(config) if survey.total == 1 else config
    reel = _start(opened.data, survey.total, config)
    reel = _read_layers(opened, read_layers(opened.data), survey.size, reel, drawn, deadline)
    if survey.total == 1 and reel.choice.held and not reel.problem:
        return add_tiles(still_media(reel.choice.held[0].picture, detail=opened.note), config)
    return _gather(reel, opened, survey.total, 0, media_type)


def _read_layers(
    opened: OpenedPicture,
    layers: Iterable[Layer],
    size: tuple[int, int],
    reel: Reel,
    config: MediaConfig,
    deadline: Deadline,
) -> Reel:
    """Compose and show the layers, in order, until one breaks."""
    broken: list[str] = []

    def load(layer: Layer) -> Image.Image:
        check_pixels(layer.width, layer.height, config.max_pixels)
        still = open_layer(layer.still, deadline)
        if reel.end_s:
            still.load()
        else:  # of a broken first layer the rows before the break are kept
            broken.append(load_partly(still))
        mark_deep_key(still, layer.still)
        if lacks_colours(still, layer.colours):
            broken.append(_TOO_FEW_COLOURS)
        return as_layer(still)

    canvas = Canvas(size, load)
    for index, layer in enumerate(layers):
        deadline.check()
        try:
            shown = as_in_file(canvas.add(layer), opened.image)
            _show_frame(shown, index, (reel.end_s, _shown_for(layer.shown_s)), reel, config)
        except DECODER_ERRORS as error:
            broken.append(describe(error))
        except ItemError as error:
            if error.code is not ErrorCode.CORRUPT:
                raise
            broken.append(error.detail)
        if any(broken):
            reel.problem = f"frame {index}: {''.join(broken)}"
            break
    return reel


def _gather(reel: Reel, opened: OpenedPicture, total: int, skipped: int, media_type: MediaType) -> Media:
    """Make the Media. skipped: number of pages that were not decoded."""
    stretches = reel.choice.finish()
    if not stretches:
        raise corrupt(media_type, reel.problem or "no frame decodes")
    problem = reel.problem or ("the end of the file is missing" if opened.mended else "")
    pictures = [s.picture for s in stretches]
    notes = dict.fromkeys([problem, opened.note, *(p.note for p in pictures)])
    duration_s, gap_s = (reel.end_s, reel.choice.widest_gap_s) if reel.end_s > 0 else (None, None)
    return Media(
        kind=Kind.ANIMATION,
        frames=gather_frames(pictures, total),
        frames_total=total,
        duration_s=duration_s,
        widest_gap_s=gap_s,
        width=pictures[0].frame.width,
        height=pictures[0].frame.height,
        error=ErrorCode.TRUNCATED if problem else None,
        error_detail="; ".join(filter(None, notes)),
        unseen=("frames",) if reel.choice.hides(float(skipped)) else (),
    )


def _read_frames(
    image: ImageFile, media_type: MediaType, steps: Iterable[int], reel: Reel, config: MediaConfig, deadline: Deadline
) -> Reel:
    """Read the frames at these indices, in order, until one breaks."""
    for index in steps:
        deadline.check()
        try:
            broken = _load_frame(image, index, config)
            times = _frame_times(image, media_type, reel.end_s) if media_type in _SEQUENTIAL else None
            _show_frame(image, index, times, reel, config)
        except DECODER_ERRORS as error:
            broken = describe(error)
        except ItemError as error:
            if error.code is not ErrorCode.CORRUPT:
                raise
            broken = error.detail
        if broken:
            reel.problem = f"frame {index}: {broken}"
            break
    return reel


def _load_frame(image: ImageFile, index: int, config: MediaConfig) -> str:
    """Load a frame; return what broke, else "". Of a broken first frame the rows before the break are kept."""
    image.seek(index)
    check_pixels(*image.size, config.max_pixels)
    drop_xmp(image)
    if index == 0:
        return load_partly(image)
    mend_tiff(image)
    image.load()
    return ""


def _show_frame(
    image: Image.Image, index: int, times: tuple[float, float] | None, reel: Reel, config: MediaConfig
) -> None:
    """times: its start and how long it is shown, in seconds; None: a page."""

    def draw() -> Picture:
        return to_picture(image, config, index=index, time_s=None if times is None else times[0])

    # A page may show more than its grid tells; and where all frames may be scored, all are scored.
    is_new = times is None or reel.total <= config.max_frames
    reel.choice.add(index, 1.0 if times is None else times[1], grid_of(image), draw, is_new=is_new)
    if times is not None:
        reel.end_s = sum(times)


def _frame_times(image: ImageFile, media_type: MediaType, clock_s: float) -> tuple[float, float]:
    """Start of the frame just loaded and how long it is shown, in seconds."""
    duration_s = float(image.info.get("duration") or 0) / 1000
    start_s = float(image.info.get("timestamp", 0)) / 1000 if media_type is MediaType.AVIF else clock_s
    return start_s, _shown_for(duration_s)


def _shown_for(stated_s: float) -> float:
    return stated_s if stated_s > _MIN_SHOWN_S else _SHOWN_INSTEAD_S
