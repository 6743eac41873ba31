"""Rows as cloud services write their results, so that readers of those need not change.

Amazon Rekognition, bulk analysis, output manifest:
https://docs.aws.amazon.com/rekognition/latest/dg/bulk-analysis-output-manifests.html
OpenAI, Batch API, results of `/v1/moderations`: https://platform.openai.com/docs/guides/batch

A score that was not computed is null or left out, never 0. An item that could not be judged has an `error` in its line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import IO, Any, Final

from moderation.config.load import resolve_config_path
from moderation.errors import UsageError
from moderation.policy.model import Policy
from moderation.policy.taxonomy import label_scores
from moderation.results.export.plain import json_line
from moderation.results.export.selection import SelectedRow
from moderation.results.schema import score_column
from moderation.types import Status, Verdict

OPENAI_TABLE: Final = "taxonomies/openai.csv"
# The categories of that API; a reader of it expects every one of them.
CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence",
    "violence/graphic",
)  # fmt: skip
_MIN_CONFIDENCE: Final = 0.5  # that service's own default


def write_rekognition(
    rows: Iterable[Sequence[SelectedRow]],
    file: IO[bytes],
    *,
    checks: Sequence[str],
    taxonomy: Mapping[str, tuple[str, ...]],
    model: str,
) -> int:
    """Write a line per row: `source-ref`, `detect-moderation-labels`; `error` where the item could not be judged whole.

    model: the value of `ModerationModelVersion`. Labels below 50 are left out, as that service does by default.
    """
    count = 0
    for part in rows:
        for row in part:
            file.write(json_line(rekognition_line(row, checks, taxonomy, model)))
            count += 1
    return count


def rekognition_line(
    row: SelectedRow, checks: Sequence[str], taxonomy: Mapping[str, tuple[str, ...]], model: str
) -> dict[str, Any]:
    """One line of an output manifest. `verdict` and `reason` are ours; that service has none."""
    scores = _scores_of(row, checks)
    line: dict[str, Any] = {"source-ref": row.cells["uri"]}
    if any(score is not None for score in scores.values()):
        labels = [label.as_api() for label in label_scores(scores, taxonomy, least=_MIN_CONFIDENCE)]
        line["detect-moderation-labels"] = {"ModerationLabels": labels, "ModerationModelVersion": model}
    if row.cells["status"] != Status.OK:
        line["error"] = _error_of(row)
    return {**line, "item_id": row.item_id, "verdict": row.cells["verdict"], "reason": row.cells["reason"]}


def write_openai(
    rows: Iterable[Sequence[SelectedRow]],
    file: IO[bytes],
    *,
    policy: Policy,
    categories: Mapping[str, str],
    model: str,
) -> int:
    """Write a line per row in the form of a Batch of `/v1/moderations`."""
    count = 0
    for part in rows:
        for row in part:
            file.write(json_line(openai_line(row, policy, categories, model)))
            count += 1
    return count


def openai_line(row: SelectedRow, policy: Policy, categories: Mapping[str, str], model: str) -> dict[str, Any]:
    """One line of a Batch's output. A category without a check is null, not false; `verdict` is ours."""
    number = sha256(row.item_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    line = {"id": f"batch_req_{number}", "custom_id": row.attributes.get("custom_id", row.item_id)}
    if row.cells["status"] != Status.OK:
        return {**line, "response": None, "error": _error_of(row)}
    scores, flags = _score_categories(row, policy, categories)
    result = {
        "flagged": row.cells["verdict"] != Verdict.PASS,  # an item for review is not cleared
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": {name: [] if s is None else ["image"] for name, s in scores.items()},
        "verdict": row.cells["verdict"],
        "reason": row.cells["reason"],
    }
    body = {"id": f"modr-{number}", "model": model, "results": [result]}
    return {**line, "response": {"status_code": 200, "request_id": number, "body": body}, "error": None}


def _score_categories(
    row: SelectedRow, policy: Policy, categories: Mapping[str, str]
) -> tuple[dict[str, float | None], dict[str, bool | None]]:
    """(score, whether a check's lowest threshold is reached) by category; null where no check of it has a score."""
    scores: dict[str, float | None] = dict.fromkeys(CATEGORIES)
    flags: dict[str, bool | None] = dict.fromkeys(CATEGORIES)
    for name, check in policy.checks.items():
        category = categories.get(name)
        score = row.cells.get(score_column(name))
        if category is None or score is None or check.side == "positive":
            continue
        thresholds = [t for t in (check.review, check.block) if t is not None]
        scores[category] = max(score, scores[category] or 0.0)
        flags[category] = bool(flags[category]) or (bool(thresholds) and score >= min(thresholds))
    return scores, flags


def load_categories(path: str | None = None) -> dict[str, str]:
    """check -> the category of that API. A CSV of `check,category`. Raises UsageError, with the line."""
    file = resolve_config_path(path or OPENAI_TABLE)
    categories: dict[str, str] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if list(reader.fieldnames or []) != ["check", "category"]:
            raise UsageError(f"{file}: the first line must be check,category")
        for number, row in enumerate(reader, start=2):
            if row["category"] not in CATEGORIES or row["check"] in categories:
                raise UsageError(
                    f"{file}, line {number}: {row['category']!r} is no category, or the check stands twice"
                )
            categories[row["check"]] = row["category"]
    return categories


def _scores_of(row: SelectedRow, checks: Sequence[str]) -> dict[str, float | None]:
    return {check: row.cells.get(score_column(check)) for check in checks}


def _error_of(row: SelectedRow) -> dict[str, str]:
    code = row.cells["error_code"] or row.cells["status"]
    return {"code": str(code), "message": row.cells["error_detail"] or ""}
