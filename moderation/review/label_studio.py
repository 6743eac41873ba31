"""Tasks and annotations of Label Studio: items out, annotations back.

A task is `{"data": {...}, "annotations": [...], "predictions": [...]}`; an annotation has regions of type `choices`
(`decision`, `labels`) and `textarea` (`comment`) on one object, `media`. What Label Studio has no field for (our id,
the pseudonym, the reason) lies in `meta` of the first region, which it hands back as it came.
https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from moderation.config.canonical import parse_json
from moderation.errors import UsageError
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.pages.text import short_line
from moderation.review.items import QueueItem
from moderation.review.plain_exchange import Row, decode_text
from moderation.types import Kind

MEDIA: Final = "media"
# Kind -> the key of `data`, and the tag that shows it.
_OBJECTS: Final[Mapping[str, tuple[str, str]]] = {
    Kind.VIDEO: ("video", '<Video name="media" value="$video"/>'),
    Kind.ALBUM: ("images", '<Image name="media" valueList="$images"/>'),
    Kind.KEYFRAMES: ("images", '<Image name="media" valueList="$images"/>'),
}
_IMAGE: Final = ("image", '<Image name="media" value="$image"/>')
_META: Final = "moderation"


def object_key(kind: str) -> str:
    """`image`, `video` or `images`: tasks of one key go into one project."""
    return _OBJECTS.get(kind, _IMAGE)[0]


def label_config(key: str, words: Iterable[str]) -> str:
    """The labeling configuration of a project. key: of `object_key`. words: that `labels` offers."""
    tag = next((tag for name, tag in _OBJECTS.values() if name == key), _IMAGE[1])
    choices = "".join(f'\n    <Choice value="{answer}"/>' for answer in Answer)
    labels = "".join(f'\n    <Choice value="{html.escape(word)}"/>' for word in dict.fromkeys(words))
    several = f'\n  <Choices name="labels" toName="media" choice="multiple">{labels}\n  </Choices>' if labels else ""
    return (
        f'<View>\n  {tag}\n  <Choices name="decision" toName="media" choice="single" required="true">{choices}'
        f'\n  </Choices>{several}\n  <TextArea name="comment" toName="media" maxSubmissions="1"/>\n</View>\n'
    )


def task_of(
    item: QueueItem, objects: Sequence[str], decisions: Iterable[Decision], numbers: Mapping[str, int], model: str
) -> dict[str, Any]:
    """One item as a task. objects: URLs of its pictures. numbers: reviewer -> number. model: who predicted.

    Of an item of the audit the machine's verdict is left out.
    """
    key = object_key(item.kind)
    data: dict[str, Any] = {
        key: list(objects) if key == "images" else objects[0],
        "item_id": item.item_id,
        "uri": item.uri,
        "kind": item.kind,
        "audit": item.audit,
        **({"content_hash": item.content_hash} if item.content_hash else {}),
    }
    task: dict[str, Any] = {"data": data, "annotations": [_annotation(d, numbers[d.reviewer]) for d in decisions]}
    if item.audit:
        return {**task, "predictions": []}
    texts = {"verdict": item.verdict, "reason": item.reason_text or item.reason, "check": item.check}
    data.update({name: text for name, text in texts.items() if text})
    return {**task, "predictions": _predictions(item, model)}


def read_tasks(data: bytes, uri: str) -> Iterator[Row]:
    """Decisions in an export of Label Studio (JSON), as rows; the line is the task's place, from 1.

    Raises UsageError where it is no such export.
    """
    try:
        tasks = parse_json(decode_text(data, uri))
    except ValueError as error:
        raise UsageError(f"{uri}: not JSON") from error
    if not isinstance(tasks, list) or not tasks:
        raise UsageError(f"{uri}: not an export of Label Studio: expected a list of tasks")
    if isinstance(tasks[0], dict) and "annotations" not in tasks[0]:
        hint = "; export it as JSON, not as JSON-MIN" if "decision" in tasks[0] or "annotator" in tasks[0] else ""
        raise UsageError(f"{uri}: its first task has no `annotations`{hint}")
    for place, task in enumerate(tasks, start=1):
        yield from ((place, row) for row in _rows_of(task))


def _annotation(decision: Decision, number: int) -> dict[str, Any]:
    kept = {
        "decision_id": decision.decision_id,
        "reviewer": decision.reviewer,
        "reason": decision.reason,
        "source": str(decision.source),
        "expert": decision.expert,
        "said": _said(str(decision.decision), decision.labels, decision.comment),
    }
    regions = [_region(decision, "decision", "choices", [str(decision.decision)])]
    # What Label Studio keeps of a region beside its value.
    regions[0]["meta"] = {_META: kept}
    if decision.labels:
        regions.append(_region(decision, "labels", "choices", list(decision.labels)))
    if decision.comment:
        regions.append(_region(decision, "comment", "textarea", [decision.comment], key="text"))
    stamp = decision.decided_at.isoformat().replace("+00:00", "Z")
    return {
        "completed_by": number,
        "result": regions,
        "was_cancelled": decision.decision is Answer.SKIP,
        "ground_truth": decision.expert,
        "created_at": stamp,
        "updated_at": stamp,
        "lead_time": decision.exposure_s,
        "result_count": len(regions),
    }


def _region(decision: Decision, name: str, kind: str, values: list[str], key: str = "") -> dict[str, Any]:
    region_id = hashlib.sha256(f"{decision.decision_id}\0{name}".encode()).hexdigest()[:10]
    value = {key or kind: values}
    return {"id": region_id, "from_name": name, "to_name": MEDIA, "type": kind, "value": value}


def _predictions(item: QueueItem, model: str) -> list[dict[str, Any]]:
    # What is to be reviewed has no answer that a reviewer could only confirm.
    if item.verdict not in (Answer.BLOCK, Answer.PASS):
        return []
    region = {
        "id": hashlib.sha256(item.item_id.encode()).hexdigest()[:10],
        "from_name": "decision",
        "to_name": MEDIA,
        "type": "choices",
        "value": {"choices": [item.verdict]},
    }
    prediction: dict[str, Any] = {"model_version": model, "result": [region]}
    if item.score is not None:
        prediction["score"] = min(1.0, max(0.0, item.score))
    return [prediction]


def _rows_of(task: object) -> Iterator[Mapping[str, Any] | str]:
    data = task.get("data") if isinstance(task, dict) else None
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield "not a task: it has no `data` or no `annotations`"
        return
    # An answer about another picture than the run has now is refused.
    item = {name: data.get(name) for name in ("item_id", "uri", "content_hash")}
    for annotation in annotations:
        if isinstance(annotation, dict):
            yield {**item, **_answer(annotation, blind=data.get("audit") is True)}
        else:
            yield "an annotation that is not an object"


def _answer(annotation: Mapping[str, Any], *, blind: bool) -> dict[str, Any]:
    said = _regions(annotation)
    chosen = _values(said.get("decision"), "choices")
    decision = str(Answer.SKIP) if annotation.get("was_cancelled") else short_line("".join(chosen[:1]), 80)
    labels = _values(said.get("labels"), "choices")
    comment = "\n".join(_values(said.get("comment"), "text"))
    row = {
        "decision": decision,
        "labels": labels,
        "comment": comment,
        "reviewer": _reviewer(annotation.get("completed_by")),
        "decided_at": annotation.get("updated_at") or annotation.get("created_at"),
        "exposure_s": annotation.get("lead_time"),
        "expert": annotation.get("ground_truth"),
        # Its task had no verdict to show.
        "source": str(DecisionSource.AUDIT if blind else DecisionSource.IMPORT),
    }
    kept = _kept(said.get("decision"))
    # An annotation that somebody has changed since is another decision, by who changed it.
    if kept and kept.get("said") != _said(decision, labels, comment):
        return {**row, "source": str(DecisionSource.IMPORT)}
    return {**row, **{name: kept[name] for name in _KEPT if name in kept}}


def _regions(annotation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The regions by the name of their control."""
    result = annotation.get("result")
    listed = result if isinstance(result, list) else []
    return {str(region.get("from_name")): region for region in listed if isinstance(region, dict)}


def _kept(region: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the export put beside the value of a region."""
    meta = (region or {}).get("meta")
    kept = meta.get(_META) if isinstance(meta, dict) else None
    return kept if isinstance(kept, dict) else {}


def _reviewer(completed_by: object) -> str:
    # Never the mail address that an export may have.
    number = completed_by.get("id") if isinstance(completed_by, dict) else completed_by
    return f"label-studio-{number}" if isinstance(number, int) else ""


_KEPT: Final = ("decision_id", "reviewer", "reason", "source", "expert")


def _said(decision: str, labels: Sequence[str], comment: str) -> str:
    return hashlib.sha256("\0".join((decision, *labels, "", comment)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _values(region: Mapping[str, Any] | None, key: str) -> list[str]:
    value = (region or {}).get("value")
    given = value.get(key) if isinstance(value, dict) else None
    return [str(entry) for entry in given] if isinstance(given, list) else []
