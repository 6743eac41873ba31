"""Duplicates within a finished run and among the items of earlier runs: groups around their largest picture.

Four keys, from sure to likely: the same bytes; PDQ hashes within `distance` bits; of videos and animations most of
their frames (`hashes.films`); embeddings within a cosine, confirmed by hashes that agree more than those of unrelated
pictures do. Each member is near the group's head itself (`hashes.grouping`), so that a chain joins nothing unrelated.

    OUT/duplicates.parquet   one row per member of a group, heads included; without groups of one

Measured on 200 photographs and copies of them (tests/integration/test_duplicates.py): the hashes of two different
photographs differ in 86 bits or more, and their cosine is 0.66 at most.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderation import storage
from moderation.analysis.picture_films import pairs_of_films, usable_films
from moderation.analysis.pictures import Pictures, read_pictures
from moderation.errors import UsageError
from moderation.hashes.embedding_pairs import HashConfirmation, alike_pairs
from moderation.hashes.framed_pairs import framed_pairs
from moderation.hashes.grouping import I8, Edges, group_by_heads
from moderation.hashes.pairs import collapse
from moderation.hashes.search import I64, MAX_DISTANCE
from moderation.results.layout import duplicates_uri
from moderation.types import F32, U8

RELATIONS: Final = ("pdq", "video", "embedding", "exact", "head")
_PDQ, _VIDEO, _EMBEDDING, _EXACT, _HEAD = range(5)
_CHUNK: Final = 1 << 18  # rows that are written at once

DUPLICATES_SCHEMA: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("run_out", pa.string()),  # null: this run; else the earlier one that judged it
        ("group_id", pa.string()),
        ("head_item_id", pa.string()),
        ("head_run_out", pa.string()),
        ("head_verdict", pa.string()),
        ("relation", pa.string()),  # head; exact, pdq, video, embedding: to the head
        ("distance", pa.float32()),  # pdq: bits; video: 1 - share of frames; embedding: 1 - cosine; else 0
    ],
    metadata={"moderation.table": "duplicates", "moderation.schema_version": "1"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """What counts as a copy.

    distance: bits of 256. quality: the least quality of a hash that is compared, 0..100. embedding: the detector whose
    kept embeddings are the third key, or none. similarity: their least cosine. confirm: in how many bits the hashes of
    such a pair may differ.
    """

    distance: int = 31
    quality: int = 50
    embedding: str | None = None
    similarity: float = 0.85
    confirm: int = 90

    def __post_init__(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise UsageError(f"--distance {self.distance}: must be 0 to {MAX_DISTANCE} bits")
        if not 0 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: must be 0 to 100")
        if not 0 < self.similarity <= 1:
            raise UsageError(f"--similarity {self.similarity}: must be over 0, and 1 at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """head: int64 [N], a picture's head, or itself; relation: int8 [N], index into RELATIONS; distance: to the head."""

    head: I64
    relation: I8
    distance: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. items, earlier: of the run, of the ledger. relations: members by relation, heads left out."""

    uri: str
    items: int
    earlier: int
    unread: int
    groups: int
    members: int
    relations: dict[str, int]


def find_duplicates(out: str, nearness: Nearness, *, ledger: str | None = None) -> Report:
    """Group the items of a finished run, and with `ledger` those of earlier runs; writes OUT/duplicates.parquet whole.

    A group without an item of this run is left out. Raises UsageError, see `read_pictures`.
    """
    pictures = read_pictures(out, ledger=ledger, embedding=nearness.embedding)
    table = as_table(pictures, group_pictures(pictures, nearness))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    target = duplicates_uri(out)
    storage.publish(target, sink.getvalue())
    relations = Counter(table["relation"].to_pylist())
    earlier = len(pictures) - pictures.items["run_out"].null_count
    return Report(
        uri=target,
        items=len(pictures) - earlier,
        earlier=earlier,
        unread=pictures.unread,
        groups=relations.pop("head", 0),
        members=sum(relations.values()),
        relations=dict(sorted(relations.items())),
    )


def group_pictures(pictures: Pictures, nearness: Nearness) -> Grouping:
    """Group all pictures; the order in which they come makes no difference."""
    order = _rank(pictures)
    content, hashes, quality = pictures.content[order], pictures.hashes[order], pictures.quality[order]
    # From here on pictures are numbered by rank: of a group, the picture with the lowest rank is the head.
    same = _same_content(content)
    rank_of = np.empty(len(order), np.int64)
    rank_of[order] = np.arange(len(order))
    moves = np.zeros(len(order), np.bool_)
    moves[rank_of[usable_films(pictures.films, nearness.quality)]] = True
    usable = np.flatnonzero((quality >= nearness.quality) | moves)
    # One picture per content: the first with a usable hash, under the number of the content's first picture.
    node_of, first = np.unique(same[usable], return_index=True)
    shown = usable[first]
    # Contents with the same hash are one node: a million copies of a picture cost no more than one.
    twin = _twins(hashes[shown], moves[shown])
    distinct = np.flatnonzero(twin == np.arange(len(twin)))
    kept = shown[distinct]
    still = np.flatnonzero(~moves[kept])
    pairs = framed_pairs(hashes[kept[still]], pictures.inner[order[kept[still]]], nearness.distance)
    edges = [Edges(
        left=still[pairs.left],
        right=still[pairs.right],
        relation=np.full(len(pairs.left), _PDQ, np.int8),
        distance=pairs.distance.astype(np.float32),
    )]  # fmt: skip
    if len(still) < len(kept):
        edges.append(_film_edges(pictures, nearness, order[kept], moves[kept]))
    if pictures.embeddings is not None:
        vectors = pictures.embeddings[order[kept[still]]]  # float16
        left, right, apart = alike_pairs(
            vectors, nearness.similarity, HashConfirmation(hashes=hashes[kept[still]], distance=nearness.confirm)
        )
        kinds = np.full(len(left), _EMBEDDING, np.int8)
        edges.append(Edges(left=still[left], right=still[right], relation=kinds, distance=apart))
    groups = group_by_heads(
        len(kept),
        Edges(
            left=np.concatenate([e.left for e in edges]),
            right=np.concatenate([e.right for e in edges]),
            relation=np.concatenate([e.relation for e in edges]),
            distance=np.concatenate([e.distance for e in edges]),
        ),
    )
    return _spread(order, same, node_of, twin, distinct, groups.head, groups.relation, groups.distance)


def _twins(hashes: U8, moves: npt.NDArray[np.bool_]) -> I64:
    """int64 [N]: the first picture with the same hash; a video is its own."""
    twin = np.arange(len(hashes))
    still = np.flatnonzero(~moves)
    twin[still] = still[collapse(hashes[still])]
    return twin


def _film_edges(pictures: Pictures, nearness: Nearness, rows: I64, moves: npt.NDArray[np.bool_]) -> Edges:
    """The pairs of videos that are copies. rows: of the nodes' pictures; moves: bool [N], which of them move."""
    node_of = np.full(len(pictures), -1, np.int64)
    node_of[rows[moves]] = np.flatnonzero(moves)
    pairs = pairs_of_films(pictures.films, node_of, nearness.quality, nearness.distance)
    return Edges(
        left=pairs.left,
        right=pairs.right,
        relation=np.full(len(pairs.left), _VIDEO, np.int8),
        distance=pairs.apart,
    )


def _spread(
    order: I64, same: I64, node_of: I64, twin: I64, distinct: I64, head_of: I64, kind: I8, apart: F32
) -> Grouping:
    """Map groups of distinct hashes back to hashes, contents and pictures."""
    size = len(order)
    head, relation, distance = same.copy(), np.full(size, _EXACT, np.int8), np.zeros(size, np.float32)
    place = np.zeros(len(twin), np.int64)
    place[distinct] = np.arange(len(distinct))
    at = place[twin]  # distinct hash of each content
    top = node_of[distinct[head_of[at]]]  # rank of the head's content
    # For each content (by its first picture): its head, and the relation to it.
    head[node_of] = top
    relation[node_of] = np.where(kind[at] < 0, _PDQ, kind[at])  # the same hash, other bytes: 0 bits
    distance[node_of] = apart[at]
    # The other pictures of a content take what its first picture has.
    rank = np.arange(size)
    followers = same != rank
    alone = head[same] == same
    relation = np.where(followers & alone, _EXACT, relation[same]).astype(np.int8)
    distance = np.where(followers & alone, 0.0, distance[same]).astype(np.float32)
    head = head[same]
    own = head == rank
    relation[own], distance[own] = _HEAD, 0.0
    # From ranks to rows.
    back = np.empty(size, np.int64)
    back[order] = rank
    return Grouping(head=order[head[back]], relation=relation[back], distance=distance[back])


def _rank(pictures: Pictures) -> I64:
    """Row numbers, largest picture first; of equal ones more bytes, then earlier runs, then by content and id.

    The largest comes first, because it shows the most detail to judge.
    """
    items = pictures.items
    table = pa.table(
        {
            "pixels": pictures.pixels,
            "size": pictures.size_bytes,
            "now": pc.is_null(items["run_out"]).cast(pa.int8()),
            "content": pictures.content[:, 0],
            "item_id": items["item_id"],
            "run_out": pc.fill_null(items["run_out"].cast(pa.string()), ""),
        }
    )
    keys = [("pixels", "descending"), ("size", "descending"), ("now", "ascending"), ("content", "ascending")]
    order: I64 = pc.sort_indices(table, [*keys, ("item_id", "ascending"), ("run_out", "ascending")]).to_numpy()
    return order.astype(np.int64)


def _same_content(content: np.ndarray) -> I64:
    """int64 [N]: the first row with the same content; the row itself where the content is unknown."""
    order = np.lexsort((content[:, 1], content[:, 0]))
    ordered = content[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    new |= ~ordered.any(axis=1)
    starts = np.flatnonzero(new)
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    return first


def as_table(pictures: Pictures, grouping: Grouping) -> pa.Table:
    """The rows of groups of two or more with an item of this run, group after group, each with its head first."""
    size = len(pictures)
    members = np.bincount(grouping.head, minlength=size)
    now = np.asarray(pc.is_null(pictures.items["run_out"]))
    ours = np.zeros(size, dtype=bool)
    ours[grouping.head[now]] = True
    rows = np.flatnonzero((members[grouping.head] > 1) & ours[grouping.head])
    is_member = grouping.head[rows] != rows
    rows = rows[np.lexsort((rows, is_member, grouping.head[rows]))]
    tables = [DUPLICATES_SCHEMA.empty_table()]
    for start in range(0, len(rows), _CHUNK):
        tables.append(_rows_of(pictures, grouping, rows[start : start + _CHUNK]))
    return pa.concat_tables(tables)


def _rows_of(pictures: Pictures, grouping: Grouping, rows: I64) -> pa.Table:
    heads = grouping.head[rows]
    items = pictures.items.take(pa.array(rows))
    tops = pictures.items.take(pa.array(heads))
    top_ids, top_runs = tops["item_id"].to_pylist(), tops["run_out"].cast(pa.string()).to_pylist()
    contents = pictures.content[heads].tolist()
    columns = {
        "item_id": items["item_id"],
        "run_out": items["run_out"],
        "group_id": pa.array([_group_id(*cells) for cells in zip(contents, top_ids, top_runs, strict=True)]),
        "head_item_id": tops["item_id"],
        "head_run_out": tops["run_out"],
        "head_verdict": tops["verdict"],
        "relation": pa.array(np.array(RELATIONS)[grouping.relation[rows]]),
        "distance": pa.array(grouping.distance[rows]),
    }
    return pa.table([columns[f.name].cast(f.type) for f in DUPLICATES_SCHEMA], schema=DUPLICATES_SCHEMA)


def _group_id(content: list[int], item_id: str, run_out: str | None) -> str:
    """32 hexadecimal digits of the head's content, or of its id where the content is unknown."""
    told = f"{content[0]:016x}{content[1]:016x}" if any(content) else f"{run_out or ''}\0{item_id}"
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
