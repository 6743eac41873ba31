"""How well grids and cut pictures are told from others, and what looking costs; JSON into benchmarks/results/.

`python -m benchmarks.context [FOLDER]`: of the photographs in FOLDER (../shared/data/images) collages are made,
with and without gutters, and albums: one photograph cut up, pieces that lost pixels at their edges, different
photographs, and pieces with one stranger among them. All with a seed; JPEG at quality 85 in between, as uploads are.
"""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import write_result
from moderation.config.model import MediaConfig
from moderation.media import decode_image
from moderation.media.seams import ALBUM_LAYOUTS, LAYOUTS, find_grid, stitch_album
from moderation.types import U8

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "images"
SEED = 3
COLLAGES = 10  # of each layout and gutter
ALBUMS = 200


def main() -> None:
    """Measure, print, write."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOGRAPHS
    photographs = [decode_image(p.read_bytes(), MediaConfig()).frames[0].pixels for p in sorted(folder.iterdir())]
    began = time.thread_time()
    false_grids = sum(bool(find_grid(p, 9)) for p in photographs)
    grid_ms = 1000 * (time.thread_time() - began) / len(photographs)
    record = {
        "photographs": len(photographs),
        "taken_for_a_grid": false_grids,
        "looking_ms": round(grid_ms, 2),
        "collages": measure_collages(photographs, random.Random(SEED)),
        "albums": measure_albums(photographs, random.Random(SEED)),
    }
    print(write_result("context", record).read_text())


def measure_collages(photographs: Sequence[U8], chance: random.Random) -> dict[str, Any]:
    """Share of collages found (tiles exactly as pasted; any grid at all), by gutter in pixels of 1200."""
    found: dict[str, Any] = {}
    for gutter in (0, 4, 10):
        for what, layouts in (("grid", _grids()), ("line", _lines())):
            exact = some = count = 0
            for rows, columns in layouts:
                for turn in range(COLLAGES):
                    collage = _paste(photographs, rows, columns, gutter, 255 if turn % 2 else 20, chance)
                    boxes = find_grid(collage, 16)
                    count += 1
                    some += bool(boxes)
                    exact += len(boxes) == rows * columns
            found[f"{what}, gutter {gutter}"] = {"exact": round(exact / count, 3), "any": round(some / count, 3)}
    return found


def measure_albums(photographs: Sequence[U8], chance: random.Random) -> dict[str, Any]:
    """Share of albums taken for one picture, and of their pieces bound to it."""
    found: dict[str, Any] = {}
    for count, layouts in ALBUM_LAYOUTS.items():
        rows, columns = layouts[0]
        for lost in (0, 1, 2, 4):
            cut = [list(_cut(p, rows, columns, lost)) for p in photographs[::2]]
            stitched = [s for s in map(stitch_album, cut) if s]
            bound = sum(sum(s.bound) for s in stitched) / max(1, count * len(stitched))
            name = f"{count} cut, {lost} pixels lost a side"
            found[name] = {"taken_for_one": round(len(stitched) / len(cut), 3), "bound": round(bound, 3)}
        strangers = [[_square(p) for p in chance.sample(list(photographs), count)] for _ in range(ALBUMS)]
        found[f"{count} different"] = {"taken_for_one": sum(stitch_album(s) is not None for s in strangers) / ALBUMS}
        kept = alone = 0
        for picture in photographs[::2]:
            pieces = list(_cut(picture, rows, columns, 0))
            place = chance.randrange(count)
            height, width = pieces[place].shape[:2]
            other = chance.choice(photographs)
            pieces[place] = np.asarray(Image.fromarray(other).resize((width, height)))
            stitch = stitch_album(pieces)
            if stitch is not None:
                kept += 1
                alone += not stitch.bound[place]
        found[f"{count} with a stranger"] = {"taken_for_one": kept, "stranger_left_alone": alone}
    return found


def _grids() -> list[tuple[int, int]]:
    return [layout for layout in LAYOUTS if 1 not in layout]


def _lines() -> list[tuple[int, int]]:
    return [layout for layout in LAYOUTS if 1 in layout]


def _paste(photographs: Sequence[U8], rows: int, columns: int, gutter: int, level: int, chance: random.Random) -> U8:
    wide, high = 1200 // columns, 1200 // rows
    canvas = Image.new("RGB", (wide * columns, high * rows), (level, level, level))
    for row in range(rows):
        for column in range(columns):
            photograph = Image.fromarray(chance.choice(photographs)).resize((wide - gutter, high - gutter))
            canvas.paste(photograph, (column * wide + gutter // 2, row * high + gutter // 2))
    return _through_jpeg(canvas)


def _cut(picture: U8, rows: int, columns: int, lost: int) -> Iterator[U8]:
    whole = Image.fromarray(picture)
    for row in range(rows):
        for column in range(columns):
            left, top = column * whole.width // columns, row * whole.height // rows
            right, bottom = (column + 1) * whole.width // columns, (row + 1) * whole.height // rows
            yield _through_jpeg(whole.crop((left + lost, top + lost, right - lost, bottom - lost)))


def _square(picture: U8) -> U8:
    return np.asarray(Image.fromarray(picture).resize((300, 300)))


def _through_jpeg(image: Image.Image) -> U8:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=85)
    return np.asarray(Image.open(sink).convert("RGB"))


if __name__ == "__main__":
    main()
