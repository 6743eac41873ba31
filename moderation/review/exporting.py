"""Decisions, and items to decide, into files of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from moderation import storage
from moderation.errors import UsageError
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, Decision, decisions_on, standing_decisions
from moderation.results.export.plain import json_line
from moderation.results.export.selection import PartSelection, RowSelection, read_selected
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.review.agreement import group_by_item
from moderation.review.filters import QueueFilter
from moderation.review.items import QueueItem
from moderation.review.label_studio import label_config, object_key, task_of
from moderation.review.plain_exchange import as_csv, as_json_lines, decision_cells, item_cells
from moderation.review.settings import ReviewSettings
from moderation.review.verdict_rows import read_verdict_rows

FORMATS: Final = ("label-studio", "jsonl", "csv")
ENDINGS: Final[Mapping[str, str]] = {"label-studio": ".json", "jsonl": ".jsonl", "csv": ".csv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewExport:
    """What was written. files: with their numbers of rows or tasks."""

    decisions: int
    items: int
    files: Mapping[str, int]


def export_review(
    out: str, to: str, format_: str, wanted: QueueFilter, *, todo: bool, url: tuple[str, str] | None = None
) -> ReviewExport:
    """Write what was decided, and with `todo` the chosen items that nobody has decided, to fill in.

    Label Studio gets a file of tasks for pictures (`TO`), for videos (`TO` with `.video`) and for albums (`.images`),
    each with its labeling configuration beside it; without `todo`, the decided items. url: what URIs begin with, and
    what an annotator's browser needs instead. Raises UsageError, DamagedDecisionsError, FatalError, StorageError.
    """
    if not to.lower().endswith(ENDINGS[format_]):
        raise UsageError(f"--to {to}: a file of {format_} ends in {ENDINGS[format_]}")
    run = open_run(out)
    decisions = read_decisions(out)
    by_item = group_by_item(standing_decisions(decisions))
    if format_ == "label-studio":
        chosen = _chosen(run, wanted, by_item, todo=todo)
        return _write_tasks(run, to, chosen, by_item, url, todo=todo)
    if todo:
        cells = [item_cells(item) for item in _chosen(run, wanted, by_item, todo=True)]
    else:
        cells = [decision_cells(decision) for decision in decisions]
    storage.publish(to, as_json_lines(cells) if format_ == "jsonl" else as_csv(cells))
    counts = (0, len(cells)) if todo else (len(cells), 0)
    return ReviewExport(decisions=counts[0], items=counts[1], files={to: len(cells)})


def _of_item(by_item: Mapping[str, Sequence[Decision]], item: QueueItem) -> list[Decision]:
    """The decisions on what was judged: another picture may have lain there in an earlier run."""
    own = by_item.get(item.item_id, ())
    return list(own) if item.content_hash is None else decisions_on(own, item.content_hash)


def _is_left(own: Sequence[Decision]) -> bool:
    # Who skips or escalates an item leaves it to others.
    return not any(decision.decision in (Answer.BLOCK, Answer.PASS) for decision in own)


def _chosen(
    run: StoredRun, wanted: QueueFilter, by_item: Mapping[str, Sequence[Decision]], *, todo: bool
) -> list[QueueItem]:
    """The chosen items in the order of the queue: those that are decided, or with `todo` the others."""
    rows = read_verdict_rows(run, ReviewSettings().salt)
    flags = rows.chosen(replace(wanted, undecided=todo))
    if todo and wanted.tells_verdict:
        flags &= ~rows.audit
    items = rows.items([row for row in rows.order.tolist() if flags[row]])
    own = [(item, _of_item(by_item, item)) for item in items]
    return [item for item, decisions in own if (_is_left(decisions) if todo else decisions)]


def _write_tasks(
    run: StoredRun,
    to: str,
    items: Sequence[QueueItem],
    by_item: Mapping[str, Sequence[Decision]],
    url: tuple[str, str] | None,
    *,
    todo: bool,
) -> ReviewExport:
    # A task with an annotation counts as done there.
    shown: Mapping[str, Sequence[Decision]] = {} if todo else by_item
    numbers, words = _number_reviewers(by_item), _words_of(run, by_item)
    objects = _objects_of(run, items)
    tasks: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        urls = [_rewrite(uri, url) for uri in objects.get(item.item_id, [item.uri])]
        task = task_of(item, urls, _of_item(shown, item), numbers, f"moderation {run.run_id}")
        tasks.setdefault(object_key(item.kind), []).append(task)
    files: dict[str, int] = {}
    for key, own in (tasks or {"image": []}).items():
        stem = to.removesuffix(".json") + ("" if key == "image" else f".{key}")
        storage.publish(f"{stem}.json", b"[" + b",".join(map(json_line, own)) + b"]\n")
        storage.publish(f"{stem}.xml", label_config(key, words).encode())
        files[f"{stem}.json"] = len(own)
    decided = sum(len(_of_item(shown, item)) for item in items)
    return ReviewExport(decisions=decided, items=len(items), files=files)


def _number_reviewers(by_item: Mapping[str, Sequence[Decision]]) -> dict[str, int]:
    names = sorted({decision.reviewer for own in by_item.values() for decision in own})
    return {name: number for number, name in enumerate(names, start=1)}


def _words_of(run: StoredRun, by_item: Mapping[str, Sequence[Decision]]) -> list[str]:
    """What reviewers may call an item: checks of the policy, and words that were used."""
    used = {word for own in by_item.values() for decision in own for word in decision.labels}
    return [*_checks_of(run), *sorted(used)]


def _checks_of(run: StoredRun) -> list[str]:
    try:
        return list(load_policy_of_run(run).checks)
    except UsageError:
        return []


def _objects_of(run: StoredRun, items: Sequence[QueueItem]) -> dict[str, list[str]]:
    """The objects of items that have several: of albums and keyframes, by the plan."""
    several = {item.item_id for item in items if object_key(item.kind) == "images"}
    if not several:
        return {}
    selected = read_selected(run, PartSelection(run.out, RowSelection()))
    return {
        row.item_id: [storage.mask_signatures(media.uri) for media in row.item.objects]
        for part in selected
        for row in part
        if row.item_id in several and row.item is not None and row.item.objects
    }


def _rewrite(uri: str, url: tuple[str, str] | None) -> str:
    return uri if url is None or not uri.startswith(url[0]) else url[1] + uri[len(url[0]) :]
