"""Regions and evidence as COCO annotations: https://cocodataset.org/#format-data

One `image` per item, even without a region. A `category` is a vote (`nudity.face`). An `annotation` has `bbox`
in pixels of the picture where its size is known, `score`, `frame` and `time_s`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from moderation.results.export.selection import SelectedRow
from moderation.types import Role
from moderation.version import __version__

_READ = ("item_id", "frame", "time_s", "role", "parent", "box", "regions")


def write_coco(parts: Iterable[tuple[Sequence[SelectedRow], pa.Table]], file: IO[bytes]) -> int:
    """Write the file; returns the number of rows. parts: rows of a part, and its votes.

    Annotations wait in a temporary file.
    """
    categories: dict[str, int] = {}
    count = 0
    info = json.dumps({"description": "moderation", "version": __version__})
    file.write(f'{{"info":{info},"licenses":[],"images":['.encode())
    with tempfile.TemporaryFile() as held:
        annotations = 0
        for rows, votes in parts:
            regions = _regions_by_item(votes)
            for row in rows:
                count += 1
                _write_entry(file, count, _image(row, count))
                for region in regions.get(row.item_id, ()):
                    annotations += 1
                    entry = _annotation(region, row, image=count, number=annotations, categories=categories)
                    _write_entry(held, annotations, entry)
        file.write(b'],"annotations":[')
        held.seek(0)
        for chunk in iter(lambda: held.read(1 << 20), b""):
            file.write(chunk)
    names = [
        {"id": number, "name": name, "supercategory": name.partition(".")[0]} for name, number in categories.items()
    ]
    file.write(f'],"categories":{json.dumps(names, ensure_ascii=False)}}}\n'.encode())
    return count


def _write_entry(file: IO[bytes], nth: int, entry: Mapping[str, Any]) -> None:
    file.write(b"\n" if nth == 1 else b",\n")
    file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode())


def _image(row: SelectedRow, number: int) -> dict[str, Any]:
    cells = row.cells
    return {
        "id": number,
        "file_name": cells["uri"],
        "width": cells["width"],
        "height": cells["height"],
        **{name: cells[name] for name in ("item_id", "kind", "verdict", "reason", "score", "error_code")},
    }


def _annotation(
    region: Mapping[str, Any], row: SelectedRow, *, image: int, number: int, categories: dict[str, int]
) -> dict[str, Any]:
    width, height = row.cells["width"], row.cells["height"]
    x0, y0, x1, y1 = region["box"]
    bbox = None
    if width and height:
        bbox = [round(n, 2) for n in (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)]
    return {
        "id": number,
        "image_id": image,
        "category_id": categories.setdefault(region["name"], len(categories) + 1),
        "bbox": bbox,
        "area": None if bbox is None else round(bbox[2] * bbox[3], 2),
        "iscrowd": 0,
        "score": region["score"],
        "frame": region["frame"],
        "time_s": region["time_s"],
    }


def _regions_by_item(votes: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """item id -> its regions, boxes in 0..1 of the picture."""
    if "regions" not in votes.column_names:
        return {}
    pointed = votes.filter(pc.greater(pc.list_value_length(votes["regions"]), 0))
    regions: dict[str, list[dict[str, Any]]] = {}
    for frame in pointed.select([name for name in _READ if name in pointed.column_names]).to_pylist():
        regions.setdefault(frame["item_id"], []).extend(_regions_of(frame))
    return regions


def _regions_of(frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    role = frame.get("role") or Role.FRAME
    if role not in (Role.FRAME, Role.TILE):
        return  # no file holds a whole; a backdrop or variant shows the same as its frame
    left, top, right, bottom = frame["box"] if role == Role.TILE else (0.0, 0.0, 1.0, 1.0)
    wide, high = right - left, bottom - top
    for region in frame["regions"]:
        yield {
            "name": f"{region['detector']}.{region['label']}",
            "score": region["score"],
            "frame": frame["frame"] if role == Role.FRAME else frame["parent"],
            "time_s": frame["time_s"],
            "box": (
                left + region["x0"] * wide,
                top + region["y0"] * high,
                left + region["x1"] * wide,
                top + region["y1"] * high,
            ),
        }
