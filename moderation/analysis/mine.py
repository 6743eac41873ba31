"""Hard examples of finished runs: confident mistakes by labels, detectors that differ, scores near a threshold.

Items of the audit are left out: what learns from them can't be certified by them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moderation import storage
from moderation.analysis.hard_examples import (
    HardExample,
    HardKind,
    Hardness,
    choose_hardest,
    hardest_mistake,
    nearest_threshold,
)
from moderation.errors import UsageError
from moderation.labels.label_files import read_labels
from moderation.labels.meaning import Meaning, make_meaning
from moderation.labels.resolve import LabelTable, Words, find_label, resolve_labels
from moderation.policy.model import Policy
from moderation.results.export.manifest import manifest_lines
from moderation.results.export.plain import json_line
from moderation.results.export.selection import PartSelection, RowSelection, read_selected
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.schema import score_column

LEAST_SPREAD: Final = 0.2  # between two votes of a check, below which detectors agree
_COLUMNS: Final = ("item_id", "uri", "content_hash", "pdq", "status", "error_code", "audit")
_ANSWERS: Final = frozenset({"block", "pass"})
_ENDING: Final = ".jsonl"
# Of a kind, as many candidates for each that is wanted: near-copies among them are left out later.
_SPARE: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningWish:
    """What is looked for. near: of a threshold. bad, means: how words of labels are read, as in `evaluate`."""

    count: int = 200
    near: float = 0.05
    labels: str | None = None
    bad: tuple[str, ...] = ()
    means: tuple[str, ...] = ()
    policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedExamples:
    """What was found and written. kinds: how many of each; labelled: that have a label; folders: to allow."""

    items: int
    kinds: Mapping[str, int]
    labelled: int


def mine(outs: Sequence[str], to: str, wish: MiningWish) -> MinedExamples:
    """Write the hardest items of runs as a manifest, JSON lines that any source reads.

    Its columns beside those of a manifest: `hard` (the kind), `hard_check`, `hard_score`, `hard_threshold`, and `label`
    where there is one. Raises UsageError, PartMissingError, PartChangedError, FatalError, StorageError.
    """
    if not to.endswith(_ENDING):
        raise UsageError(f"--to {to}: a manifest that ends in {_ENDING}")
    runs = [open_run(out) for out in outs]
    labels = resolve_labels(read_labels(wish.labels)) if wish.labels is not None else None
    chosen = choose_hardest(_candidates(runs, labels, wish), wish.count)
    with storage.open_output(to) as file:
        for run in runs:
            own = {example.item_id: example for example in chosen if example.out == run.out}
            for line in _lines(run, own):
                file.write(json_line(line))
    return MinedExamples(
        items=len(chosen),
        kinds=dict(Counter(str(example.kind) for example in chosen)),
        labelled=sum(bool(example.label) for example in chosen),
    )


def _candidates(runs: Sequence[StoredRun], labels: LabelTable | None, wish: MiningWish) -> list[HardExample]:
    heaps = _Heaps(wish.count * _SPARE)
    for run in runs:
        policy = load_policy_of_run(run, wish.policy)
        meaning = _meaning(policy, labels, wish)
        for shard_id in run.shard_ids:
            for example in _examples(run, shard_id, policy, labels, meaning, wish):
                heaps.add(example)
    return heaps.all()


class _Heaps:
    """The hardest candidates of each kind, so many at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heaps: dict[HardKind, list[tuple[float, int, HardExample]]] = {kind: [] for kind in HardKind}
        self._number = count()

    def add(self, example: HardExample) -> None:
        # Of two that are as hard, the first stays.
        entry = (example.hardness, -next(self._number), example)
        heap = self._heaps[example.kind]
        if len(heap) < self._most:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def all(self) -> list[HardExample]:
        return [example for heap in self._heaps.values() for _, _, example in heap]


def _meaning(policy: Policy, labels: LabelTable | None, wish: MiningWish) -> Meaning | None:
    if labels is None:
        return None
    sides = {name: str(check.side) for name, check in policy.checks.items()}
    return make_meaning(sides, labels.words, wish.bad, wish.means)


def _examples(
    run: StoredRun, shard_id: str, policy: Policy, labels: LabelTable | None, meaning: Meaning | None, wish: MiningWish
) -> Iterator[HardExample]:
    columns = (*_COLUMNS, *(score_column(check) for check in policy.checks))
    rows = run.read_present(VERDICTS, shard_id, columns).to_pylist()
    looks = _FrameVotes.read(run, shard_id, policy)
    for row in rows:
        # What could not be decoded teaches nothing; the audit certifies.
        if row["status"] != "ok" or row.get("error_code") is not None or row.get("audit"):
            continue
        words = _words_of(row, labels)
        for hard in _hardness_of(row, policy, looks, words, meaning, wish):
            yield _example(run, row, hard, words, looks)


def _words_of(row: Mapping[str, Any], labels: LabelTable | None) -> Words | None:
    label = find_label(labels.labels, row) if labels is not None else None
    return None if label is None else label.words


def _hardness_of(
    row: Mapping[str, Any],
    policy: Policy,
    looks: _FrameVotes,
    words: Words | None,
    meaning: Meaning | None,
    wish: MiningWish,
) -> Iterator[Hardness]:
    scores = {check: row.get(score_column(check)) for check in policy.checks}
    if words is not None and meaning is not None:
        # What is labelled and right has been learned.
        found = [hardest_mistake(scores, policy.checks, words, meaning)]
    else:
        found = [nearest_threshold(scores, policy.checks, wish.near), looks.disagreement(row["item_id"])]
    yield from (hard for hard in found if hard is not None)


def _example(
    run: StoredRun, row: Mapping[str, Any], hard: Hardness, words: Words | None, looks: _FrameVotes
) -> HardExample:
    return HardExample(
        out=run.out,
        item_id=row["item_id"],
        kind=hard.kind,
        check=hard.check,
        hardness=hard.hardness,
        score=hard.score,
        threshold=hard.threshold,
        # To learn from: what it is, where that is said, else the answer.
        label="|".join(sorted((words or frozenset()) - _ANSWERS or words or ())),
        content_hash=row.get("content_hash"),
        pdq=_parse_hash(row.get("pdq")),
        embedding=looks.embedding(row["item_id"]),
    )


def _parse_hash(text: str | None) -> bytes | None:
    try:
        return bytes.fromhex(text) if text is not None and len(text) == 64 else None
    except ValueError:
        return None


class _FrameVotes:
    """What the votes of a part say beside the scores: how far detectors differ, and the kept embeddings."""

    def __init__(self, places: Mapping[str, npt.NDArray[np.int64]], votes: pa.Table, policy: Policy) -> None:
        self._places = places
        self._votes = votes
        self._spreads = {name: _spread(votes, tuple(check.votes)) for name, check in policy.checks.items()}
        self._embedding = next((n for n in votes.column_names if n.endswith(".embedding")), None)

    @staticmethod
    def read(run: StoredRun, shard_id: str, policy: Policy) -> _FrameVotes:
        wanted = {label for check in policy.checks.values() for label in check.votes}
        votes = run.read_votes(shard_id)
        names = [n for n in votes.column_names if n in wanted or n == "item_id" or n.endswith(".embedding")]
        votes = votes.select(names).combine_chunks()
        places: dict[str, list[int]] = {}
        for place, item_id in enumerate(votes["item_id"].to_pylist()):
            places.setdefault(item_id, []).append(place)
        return _FrameVotes({item: np.array(own, np.int64) for item, own in places.items()}, votes, policy)

    def disagreement(self, item_id: str) -> Hardness | None:
        """The widest difference between two votes of a check on one frame of the item."""
        own = self._places.get(item_id)
        if own is None:
            return None
        widest = {name: float(spread[own].max()) for name, spread in self._spreads.items() if spread is not None}
        check = max(widest, key=lambda name: widest[name], default=None)
        if check is None or widest[check] < LEAST_SPREAD:
            return None
        spread = min(1.0, widest[check])
        return Hardness(kind=HardKind.DISAGREEMENT, check=check, hardness=spread, score=spread, threshold=None)

    def embedding(self, item_id: str) -> npt.NDArray[np.float16] | None:
        """Of the frame in the middle."""
        own = self._places.get(item_id)
        if own is None or self._embedding is None:
            return None
        value = self._votes[self._embedding][int(own[len(own) // 2])].as_py()
        return None if value is None else np.array(value, np.float16)


def _spread(votes: pa.Table, labels: Sequence[str]) -> npt.NDArray[np.float32] | None:
    """float32 [F]: highest minus lowest vote of a check; 0 with fewer than two. None where it asks one detector."""
    cast = [votes[label].to_numpy() for label in labels if label in votes.column_names]
    if len(cast) < 2:
        return None
    scores = np.stack(cast, axis=1).astype(np.float32)
    low = np.where(np.isnan(scores), np.inf, scores).min(axis=1)
    high = np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
    spread: npt.NDArray[np.float32] = np.maximum(high - low, 0).astype(np.float32)
    return spread


def _lines(run: StoredRun, chosen: Mapping[str, HardExample]) -> Iterator[dict[str, Any]]:
    if not chosen:
        return
    for part in read_selected(run, PartSelection(run.out, RowSelection())):
        for row in part:
            example = chosen.get(row.item_id)
            if example is not None:
                yield from ({**line, **_facts(example)} for line in manifest_lines(row))


def _facts(example: HardExample) -> dict[str, str]:
    threshold = "" if example.threshold is None else f"{example.threshold:.6g}"
    facts = {
        "hard": str(example.kind),
        "hard_check": example.check,
        "hard_score": f"{example.score:.6g}",
        "hard_threshold": threshold,
    }
    return {**facts, "label": example.label} if example.label else facts
