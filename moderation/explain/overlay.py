"""Pictures of explanations: the frame with the map, the box and a legend; the score over time; a small preview.

Pixels are the decoded ones, scaled and encoded anew: nothing of the uploader's file is copied. matplotlib is an extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from moderation.config.installing import install_command
from moderation.errors import UsageError
from moderation.explain.maps import Map
from moderation.explain.windows import Place
from moderation.media import encode_jpeg
from moderation.media.encode import encode_picture
from moderation.types import F32, U8, Frame

# From black to yellow in even steps of lightness: legible in grey and to the colour-blind.
_COLOURS: Final = "inferno"
_STRONGEST: Final = 0.75  # opacity where the map is highest
_DPI: Final = 100
_PREVIEW_PX: Final = 240
_STRIP_PX: Final = 96
_LINE: Final = "#00b7eb"  # the box: a blue that no heat has


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPanel:
    """One panel of an overlay. title: what its numbers are."""

    title: str
    values: Map


def scale_down(pixels: U8, side: int) -> U8:
    """uint8 [H,W,3] with the longer side at most `side`."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    return _resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))


def _resize(pixels: U8, size: tuple[int, int]) -> U8:
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    scaled: U8 = resized[0].permute(1, 2, 0).contiguous().numpy()
    return scaled


def crop_box(pixels: U8, box: Place, side: int) -> U8:
    """uint8 [side,side,3]: what is in a box of a picture, squashed."""
    height, width = pixels.shape[:2]
    x0, y0 = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    x1, y1 = max(x0 + 1, round(box[2] * width)), max(y0 + 1, round(box[3] * height))
    return _resize(pixels[y0:y1, x0:x1], (side, side))


def heat(pixels: U8, values: Map) -> U8:
    """uint8 [H,W,3]: the picture, tinted where the map is over 0; the higher, the more."""
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS]
    share = _share_of_top(values, pixels.shape[:2])[..., None]
    tint = colours(share[..., 0])[..., :3] * 255
    # Grey below, so that the picture's own colours are not taken for the map's.
    grey = pixels.mean(axis=2, keepdims=True)
    blended = grey * (1 - _STRONGEST * share) + tint * _STRONGEST * share
    tinted: U8 = blended.round().clip(0, 255).astype(np.uint8)
    return tinted


def _share_of_top(values: Map, size: Sequence[int]) -> F32:
    """float32 [H,W] in 0..1: a map's share of its highest value, 0 where it is not known or below 0."""
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    known = np.clip(np.nan_to_num(values, nan=0.0), 0, None) / (top if top > 0 else 1.0)
    planes = torch.from_numpy(known.astype(np.float32))[None, None]
    grown = torch.nn.functional.interpolate(planes, tuple(size[:2]), mode="bilinear")
    share: F32 = grown[0, 0].clamp(0, 1).numpy()
    return share


def draw_overlay(pixels: U8, panels: Sequence[MapPanel], box: Place | None, caption: str, side: int) -> bytes:
    """A PNG: the picture, then a panel for each map with its legend, the box in each. Raises UsageError.

    caption: ours, no stranger's text.
    """
    picture = scale_down(pixels, side)
    height, width = picture.shape[:2]
    wide = 1 + len(panels)
    shown_height = max(1.2, height / _DPI)
    figure = _figure((max(2.4, width / _DPI) * wide + 0.4, shown_height + 1.1))
    grid = figure.add_gridspec(2, wide, height_ratios=[shown_height, 0.14])
    for place, panel in enumerate([None, *panels]):
        axes = figure.add_subplot(grid[0, place])
        axes.set_axis_off()
        axes.imshow(picture if panel is None else heat(picture, panel.values), interpolation="nearest")
        _draw_box(axes, box, (height, width))
        if panel is None:
            axes.set_title("the frame", fontsize=9, loc="left")
            continue
        axes.set_title(panel.title, fontsize=9, loc="left")
        top = float(np.nanmax(panel.values)) if np.isfinite(panel.values).any() else 0.0
        _legend(figure, figure.add_subplot(grid[1, place]), top)
    # A dollar sign would begin a formula.
    figure.suptitle(caption.replace("$", r"\$"), fontsize=9, x=0.01, ha="left")
    return _encode(figure)


def _draw_box(axes: Any, box: Place | None, size: tuple[int, int]) -> None:  # noqa: ANN401 - matplotlib
    if box is None:
        return
    from matplotlib.patches import Rectangle

    height, width = size
    corner = (box[0] * width - 0.5, box[1] * height - 0.5)
    wide, high = (box[2] - box[0]) * width, (box[3] - box[1]) * height
    # Twice, so that it shows on light and on dark.
    for colour, line in (("black", 3.5), (_LINE, 1.6)):
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=colour, linewidth=line))


def _legend(figure: Any, axes: Any, top: float) -> None:  # noqa: ANN401 - matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, top if top > 0 else 1.0), _COLOURS)
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.ax.tick_params(labelsize=7)


def draw_strip(
    times: Sequence[float],
    scores: Sequence[float],
    at: float,
    threshold: float | None,
    frames: Sequence[Frame],
    unit: str,
) -> bytes:
    """A PNG: a vote over the frames of an item, with the deciding moment and the threshold, and some frames below.

    times: in `unit`, s or frame; at: the deciding one. frames: at most 8, with the same times.
    """
    figure = _figure((8.0, 3.2 if frames else 2.2))
    grid = figure.add_gridspec(2 if frames else 1, max(1, len(frames)), height_ratios=[2, 1] if frames else [1])
    axes = figure.add_subplot(grid[0, :])
    axes.plot(times, scores, marker=".", linewidth=1.2, color="#2f5fb3")
    axes.axvline(at, color="black", linewidth=1.2, linestyle="--")
    axes.annotate(f"decided at {at:g} {unit}", (at, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="top")
    if threshold is not None:
        axes.axhline(threshold, color="#b3261e", linewidth=1, linestyle=":")
        axes.annotate("threshold", (0, threshold), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
    axes.set_ylim(min(0.0, *scores), max(1.0, *scores))
    axes.set_xlabel(f"time in {unit}" if unit == "s" else "frame", fontsize=8)
    axes.set_ylabel("score", fontsize=8)
    axes.tick_params(labelsize=7)
    for place, frame in enumerate(frames):
        when = frame.time_s if frame.time_s is not None and unit == "s" else frame.index
        _draw_frame(figure.add_subplot(grid[1, place]), frame, f"{when:g}", chosen=when == at)
    return _encode(figure)


def _draw_frame(axes: Any, frame: Frame, when: str, *, chosen: bool) -> None:  # noqa: ANN401 - matplotlib
    axes.imshow(scale_down(frame.pixels, _STRIP_PX))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(when, fontsize=7)
    for side in axes.spines.values():
        side.set_color(_LINE if chosen else "white")
        side.set_linewidth(3 if chosen else 0)


def draw_preview(pixels: U8, values: Map | None, box: Place | None) -> bytes:
    """A JPEG of at most 240 pixels a side: the picture with the map and the box."""
    picture = scale_down(pixels, _PREVIEW_PX)
    shown = picture.copy() if values is None else heat(picture, values)
    if box is not None:
        height, width = picture.shape[:2]
        x0, y0 = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
        x1, y1 = max(x0, round(box[2] * width) - 1), max(y0, round(box[3] * height) - 1)
        colour = [int(_LINE[i : i + 2], 16) for i in (1, 3, 5)]
        for rows, columns in (
            (slice(y0, y0 + 2), slice(x0, x1 + 1)),
            (slice(max(0, y1 - 1), y1 + 1), slice(x0, x1 + 1)),
            (slice(y0, y1 + 1), slice(x0, x0 + 2)),
            (slice(y0, y1 + 1), slice(max(0, x1 - 1), x1 + 1)),
        ):
            shown[rows, columns] = colour
    return encode_jpeg(shown)


def _figure(inches: tuple[float, float]) -> Any:  # noqa: ANN401 - matplotlib is an optional package
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=inches, layout="constrained", dpi=_DPI)


def require_matplotlib() -> None:
    """Raises UsageError with the command that installs what draws."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        raise UsageError(f"overlays need the package matplotlib; {install_command('explain')}") from error


def _encode(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib is an optional package
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # A canvas of its own, without a window; matplotlib has no types for it.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return encode_picture(np.ascontiguousarray(pixels))
