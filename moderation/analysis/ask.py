"""A new question over kept embeddings: no picture, no GPU; ranked items, and columns for the policy (see `asks`)."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from moderation import storage
from moderation.concurrency import map_ahead
from moderation.config.load import validate
from moderation.config.model import Config
from moderation.detectors.clip.class_embeddings import Contrasts, score_embeddings
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.questions import Question
from moderation.detectors.registry import build
from moderation.detectors.weights.locator import resolve
from moderation.errors import UsageError
from moderation.policy import aggregate
from moderation.results.asked import read_part, refuse_taken, write_asked, write_record
from moderation.results.receipts import committed_ids, part_name
from moderation.types import F32

_READERS = 4
_BUDGET_BYTES = 256 << 20  # of parts read ahead
_EXPECTED_BYTES = 8 << 20  # a part's columns: 256 items with three embeddings are 1 MB, of 64 frames each 60 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A CLIP detector of a finished run, with a question in its words."""

    name: str
    label: str  # of the votes: `clip_b32.tattoo`
    contrasts: Contrasts


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
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
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """Votes of a shard: item_id and time a frame, and float32 [F,V] scores."""

    shard_id: str
    keys: pa.Table
    scores: F32


def ask(out: str, question: Question, *, limit: int = 100, keep: bool = False, only: Sequence[str] = ()) -> Ranking:
    """Put a question to the embeddings that a run kept.

    keep: also write the columns, as `OUT/asks/<name of the question>/`. only: these variants (default: all of the run).
    Variants are fused by the mean of their logits, frames by their best.
    Raises UsageError when the run kept no embeddings, or has or asked something else of that name.
    """
    record = read_run(out)
    config: Config = record["config"]
    ids = sorted(committed_ids(out))
    if not ids:
        raise UsageError(f"{out}: no shard is committed there")
    variants = load_variants(config, question, only)
    labels = tuple(v.label for v in variants)
    if keep:
        refuse_taken(out, record["run_id"], asdict(question), labels, ids[0], config.output.format)
    best: list[tuple[float, str, str, int, float | None]] = []
    frames = items = 0
    for shard in _score_shards(out, ids, variants, config):
        frames += len(shard.scores)
        for candidate in _items(shard):
            items += 1
            # A heap of the best; of equals the id that sorts first stays, so that the order does not depend on shards.
            entry = (candidate[0], _reversed(candidate[1]), shard.shard_id, *candidate[2:])
            if len(best) < limit:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
        if keep:
            write_asked(out, question.name, shard.shard_id, shard.keys, shard.scores, labels, config.output)
    if keep:
        write_record(out, record["run_id"], asdict(question), labels, len(ids))
    found = _with_uris(out, sorted(best, reverse=True), config)
    return Ranking(question=question, labels=labels, frames=frames, items=items, found=tuple(found))


def read_run(out: str) -> dict[str, Any]:
    """`OUT/run.json` with `config` as a Config. Raises UsageError when there is none."""
    data = storage.read_optional(storage.join(out, "run.json"))
    if data is None:
        raise UsageError(f"{out}: no run.json; not the output of a run")
    record: dict[str, Any] = json.loads(data)
    return {**record, "config": validate(Config, record["config"], where=f"{out}/run.json")}


def load_variants(config: Config, question: Question, only: Sequence[str] = ()) -> tuple[Variant, ...]:
    """The CLIP detectors of a configuration, with this question in their words. Raises UsageError, FatalError."""
    detectors = [build(entry) for entry in config.stack.detectors]
    clips = [d for d in detectors if isinstance(d, Clip) and (not only or d.name in only)]
    unknown = set(only) - {d.name for d in clips}
    if unknown or not clips:
        known = ", ".join(d.name for d in detectors if isinstance(d, Clip)) or "none"
        raise UsageError(f"no CLIP variant {', '.join(sorted(unknown)) or 'at all'} in this run; there are: {known}")
    if not config.stack.keep_embeddings:
        raise UsageError("this run kept no embeddings; it would have with --set stack.keep_embeddings=true")
    variants: list[Variant] = []
    for clip in clips:
        network = clip.load_words(str(resolve(clip.weights[0])))
        contrasts = clip.embed_questions((question,), network, {})
        variants.append(Variant(name=clip.name, label=f"{clip.name}.{question.name}", contrasts=contrasts))
    return tuple(variants)


def score_column(column: pa.ChunkedArray, contrasts: Contrasts) -> F32:
    """A column of kept embeddings -> float32 [F], NaN where there is none."""
    scores = np.full(len(column), np.nan, dtype=np.float32)
    present: npt.NDArray[np.bool_] = np.asarray(column.is_valid())
    if present.any():
        flat = column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False)
        unit = torch.from_numpy(flat.astype(np.float32).reshape(int(present.sum()), -1))
        unit = torch.nn.functional.normalize(unit, dim=1)  # float16 rounded it
        with torch.inference_mode():
            scores[present] = score_embeddings(unit, contrasts)[:, 0].numpy()
    return scores


def _score_shards(out: str, ids: Sequence[str], variants: Sequence[Variant], config: Config) -> Iterator[_Shard]:
    columns = ["item_id", "frame", "time_s", *(f"{v.name}.embedding" for v in variants)]

    def read(shard_id: str) -> tuple[str, pa.Table]:
        uri = storage.join(out, "votes", part_name(shard_id, config.output.format))
        return shard_id, read_part(uri, columns, config.output.format)

    with ThreadPoolExecutor(_READERS) as pool:
        tables = map_ahead(
            read,
            ids,
            pool,
            most=2 * _READERS,
            budget_bytes=_BUDGET_BYTES,
            expected_bytes=lambda _: _EXPECTED_BYTES,
            held_bytes=lambda pair: int(pair[1].nbytes),
        )
        for shard_id, table in tables:
            scores = [score_column(table[f"{v.name}.embedding"], v.contrasts) for v in variants]
            yield _Shard(shard_id=shard_id, keys=table.select(columns[:3]), scores=np.stack(scores, axis=1))


def _items(shard: _Shard) -> Iterator[tuple[float, str, int, float | None]]:
    """(score, item_id, frame, time) of the best frame of each item that has one; frames of an item are adjacent."""
    rows: list[list[float]] = shard.scores.tolist()
    keys = zip(*(shard.keys[name].to_pylist() for name in ("item_id", "frame", "time_s")), strict=True)
    best: tuple[float, str, int, float | None] | None = None
    for (item_id, frame, time_s), row in zip(keys, rows, strict=True):
        score = row[0] if len(row) == 1 else aggregate.fuse(row, method="mean_logit", missing="skip")
        if best is not None and best[1] != item_id:
            yield best
            best = None
        if score == score and (best is None or score > best[0]):
            best = (score, item_id, frame, time_s)
    if best is not None:
        yield best


def _reversed(text: str) -> str:
    # Sorts the other way round: the heap drops its smallest, and of equal scores that should be the last id.
    return "".join(chr(0x10FFFF - ord(c)) for c in text)


def _with_uris(out: str, best: Sequence[tuple[float, str, str, int, float | None]], config: Config) -> Iterator[Found]:
    known: dict[str, dict[str, tuple[str, str | None]]] = {}
    for score, reverse_id, shard_id, frame, time_s in best:
        if shard_id not in known:
            uri = storage.join(out, "verdicts", part_name(shard_id, config.output.format))
            part = read_part(uri, ["item_id", "uri", "verdict"], config.output.format)
            cells = zip(*(part[name].to_pylist() for name in ("item_id", "uri", "verdict")), strict=True)
            known[shard_id] = {item_id: (item_uri, verdict) for item_id, item_uri, verdict in cells}
        item_id = _reversed(reverse_id)
        item_uri, verdict = known[shard_id][item_id]
        yield Found(item_id=item_id, uri=item_uri, verdict=verdict, score=score, frame=frame, time_s=time_s)
