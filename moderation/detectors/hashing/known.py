"""Known pictures: the PDQ hashes of a frame, its mirrored and rotated copies and its parts against a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.hashing import pdq
from moderation.detectors.registry import check_options
from moderation.errors import UsageError
from moderation.hashes.lists import HashList, read_list
from moderation.hashes.search import BITS, HASH_BYTES, MAX_DISTANCE
from moderation.types import F32, U8, Region

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

_Cell = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels
# PDQ shrinks to 64 x 64: a smaller part has too few pixels.
_MIN_CELL_PX: Final = 64
_MAX_CUT: Final = 8
_WHOLE: Final = (1,)
# Labels of regions of a match with an illegal list; they come into no table.
ENTRY: Final = "entry:"
LISTED: Final = "listed:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queries:
    """Hashes to look up. frames: int64 [Q], their frames. boxes: of the hashed part, 0..1. hashes: uint8 [Q,32]."""

    frames: npt.NDArray[np.int64]
    boxes: list[tuple[float, ...]]
    hashes: U8


class KnownDetector(DetectorDefaults):
    """Whether a frame is a near copy of a listed picture.

    - `match`: 1 when a listed hash is within `distance` bits of one of the frame's, else 0. It is not a similarity, so
      `pool: mean` is the share of an item's frames that match. Null when the frame has too little content to hash
      (quality below the threshold, as a whole and in every part): a black frame matches any list with a black frame.
    - `similarity`: 1 - distance/256 of the nearest hash where it matches (0.879 to 1), else 0: to block the nearest and
      review the others. Null where `match` is.
    - `distance`: bits to the nearest hash, 0 to `distance`; null where nothing matches.

    A match is also two regions: one labelled `match`, so that evidence has its place, and one with the picture's label
    in the list. Options: `list` and `sha256`: the file of `moderation hashes build`, given like weights (the entry's
    `weights:` and `sha256:` work too). `distance`: 31. `quality`: 50, minimum for frames and listed hashes.
    `dihedral`: true, also the seven mirrored and rotated copies. `tiles`: [1], cuts of the frame into 1x1, 2x2, ...
    parts that are each looked up, to find a picture within a collage. A picture within bars is looked up, too, as it
    stands. After Meta's advice on PDQ (see `pdq`).
    """

    name = "known"
    version = "2"  # 2: also the picture within bars
    labels: Sequence[str] = ("match", "similarity", "distance")
    ranges: Mapping[str, tuple[float, float]] = {"distance": (0.0, float(MAX_DISTANCE))}
    view = View(mode="canvas")
    cost_ms = 2.0
    requires: Sequence[str] = ("pdq",)

    def __init__(self, options: Mapping[str, Any]) -> None:
        types = {"list": str, "sha256": str, "distance": int, "quality": int, "dihedral": bool, "tiles": list}
        check_options(self.name, options, types)
        self.distance: int = _in_range(options, "distance", 31, MAX_DISTANCE)
        self.quality: int = _in_range(options, "quality", 50, 100)
        self.dihedral: bool = options.get("dihedral", True)
        self.tiles = _read_tiles(options.get("tiles", list(_WHOLE)))
        self.weights: Sequence[Weights] = (_read_locator(options),)
        self._list: HashList | None = None

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read and index the list: on the CPU, about 150 bytes and a microsecond per entry."""
        self._list = read_list(Path(paths[0]), quality=self.quality)

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,3]; regions of the matches."""
        if self._list is None:
            raise RuntimeError("load() first")
        # Not in bf16, whose rounding would decide a third of the bits.
        with torch.autocast(batch.device.type, enabled=False):
            queries = _joined(self._queries(batch, earlier["pdq"]), _within_bars(earlier["pdq"]))
        frames = queries.frames
        scores: F32 = np.full((len(batch), len(self.labels)), np.nan, np.float32)
        scores[frames, :2] = 0.0  # asked
        entries, bits = self._list.index.nearest(queries.hashes, self.distance)
        regions: list[list[Region]] = [[] for _ in range(len(batch))]
        hits = np.flatnonzero(entries >= 0)
        # The nearest hash of each frame; of equally near ones the first looked up, that is the largest part.
        hits = hits[np.lexsort((hits, bits[hits], frames[hits]))]
        for hit in hits[np.diff(frames[hits], prepend=-1) > 0].tolist():
            similarity = 1.0 - float(bits[hit]) / BITS
            scores[frames[hit]] = (1.0, similarity, bits[hit])
            label = self._list.labels[self._list.label[entries[hit]]]
            names = ("match", label, *self._told(int(entries[hit])))
            regions[frames[hit]] = [self._region(name, similarity, queries.boxes[hit]) for name in names]
        return Scored(scores=torch.from_numpy(scores), regions=regions)

    @property
    def is_illegal(self) -> bool:
        """Whether the list is of a bank whose matches are escalated; False before it is loaded."""
        return self._list is not None and self._list.is_illegal

    def _told(self, entry: int) -> tuple[str, ...]:
        """Of an illegal list, the entry and its hash: for the escalation, which alone keeps them."""
        assert self._list is not None
        if not self._list.is_illegal:
            return ()
        return (
            f"{ENTRY}{self._list.entries[entry].as_py() or ''}",
            f"{LISTED}{self._list.hashes[entry].tobytes().hex()}",
        )

    def _queries(self, batch: FrameBatch, hashed: Scored) -> _Queries:
        """Hashes to look up, each frame's own first."""
        if not self.dihedral and self.tiles == _WHOLE:
            return self._own_hashes(hashed)
        cells = [(i, cell) for i, f in enumerate(batch.frames_HWC) for cell in self._cells(f.shape[1], f.shape[0])]
        if not cells:
            return _Queries(frames=np.empty(0, np.int64), boxes=[], hashes=_as_rows([]))
        pixels = [batch.frames_HWC[i][y0:y1, x0:x1] for i, (x0, y0, x1, y1) in cells]
        busy, bits = self._hash_cells(pixels, batch.device)
        asked = np.repeat(busy, bits.shape[1]).tolist()
        return _Queries(
            frames=np.array([cells[i][0] for i in asked], np.int64),
            boxes=[_share(cells[i][1], batch.frames_HWC[cells[i][0]]) for i in asked],
            hashes=_as_rows(pdq.pack(bits.flatten(0, 1))),
        )

    def _own_hashes(self, hashed: Scored) -> _Queries:
        """The hashes that `pdq` has computed, one of each whole frame."""
        rows = np.flatnonzero(self._is_busy(hashed.scores[:, 0]))
        blobs = [hashed.blobs["hash"][row] or bytes(HASH_BYTES) for row in rows.tolist()]
        return _Queries(frames=rows, boxes=[(0.0, 0.0, 1.0, 1.0)] * len(rows), hashes=_as_rows(blobs))

    def _hash_cells(
        self, pixels: Sequence[torch.Tensor], device: torch.device
    ) -> tuple[npt.NDArray[np.int64], torch.Tensor]:
        """Indices of the cells with enough content, and bool [C,copies,256], the bits of each copy of them."""
        small = pdq.shrink_mirrored(pixels, device) if self.dihedral else pdq.shrink(pixels, device).unsqueeze(1)
        busy = np.flatnonzero(self._is_busy(pdq.quality(small[:, 0])))
        chosen = small[torch.from_numpy(busy).to(small.device)]
        bits = pdq.dihedral_bits(chosen) if self.dihedral else pdq.hash_bits(chosen[:, 0]).unsqueeze(1)
        return busy, bits

    def _is_busy(self, quality: torch.Tensor) -> npt.NDArray[np.bool_]:
        # Compared in PDQ's own percents: 0.5 as a float32 may lie below 0.5.
        busy: npt.NDArray[np.bool_] = (quality * 100).round().cpu().numpy() >= self.quality
        return busy

    def _cells(self, width: int, height: int) -> list[_Cell]:
        """The parts of a frame, the whole first where it is wanted; parts too small to hash are left out."""
        cells: list[_Cell] = []
        for cut in self.tiles:
            if cut > 1 and min(width, height) // cut < _MIN_CELL_PX:
                continue
            x, y = ([side * i // cut for i in range(cut + 1)] for side in (width, height))
            cells += [(x[i], y[j], x[i + 1], y[j + 1]) for j in range(cut) for i in range(cut)]
        return cells

    def _region(self, label: str, score: float, box: tuple[float, ...]) -> Region:
        x0, y0, x1, y1 = box
        return Region(detector=self.name, label=label, score=score, x0=x0, y0=y0, x1=x1, y1=y1)


def _within_bars(hashed: Scored) -> _Queries:
    """The pictures within bars that `pdq` has hashed."""
    inner = hashed.blobs.get("inner", ())
    rows = [row for row, blob in enumerate(inner) if blob is not None]
    hashes = _as_rows([blob for blob in inner if blob is not None])
    return _Queries(frames=np.array(rows, np.int64), boxes=[(0.0, 0.0, 1.0, 1.0)] * len(rows), hashes=hashes)


def _joined(first: _Queries, second: _Queries) -> _Queries:
    return _Queries(
        frames=np.concatenate([first.frames, second.frames]),
        boxes=[*first.boxes, *second.boxes],
        hashes=np.concatenate([first.hashes, second.hashes]),
    )


def _share(cell: _Cell, frame: torch.Tensor) -> tuple[float, ...]:
    height, width = frame.shape[0], frame.shape[1]
    return cell[0] / width, cell[1] / height, cell[2] / width, cell[3] / height


def _as_rows(blobs: Sequence[bytes]) -> U8:
    return np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, HASH_BYTES)


def _in_range(options: Mapping[str, Any], key: str, default: int, highest: int) -> int:
    value: int = options.get(key, default)
    if not 0 <= value <= highest:
        raise UsageError(f"detector 'known': option {key!r} must be 0 to {highest}, got {value}")
    return value


def _read_tiles(value: list[Any]) -> tuple[int, ...]:
    if not value or any(isinstance(cut, bool) or not isinstance(cut, int) or not 1 <= cut <= _MAX_CUT for cut in value):
        raise UsageError(
            f"detector 'known': option 'tiles' must list cuts from 1 to {_MAX_CUT}, such as [1, 2, 3], got {value!r}"
        )
    return tuple(sorted(set(value)))


def _read_locator(options: Mapping[str, Any]) -> Weights:
    """The list as weights, so that it is located, mirrored, cached and verified like them. Empty: not configured."""
    uri, sha256 = options.get("list", ""), options.get("sha256", "")
    if bool(uri) != bool(sha256):
        # Without a checksum a changed list would change votes unnoticed.
        raise UsageError("detector 'known': `list` and `sha256` go together; `moderation hashes build` prints both")
    if uri and "://" not in uri:
        uri = f"file://{Path(uri).absolute()}"
    return Weights(locator=uri, sha256=sha256, licence="the list's own", origin="`moderation hashes build`")
