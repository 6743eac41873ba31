"""A new question over kept embeddings, without pictures or a GPU: ranked items, and columns for the policy."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from moderation.concurrency import map_ahead
from moderation.config.model import Config
from moderation.detectors.clip.class_embeddings import Contrasts, score_embeddings
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.questions import Question
from moderation.detectors.registry import build
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.policy import aggregate
from moderation.results.asked import refuse_taken, write_ask_record, write_asked
from moderation.results.reader import AHEAD_BYTES, READERS, StoredRun, open_run
from moderation.results.votes import adjacent_runs
from moderation.types import F32

_KEYS = ["item_id", "frame", "time_s"]
_EXPECTED_BYTES = 8 << 20  # per part: 256 items with three embeddings take 1 MB, with 64 frames each 60 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A CLIP detector of a finished run, with the question encoded by it."""

    name: str
    label: str  # of the votes: `clip_b32.tattoo`
    contrasts: Contrasts


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """An item and how well it answers the question: the score of its best frame, 0..1."""

    item_id: str
    uri: str
    verdict: str | None
    score: float
    frame: int
    time_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The items that answer a question best, best first; labels: the columns that were computed."""

    question: Question
    labels: tuple[str, ...]
    frames: int
    items: int
    found: tuple[RankedItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScoredPart:
    """The frames of a shard: their item_id, frame and time_s, and float32 [F,V] scores."""

    shard_id: str
    keys: pa.Table
    scores: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class _BestFrame:
    """The frame of an item that answers the question best."""

    score: float
    item_id: str
    shard_id: str
    frame: int
    time_s: float | None

    def __lt__(self, other: _BestFrame) -> bool:
        """Whether it ranks below another; equal scores rank by id, so that the order does not depend on shards."""
        return (self.score, other.item_id) < (other.score, self.item_id)


def ask(out: str, question: Question, *, limit: int = 100, keep: bool = False, only: Sequence[str] = ()) -> Ranking:
    """Put a question to the embeddings that a run kept.

    keep: also write the columns, as `OUT/asks/<name of the question>/`. only: these variants (default: all of the run).
    Variants are fused by the mean of their logits; an item has the score of its best frame.
    Raises UsageError when the run kept no embeddings, or has another vote or question of that name.
    """
    run = open_run(out)
    if run.votes_out != run.out:
        raise UsageError(f"{out}: is a rejudge, whose votes lie in {run.votes_out}: ask that run")
    config = run.load_config()
    variants = load_variants(config, question, only)
    labels = tuple(v.label for v in variants)
    if keep:
        refuse_taken(out, asdict(question), labels, run.read_votes(run.shard_ids[0]).column_names)
    best: list[_BestFrame] = []
    frames = items = 0
    digests: dict[str, str] = {}
    for part in _score_parts(run, variants):
        frames += len(part.scores)
        for candidate in _best_frames(part):
            items += 1
            if len(best) < limit:
                heapq.heappush(best, candidate)
            else:
                heapq.heappushpop(best, candidate)
        if keep:
            digests[part.shard_id] = write_asked(
                out, question.name, part.shard_id, part.keys, part.scores, labels, config.output
            )
    if keep:
        write_ask_record(out, run.run_id, asdict(question), labels, digests)
    ranked = tuple(_with_uris(run, sorted(best, reverse=True)))
    return Ranking(question=question, labels=labels, frames=frames, items=items, found=ranked)


def load_variants(config: Config, question: Question, only: Sequence[str] = ()) -> tuple[Variant, ...]:
    """The CLIP detectors of a configuration, with the question encoded by each. Raises UsageError, FatalError."""
    clips = _select_clips(config, only)
    if not config.stack.keep_embeddings:
        raise UsageError("this run kept no embeddings; it would have with --set stack.keep_embeddings=true")
    variants: list[Variant] = []
    for clip in clips:
        network = clip.load_words(str(resolve(clip.weights[0])))
        contrasts = clip.embed_questions((question,), network, {})
        variants.append(Variant(name=clip.name, label=f"{clip.name}.{question.name}", contrasts=contrasts))
    return tuple(variants)


def _select_clips(config: Config, only: Sequence[str]) -> list[Clip]:
    """All CLIP detectors, or those that `only` names. Raises UsageError where there is none, or none of that name."""
    clips = {d.name: d for d in map(build, config.stack.detectors) if isinstance(d, Clip)}
    unknown = sorted(set(only) - clips.keys())
    if unknown or not clips:
        names = ", ".join(clips) or "none"
        raise UsageError(f"no CLIP variant {', '.join(unknown) or 'at all'} in this run; there are: {names}")
    return [clip for name, clip in clips.items() if name in (only or clips)]


def score_column(column: pa.ChunkedArray, contrasts: Contrasts) -> F32:
    """A column of kept embeddings -> float32 [F], NaN where there is none."""
    scores = np.full(len(column), np.nan, dtype=np.float32)
    present: npt.NDArray[np.bool_] = np.asarray(column.is_valid())
    if present.any():
        flat = column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False)
        unit = torch.from_numpy(flat.astype(np.float32).reshape(int(present.sum()), -1))
        unit = torch.nn.functional.normalize(unit, dim=1)  # float16 rounding changed the norm
        with torch.inference_mode():
            scores[present] = score_embeddings(unit, contrasts)[:, 0].numpy()
    return scores


def _score_parts(run: StoredRun, variants: Sequence[Variant]) -> Iterator[_ScoredPart]:
    embeddings = [f"{v.name}.embedding" for v in variants]

    def read(shard_id: str) -> tuple[str, pa.Table]:
        return shard_id, run.read_votes(shard_id, [*_KEYS, *embeddings])

    with ThreadPoolExecutor(READERS) as pool:
        tables = map_ahead(
            read,
            run.shard_ids,
            pool,
            max_ahead=2 * READERS,
            budget_bytes=AHEAD_BYTES,
            expected_bytes=lambda _: _EXPECTED_BYTES,
            held_bytes=lambda pair: int(pair[1].nbytes),
        )
        for shard_id, table in tables:
            scores = [score_column(table[name], v.contrasts) for name, v in zip(embeddings, variants, strict=True)]
            yield _ScoredPart(shard_id=shard_id, keys=table.select(_KEYS), scores=np.stack(scores, axis=1))


def _best_frames(part: _ScoredPart) -> Iterator[_BestFrame]:
    """The best frame of each item with a scored frame; of equal ones the first."""
    item_ids, frames, times_s = (part.keys[name].to_pylist() for name in _KEYS)
    scores = [_fuse(row) for row in part.scores.tolist()]
    for own in adjacent_runs(item_ids):
        rows = [row for row in range(own.start, own.stop) if not math.isnan(scores[row])]
        if rows:
            best = max(rows, key=lambda row: scores[row])
            yield _BestFrame(
                score=scores[best],
                item_id=item_ids[best],
                shard_id=part.shard_id,
                frame=frames[best],
                time_s=times_s[best],
            )


def _fuse(row: list[float]) -> float:
    return row[0] if len(row) == 1 else aggregate.fuse(row, method="mean_logit", missing="skip")


def _with_uris(run: StoredRun, best: Sequence[_BestFrame]) -> Iterator[RankedItem]:
    uris: dict[str, dict[str, tuple[str, str | None]]] = {}  # shard -> item -> uri, verdict
    for entry in best:
        if entry.shard_id not in uris:
            part = run.read_verdicts(entry.shard_id, ["item_id", "uri", "verdict"])
            cells = zip(*(part[name].to_pylist() for name in ("item_id", "uri", "verdict")), strict=True)
            uris[entry.shard_id] = {item_id: (uri, verdict) for item_id, uri, verdict in cells}
        uri, verdict = uris[entry.shard_id][entry.item_id]
        yield RankedItem(
            item_id=entry.item_id, uri=uri, verdict=verdict, score=entry.score, frame=entry.frame, time_s=entry.time_s
        )
