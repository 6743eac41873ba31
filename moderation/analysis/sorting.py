"""`moderation sort`: the pictures of a run by the classes of a detector: an album by its scenes, a folder by garments.

Each picture goes to its highest label where that reaches `least`, else to `unsure`. The pictures of an album are sorted
one by one; of any other item (a video, an animation) the mean over its frames counts. Nothing is moved, and no verdict
changes: what comes out is a table and a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moderation import storage
from moderation.analysis.previews import make_previews
from moderation.config.hints import did_you_mean
from moderation.config.model import OutputConfig
from moderation.errors import UsageError
from moderation.pages.render import render
from moderation.results.escalations import without_escalated
from moderation.results.layout import PAGE_FILE, SORTED_FILE
from moderation.results.reader import StoredRun, open_run
from moderation.results.tables import encode_table
from moderation.results.votes import vote_labels
from moderation.types import Kind, Role

UNSURE: Final = "unsure"
SORTED_SCHEMA: Final = pa.schema(
    [
        pa.field("album", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("frame", pa.int32()),  # null: the item as a whole
        pa.field("class", pa.string(), nullable=False),
        pa.field("score", pa.float32()),  # null: no vote
    ]
)
_MAX_ALBUMS: Final = 200  # on the page; the table has all
_F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedPicture:
    """One picture of an album, or an item. frame: None for an item; score: of its class; None where it has no vote."""

    album: str
    item_id: str
    uri: str
    frame: int | None
    class_name: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedRun:
    """All pictures, by album, then class, the surest first. classes: of the detector, then `unsure`."""

    detector: str
    classes: tuple[str, ...]
    pictures: tuple[SortedPicture, ...]

    def counts(self) -> dict[str, int]:
        """Pictures of each class, also of those without any."""
        found = Counter(picture.class_name for picture in self.pictures)
        return {name: found[name] for name in self.classes}

    def albums(self) -> list[tuple[str, list[tuple[str, list[SortedPicture]]]]]:
        """(album, [(class, its pictures)]), in order."""
        sorted_: dict[str, dict[str, list[SortedPicture]]] = {}
        for picture in self.pictures:
            sorted_.setdefault(picture.album, {}).setdefault(picture.class_name, []).append(picture)
        return [(album, list(by_class.items())) for album, by_class in sorted_.items()]


def sort_run(out: str, detector: str, *, least: float = 0.5, by: str | None = None) -> SortedRun:
    """Sort the pictures of a run by the labels of a detector.

    least: the score from which a class is believed. by: the attribute that names an item's album; None: an album by
    itself, and for other items the folder that they lie in. Raises UsageError where there is no run, or the detector
    cast no votes in it, naming the nearest.
    """
    run = open_run(out)
    classes = _classes_of(run, detector)
    pictures = [
        picture
        for shard_id in run.shard_ids
        for picture in _sort_part(run, shard_id, detector, classes, least=least, by=by)
    ]
    order = {name: place for place, name in enumerate((*classes, UNSURE))}
    pictures.sort(key=lambda p: (p.album, order[p.class_name], -(p.score or 0.0), p.item_id, p.frame or 0))
    return SortedRun(detector=detector, classes=(*classes, UNSURE), pictures=tuple(pictures))


def write_sorted(sorted_: SortedRun, out: str, to: str, *, previews: int = 60) -> str:
    """Write the table and the page to a folder; returns the page's URI. previews: most pictures shown, blurred."""
    columns = {
        "album": [p.album for p in sorted_.pictures],
        "item_id": [p.item_id for p in sorted_.pictures],
        "uri": [p.uri for p in sorted_.pictures],
        "frame": [p.frame for p in sorted_.pictures],
        "class": [p.class_name for p in sorted_.pictures],
        "score": [p.score for p in sorted_.pictures],
    }
    table = pa.Table.from_pydict(columns, schema=SORTED_SCHEMA)
    storage.publish(storage.join(to, SORTED_FILE), encode_table(table, OutputConfig(format="parquet")))
    # The pictures of an album are parts of one item, of which a preview shows only one.
    wanted = [p.item_id for p in sorted_.pictures if p.frame is None][:previews]
    shown = make_previews(out, wanted) if wanted else {}
    page = storage.join(to, PAGE_FILE)
    albums = sorted_.albums()
    told = {"sorted": sorted_, "albums": albums[:_MAX_ALBUMS], "left_out": max(0, len(albums) - _MAX_ALBUMS)}
    storage.publish(page, render("sorted.html", out=out, previews=shown, **told).encode())
    return page


def _classes_of(run: StoredRun, detector: str) -> tuple[str, ...]:
    if not run.shard_ids:
        raise UsageError(f"{run.out}: no part of it is finished, so there is nothing to sort")
    labels = vote_labels(run.read_votes(run.shard_ids[0]))
    by_detector: dict[str, list[str]] = {}
    for label in labels:
        name, _, own = label.rpartition(".")
        by_detector.setdefault(name, []).append(own)
    if detector not in by_detector:
        raise UsageError(f"{run.out}: no votes of a detector {detector!r}{did_you_mean(detector, by_detector)}")
    if len(by_detector[detector]) < 2:
        raise UsageError(f"{run.out}: {detector!r} has one label; a picture is sorted by two classes or more")
    return tuple(by_detector[detector])


def _sort_part(
    run: StoredRun, shard_id: str, detector: str, classes: Sequence[str], *, least: float, by: str | None
) -> Iterator[SortedPicture]:
    verdicts = without_escalated(run.read_verdicts(shard_id, ["item_id", "uri", "kind", "attributes", "status"]))
    votes = run.read_votes(shard_id)
    columns = [f"{detector}.{name}" for name in classes]
    if missing := [name for name in columns if name not in votes.column_names]:
        raise UsageError(f"{run.out}: a part of it has no votes {missing[0]!r}; were its parts judged by one stack?")
    scores = np.stack([votes[name].to_numpy(zero_copy_only=False).astype(np.float32) for name in columns], axis=1)
    rows: dict[str, list[int]] = {}
    roles = votes["role"].to_pylist() if "role" in votes.column_names else [None] * len(votes)
    for row, (item_id, role) in enumerate(zip(votes["item_id"].to_pylist(), roles, strict=True)):
        if role in (None, Role.FRAME):  # tiles and backdrops are parts of pictures, not pictures
            rows.setdefault(item_id, []).append(row)
    frames = votes["frame"].to_pylist()
    for item in verdicts.to_pylist():
        own = rows.get(item["item_id"], [])
        attributes = dict(item["attributes"] or ())
        parts = (
            [(frames[row], scores[row]) for row in own] if item["kind"] == Kind.ALBUM else [(None, _mean(scores[own]))]
        )
        album = _album_of(item["uri"], item["item_id"], item["kind"], attributes, by)
        for frame, vote in parts:
            class_name, score = _decide(vote, classes, least)
            yield SortedPicture(
                album=album,
                item_id=item["item_id"],
                uri=item["uri"],
                frame=frame,
                class_name=class_name,
                score=score,
            )


def _mean(scores: _F32) -> _F32:
    """float32 [C]; NaN where no frame has a vote."""
    known = scores[~np.isnan(scores).any(axis=1)]
    mean: _F32 = known.mean(axis=0) if len(known) else np.full(scores.shape[1], np.nan, np.float32)
    return mean


def _decide(vote: _F32, classes: Sequence[str], least: float) -> tuple[str, float | None]:
    if np.isnan(vote).any():
        return UNSURE, None
    place = int(vote.argmax())
    score = float(vote[place])
    return (classes[place] if score >= least else UNSURE), score


def _album_of(uri: str, item_id: str, kind: str, attributes: dict[str, str], by: str | None) -> str:
    if by is not None:
        return attributes.get(by, "")
    return item_id if kind == Kind.ALBUM else uri.rpartition("/")[0]
