"""Explanations as rows: `explanations/part-<key>.arrow`, one file each, so that explaining again replaces its row.

explanations/part-<key>.arrow   a row; key: of the item, the vote and the method
explanations/maps/<key>.npy     float32 [n,h,w] over the frame, no pickle; occlusion: drop, then alone
explanations/overlays/<key>.png   the frame with the map, the box and a legend
explanations/strips/<key>.png     of an item of several frames: the vote over time, and the deciding moment
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from moderation import storage
from moderation.errors import UsageError
from moderation.pages.text import printable
from moderation.results.layout import (
    EXPLANATION_MAPS,
    EXPLANATION_OVERLAYS,
    EXPLANATION_STRIPS,
    explanation_name,
    explanations_folder,
)
from moderation.results.tables import decode_table
from moderation.types import F32
from moderation.version import SCHEMA_VERSION

SCHEMA: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("uri", pa.string()),
        ("kind", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("check", pa.string()),
        ("threshold", pa.float32()),
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("detector", pa.string()),
        ("label", pa.string()),
        ("method", pa.string()),
        ("settings", pa.string()),
        ("score", pa.float32()),
        ("stored_score", pa.float32()),
        ("box", pa.list_(pa.float32(), 4)),
        ("drop", pa.float32()),
        ("covered", pa.float32()),
        ("alone", pa.float32()),
        ("overlay", pa.string()),
        ("map", pa.string()),
        ("strip", pa.string()),
        ("preview", pa.binary()),
        ("error_code", pa.string()),
        ("error_detail", pa.string()),
    ]
)
Place = tuple[float, float, float, float]  # x0, y0, x1, y1 in 0..1 of a frame
_MAX_ROW_BYTES: Final = 4 << 20
_MAX_MAP_BYTES: Final = 4 << 20
_MAX_PICTURE_BYTES: Final = 64 << 20
_MAX_EXPLANATIONS: Final = 100_000
_THREADS: Final = 8
_DETAIL_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Which part of an item one vote rests on; a row of `SCHEMA`.

    frame, time_s: where it decided. score: of that frame, scored again; stored_score: what the run stored.
    box: of the most responsible region, 0..1 of the frame (of a tile: of the picture that it is cut from), None where
    nothing stands out. drop: by how much the score falls when the box is covered; alone: the score of the box alone.
    Where a low score decided (a check that inverts its vote), box and drop are of what lowers it: drop is by how much
    the score rises then. covered: the score with the box covered; None in rows of earlier versions.
    overlay, map, strip: names in the folder of explanations. preview: a small JPEG of the overlay.
    error_code: why there is no explanation: one of `types.ErrorCode`, or `no_vote`, `no_detector`, `no_gradient`,
    `not_scored`; None where there is one.
    """

    item_id: str
    uri: str
    kind: str
    verdict: str | None
    reason: str | None
    check: str | None
    threshold: float | None
    method: str
    frame: int | None = None
    time_s: float | None = None
    detector: str | None = None
    label: str | None = None
    settings: str = ""
    score: float | None = None
    stored_score: float | None = None
    box: Place | None = None
    drop: float | None = None
    covered: float | None = None
    alone: float | None = None
    overlay: str | None = None
    map: str | None = None
    strip: str | None = None
    preview: bytes | None = None
    error_code: str | None = None
    error_detail: str | None = None

    @property
    def vote(self) -> str:
        """`detector.label`, empty where no vote decided."""
        return f"{self.detector}.{self.label}" if self.detector else ""

    @property
    def fall(self) -> float | None:
        """By how much the score falls when the box is covered; below 0 where it rises."""
        return self.drop if self.covered is None or self.score is None else self.score - self.covered

    @property
    def key(self) -> str:
        """Its name: the same for the same item, vote and method."""
        named = "\0".join((self.item_id, self.vote, self.method))
        return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def overlay_name(key: str) -> str:
    """The picture with the map, in the folder of explanations."""
    return f"{EXPLANATION_OVERLAYS}/{key}.png"


def map_name(key: str) -> str:
    """The map as an array."""
    return f"{EXPLANATION_MAPS}/{key}.npy"


def strip_name(key: str) -> str:
    """The score over time."""
    return f"{EXPLANATION_STRIPS}/{key}.png"


def encode_map(maps: Sequence[F32]) -> bytes:
    """float32 [n,h,w] as .npy, which holds no pickle."""
    sink = io.BytesIO()
    np.save(sink, np.stack(maps).astype(np.float32), allow_pickle=False)
    return sink.getvalue()


def write_explanation(
    to: str, explanation: Explanation, files: Mapping[str, bytes], metadata: Mapping[str, str]
) -> None:
    """Write an explanation's files, then its row. files: by name in the folder `to`. metadata: of its table."""
    for name, data in files.items():
        storage.publish(storage.join(to, name), data)
    facts = {"moderation.table": "explanations", "moderation.schema_version": SCHEMA_VERSION, **metadata}
    cells: dict[str, Any] = asdict(explanation)
    cells["box"] = None if explanation.box is None else list(explanation.box)
    # Details quote decoders, which quote the untrusted file.
    cells["error_detail"] = printable(explanation.error_detail or "")[:_DETAIL_CHARS] or None
    table = pa.Table.from_pylist([cells], schema=SCHEMA.with_metadata(facts))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    storage.publish(storage.join(to, explanation_name(explanation.key)), sink.getvalue().to_pybytes())


def read_explanations(out: str, *, to: str | None = None) -> list[Explanation]:
    """The explanations of a run, sorted by item, vote and method; empty where there are none.

    to: where they lie, if not in OUT. Raises UsageError for a file that is no explanation, StorageError.
    """
    folder = to or explanations_folder(out)
    try:
        uris = [i.uri for i in storage.list_objects(folder) if i.uri.rpartition("/")[2].startswith("part-")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    own = [uri for uri in uris if uri.endswith(".arrow")]
    if len(own) > _MAX_EXPLANATIONS:
        raise UsageError(f"{folder}: {len(own):,} explanations; at most {_MAX_EXPLANATIONS:,} are read")
    with ThreadPoolExecutor(_THREADS, "explanations") as pool:
        read = [row for rows in pool.map(_read_rows, own) for row in rows]
    return sorted(read, key=lambda e: (e.item_id, e.vote, e.method))


def _read_rows(uri: str) -> list[Explanation]:
    data = storage.read_typed(uri, _MAX_ROW_BYTES + 1)
    if len(data) > _MAX_ROW_BYTES:
        raise UsageError(f"{uri}: too large for an explanation")
    table = decode_table(data, "arrow", where=uri)
    names = [name for name in SCHEMA.names if name in table.column_names]
    if not {"item_id", "uri", "kind", "method"} <= set(names):
        raise UsageError(f"{uri}: is no explanation")
    try:
        rows = table.select(names).cast(pa.schema([SCHEMA.field(name) for name in names])).to_pylist()
    except pa.ArrowException as error:
        raise UsageError(f"{uri}: is no explanation: {error}") from error
    defaults = {"verdict": None, "reason": None, "check": None, "threshold": None}
    return [Explanation(**{**defaults, **row, "box": _place(row.get("box"))}) for row in rows]


def _place(cells: Sequence[float] | None) -> Place | None:
    return None if cells is None else (cells[0], cells[1], cells[2], cells[3])


def read_map(explanation: Explanation, out: str, *, to: str | None = None) -> F32 | None:
    """float32 [n,h,w], see the module; None where there is none. Raises UsageError where it is no array."""
    if explanation.map is None:
        return None
    uri = storage.join(to or explanations_folder(out), map_name(explanation.key))
    data = storage.read_typed(uri, _MAX_MAP_BYTES)
    try:
        values: F32 = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UsageError(f"{uri}: is no array") from error
    return values


def read_overlay(explanation: Explanation, out: str, *, to: str | None = None) -> bytes | None:
    """The PNG with the map; None where there is none."""
    return _read_picture(None if explanation.overlay is None else overlay_name(explanation.key), out, to)


def read_strip(explanation: Explanation, out: str, *, to: str | None = None) -> bytes | None:
    """The PNG with the score over time; None where there is none."""
    return _read_picture(None if explanation.strip is None else strip_name(explanation.key), out, to)


def _read_picture(name: str | None, out: str, to: str | None) -> bytes | None:
    """By a name that is made from the key: what a row says is not trusted as a path."""
    if name is None:
        return None
    data = storage.read_optional(storage.join(to or explanations_folder(out), name))
    return data if data is None or len(data) <= _MAX_PICTURE_BYTES else None
