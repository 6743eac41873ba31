"""Judgements as Arrow columns, without one Python object per cell where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderation.policy.evidence import MAX_EVIDENCE
from moderation.policy.judge_part import PartJudgement
from moderation.policy.part_scores import I64
from moderation.results.schema import EVIDENCE_TYPE, SEGMENT_TYPE, score_column, verdicts_schema
from moderation.results.tables import judgement_cells, segment_cells
from moderation.types import Judgement

_PLAIN: Final = (
    "verdict", "reason", "check", "score", "confidence", "threshold", "severity", "label", "reason_text", "audit",
    "review_rank",
)  # fmt: skip
JUDGED_COLUMNS: Final = (*_PLAIN, "evidence", "segments")  # of every policy; each check adds its score
_NONE: Final = -1


class JudgedColumns:
    """The columns of N items that a policy decides, filled in any order."""

    def __init__(self, checks: Sequence[str], items: int) -> None:
        self._checks = tuple(checks)
        self._plain: dict[str, list[object]] = {name: [None] * items for name in _PLAIN}
        self._scores = np.full((items, len(checks)), np.nan)
        self._segments: list[list[dict[str, object]]] = [[] for _ in range(items)]
        self._rows = np.full((items, MAX_EVIDENCE), _NONE, np.int64)
        self._columns = np.full((items, MAX_EVIDENCE), _NONE, np.int64)
        self._own_evidence: dict[int, Any] = {}

    def fill(self, items: I64, places: I64, judged: PartJudgement) -> None:
        """Set the judgements of many items. places: int64 [f], the judged frames' rows in the part."""
        self._scores[items] = judged.scores
        cells = judged.evidence.rows
        self._rows[items] = np.where(cells < 0, _NONE, places[cells])
        self._columns[items] = judged.evidence.columns
        plain = self._plain
        for nth, item in enumerate(items.tolist()):
            decision, by = judged.decisions[nth], judged.decisions[nth].by
            plain["verdict"][item] = decision.verdict.value
            plain["reason"][item] = decision.reason
            plain["confidence"][item] = decision.confidence
            plain["threshold"][item] = decision.threshold
            plain["reason_text"][item] = judged.reason_texts[nth] or None
            plain["audit"][item] = judged.audit[nth]
            plain["review_rank"][item] = judged.review_ranks[nth]
            if by is not None:
                plain["check"][item], plain["score"][item] = by.check.name, by.score
                if by.check.side == "negative":
                    plain["severity"][item], plain["label"][item] = by.check.severity, by.check.label
            if judged.segments[nth]:
                self._segments[item] = [segment_cells(segment) for segment in judged.segments[nth]]

    def set(self, item: int, judgement: Judgement | None) -> None:
        """Set the judgement of one item; None: it was skipped."""
        cells = judgement_cells(judgement, self._checks)
        for name in _PLAIN:
            self._plain[name][item] = cells[name]
        scores = [cells[score_column(check)] for check in self._checks]
        self._scores[item] = [np.nan if score is None else score for score in scores]
        self._segments[item] = [] if judgement is None else [segment_cells(s) for s in judgement.segments]
        self._rows[item] = _NONE
        self._own_evidence[item] = cells["evidence"]

    def arrays(self, votes: pa.Table, labels: Sequence[str]) -> dict[str, pa.Array]:
        """The columns. votes: of the part; its cells are the evidence. labels: its columns."""
        schema = verdicts_schema(self._checks, {})
        arrays = {name: pa.array(cells, schema.field(name).type) for name, cells in self._plain.items()}
        for k, check in enumerate(self._checks):
            numbers = np.ascontiguousarray(self._scores[:, k]).astype(np.float32)
            arrays[score_column(check)] = pa.array(numbers, pa.float32(), from_pandas=True)
        arrays["segments"] = pa.array(self._segments, pa.list_(SEGMENT_TYPE))
        arrays["evidence"] = self._evidence(votes, labels)
        return arrays

    def _evidence(self, votes: pa.Table, labels: Sequence[str]) -> pa.Array:
        given = self._rows >= 0
        rows, columns = self._rows[given], self._columns[given]
        offsets = np.concatenate([[0], np.cumsum(given.sum(axis=1))]).astype(np.int32)
        many = pa.ListArray.from_arrays(pa.array(offsets), _evidence_cells(votes, labels, rows, columns))
        many = many.cast(pa.list_(EVIDENCE_TYPE))
        if not self._own_evidence:
            return many
        own = pa.array(list(self._own_evidence.values()), pa.list_(EVIDENCE_TYPE))
        order = np.arange(len(offsets) - 1)
        order[list(self._own_evidence)] = len(order) + np.arange(len(own))
        return pa.concat_arrays([many, own]).take(pa.array(order))


def _evidence_cells(votes: pa.Table, labels: Sequence[str], rows: I64, columns: I64) -> pa.StructArray:
    names = [label.partition(".") for label in labels]
    places = pa.array(rows, pa.int64())
    scores = np.full(len(rows), np.nan, np.float32)
    for column in np.unique(columns).tolist():
        own = columns == column
        scores[own] = votes[labels[column]].to_numpy()[rows[own]]
    at = pa.array(columns, pa.int64())
    cells = [
        pa.array([name for name, _, _ in names], pa.string()).take(at),
        pa.array([name for _, _, name in names], pa.string()).take(at),
        pa.array(scores),
        _one_chunk(votes["frame"]).take(places),
        _one_chunk(votes["time_s"]).take(places),
        pa.array(_boxes(votes, names, rows, columns), pa.list_(pa.float32(), 4)),
    ]
    return pa.StructArray.from_arrays(cells, fields=list(EVIDENCE_TYPE))


def _boxes(votes: pa.Table, names: Sequence[tuple[str, str, str]], rows: I64, columns: I64) -> list[list[float] | None]:
    """The best matching region of each cell; nearly always there is none."""
    boxes: list[list[float] | None] = [None] * len(rows)
    if "regions" not in votes.column_names:
        return boxes
    pointed = np.asarray(pc.fill_null(pc.list_value_length(votes["regions"]), 0))[rows] > 0
    for nth in np.flatnonzero(pointed).tolist():
        detector, _, label = names[columns[nth]]
        regions = votes["regions"][int(rows[nth])].as_py()
        matching = [r for r in regions if r["detector"] == detector and r["label"] == label]
        if matching:
            best = max(matching, key=lambda region: float(region["score"]))
            boxes[nth] = [best["x0"], best["y0"], best["x1"], best["y1"]]
    return boxes


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined
