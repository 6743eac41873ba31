"""The demo set: what a job meets in a bucket, made from photographs that ship in scikit-image and matplotlib.

Nothing is downloaded: only files inside the two wheels are read, and neither package is imported. The same packages
give the same bytes. Licences: the astronaut, the rocket and the officer are public domain (NASA, US Navy), the others
CC0 or free to use, as `skimage.data` documents for each.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter

from examples.motion_jpeg import encode_avi
from moderation.errors import UsageError
from moderation.types import ErrorCode, Kind, Status, Verdict

VIDEO_FPS = 4
VIDEO_FRAMES = 24
VIDEO_SIZE = (320, 240)
ANIMATION_FRAMES = 8
FRAME_MS = 120
GRID_CELL = 160

# name in the set -> package, file inside it
PHOTOGRAPHS: Mapping[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "camera": ("skimage", "data/camera.png"),
    "coins": ("skimage", "data/coins.png"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "officer": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoItem:
    """One item of the set, and what must become of it.

    files: name in the folder -> content, None for a file that the manifest names and that is not there.
    times_s: of each file, where the item is a set of pre-cut keyframes.
    verdict: as expected, None where the demo only shows it.
    """

    item_id: str
    shows: str
    files: Mapping[str, bytes | None]
    kind: Kind = Kind.IMAGE
    status: Status = Status.OK
    error_code: ErrorCode | None = None
    verdict: Verdict | None = None
    times_s: tuple[float, ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSet:
    """The items in the order of the manifest, and where that was written."""

    manifest: Path
    items: tuple[DemoItem, ...] = field(default_factory=tuple)


def write_demo_set(folder: Path) -> DemoSet:
    """Write the files and `manifest.jsonl` into `folder` (made if missing); files of the same names are replaced.

    Raises UsageError when a package that ships the photographs is missing.
    """
    items = demo_items()
    for item in items:
        for name, content in item.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content)
    manifest = folder / "manifest.jsonl"
    lines = [json.dumps(row) for item in items for row in _manifest_rows(item)]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DemoSet(manifest=manifest, items=items)


def demo_items() -> tuple[DemoItem, ...]:
    """All items, in memory; see `write_demo_set`."""
    photographs = {name: Image.open(package_file(*where)).convert("RGB") for name, where in PHOTOGRAPHS.items()}
    return (
        *_good_items(photographs),
        *_poor_items(photographs),
        *_broken_items(photographs),
        *_many_frames(photographs),
    )


def package_file(package: str, inside: str) -> Path:
    """A file that ships in an installed package, found without importing it.

    Raises UsageError with the command that installs a missing package.
    """
    spec = find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / inside
        if path.is_file():
            return path
    distribution = {"skimage": "scikit-image"}.get(package, package)
    raise UsageError(f"the demo set needs {inside} of {distribution}: pip install {distribution}")


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """`image` as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _good_items(photographs: Mapping[str, Image.Image]) -> list[DemoItem]:
    return [
        DemoItem(
            item_id=f"good-{name}",
            shows="good photograph",
            files={f"good/{name}.jpg": encode_jpeg(photographs[name])},
            verdict=Verdict.PASS,
        )
        for name in ("astronaut", "cat", "coffee", "rocket", "motorcycle", "officer")
    ]


def _poor_items(photographs: Mapping[str, Image.Image]) -> list[DemoItem]:
    cat, coffee = photographs["cat"], photographs["coffee"]
    smaller = cat.resize((cat.width * 2 // 3, cat.height * 2 // 3), Image.Resampling.LANCZOS)
    return [
        DemoItem(
            item_id="blurred",
            shows="blurred",
            files={"poor/blurred.jpg": encode_jpeg(coffee.filter(ImageFilter.GaussianBlur(9)))},
        ),
        DemoItem(
            item_id="dark",
            shows="dark",
            files={"poor/dark.jpg": encode_jpeg(ImageEnhance.Brightness(cat).enhance(0.08))},
        ),
        DemoItem(
            item_id="copy",
            shows="duplicate: the same bytes as good-cat",
            files={"copies/cat.jpg": encode_jpeg(cat)},
            verdict=Verdict.PASS,
        ),
        DemoItem(
            item_id="near-copy",
            shows="near copy of good-cat: smaller, encoded again",
            files={"copies/cat-small.jpg": encode_jpeg(smaller, quality=60)},
        ),
    ]


def _broken_items(photographs: Mapping[str, Image.Image]) -> list[DemoItem]:
    whole = encode_jpeg(photographs["officer"])
    text = "An ordinary note that somebody gave the name of a picture.\n"
    return [
        DemoItem(
            item_id="truncated",
            shows="truncated: the last 40% of the bytes are missing",
            files={"broken/truncated.jpg": whole[: len(whole) * 6 // 10]},
            status=Status.ERROR,
            error_code=ErrorCode.TRUNCATED,
            verdict=Verdict.REVIEW,
        ),
        DemoItem(
            item_id="text-as-jpg",
            shows="mislabelled: a text named .jpg",
            files={"broken/note.jpg": text.encode()},
            kind=Kind.UNKNOWN,
            status=Status.ERROR,
            error_code=ErrorCode.UNSUPPORTED_TYPE,
            verdict=Verdict.REVIEW,
        ),
        DemoItem(
            item_id="jpeg-as-png",
            shows="mislabelled: a JPEG named .png, no error",
            files={"broken/rocket.png": encode_jpeg(photographs["rocket"])},
            verdict=Verdict.PASS,
        ),
        DemoItem(
            item_id="missing",
            shows="named in the manifest, not in the folder",
            files={"broken/missing.jpg": None},
            kind=Kind.UNKNOWN,
            status=Status.ERROR,
            error_code=ErrorCode.NOT_FOUND,
            verdict=Verdict.REVIEW,
        ),
        DemoItem(
            item_id="readme",
            shows="a text that claims nothing else: skipped",
            files={"broken/README.txt": text.encode()},
            kind=Kind.UNKNOWN,
            status=Status.SKIPPED,
            error_code=ErrorCode.NOT_MEDIA,
        ),
    ]


def _many_frames(photographs: Mapping[str, Image.Image]) -> list[DemoItem]:
    names = list(PHOTOGRAPHS)
    album = ("rocket", "coffee", "astronaut")
    film = [encode_jpeg(frame, quality=80) for frame in _pan(photographs["motorcycle"], VIDEO_SIZE, VIDEO_FRAMES)]
    cut = [f"{index / VIDEO_FPS:.2f}" for index in range(0, VIDEO_FRAMES, 8)]
    return [
        DemoItem(
            item_id="animated",
            shows=f"animated GIF of {ANIMATION_FRAMES} frames",
            files={"many/coffee.gif": _animate(_pan(photographs["coffee"], (240, 240), ANIMATION_FRAMES))},
            kind=Kind.ANIMATION,
        ),
        DemoItem(
            # Drawn, 24 frames of 25 px: far from anything that the networks were trained on, and one of them errs.
            item_id="animated-tiny",
            shows="tiny animated GIF, as scikit-image ships it",
            files={"many/tiny.gif": package_file("skimage", "data/no_time_for_that_tiny.gif").read_bytes()},
            kind=Kind.ANIMATION,
        ),
        DemoItem(
            item_id="holiday",
            shows="album: one post of three pictures",
            files={f"many/album/{name}.jpg": encode_jpeg(photographs[name]) for name in album},
            kind=Kind.ALBUM,
            group="holiday",
        ),
        DemoItem(
            item_id="nine-grid",
            shows="nine photographs in one picture",
            files={"many/nine-grid.jpg": encode_jpeg(_grid([photographs[name] for name in names]))},
        ),
        DemoItem(
            item_id="video",
            shows=f"video: {VIDEO_FRAMES / VIDEO_FPS:g} s of Motion JPEG",
            files={"many/motorcycle.avi": encode_avi(film, fps=VIDEO_FPS, size=VIDEO_SIZE)},
            kind=Kind.VIDEO,
        ),
        DemoItem(
            item_id="keyframes",
            shows="three pre-cut keyframes of that video",
            files={f"many/cut/{time}.jpg": film[int(float(time) * VIDEO_FPS)] for time in cut},
            kind=Kind.KEYFRAMES,
            times_s=tuple(map(float, cut)),
        ),
    ]


def _pan(image: Image.Image, size: tuple[int, int], frames: int) -> list[Image.Image]:
    """A window of the picture's whole height, moving from its left to its right end."""
    window = min(image.width, image.height * size[0] // size[1])
    steps = [(image.width - window) * k // max(1, frames - 1) for k in range(frames)]
    return [image.crop((x, 0, x + window, image.height)).resize(size) for x in steps]


def _animate(frames: list[Image.Image]) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return buffer.getvalue()


def _grid(pictures: list[Image.Image]) -> Image.Image:
    """Nine pictures, each cut to a square, in three rows of three."""
    sheet = Image.new("RGB", (3 * GRID_CELL, 3 * GRID_CELL), "white")
    for place, picture in enumerate(pictures[:9]):
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        cell = picture.crop((left, top, left + side, top + side)).resize((GRID_CELL, GRID_CELL))
        sheet.paste(cell, (place % 3 * GRID_CELL, place // 3 * GRID_CELL))
    return sheet


def _manifest_rows(item: DemoItem) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, name in enumerate(item.files):
        row: dict[str, object] = {"uri": name, "item_id": item.item_id, "shows": item.shows}
        if item.group is not None:
            row["group"] = item.group
        if item.times_s:
            row["time_s"] = item.times_s[number]
        rows.append(row)
    return rows
