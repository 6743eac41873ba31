"""`moderation export --format dsa`: statements of reasons, a JSON line each, in the fields of the EU's database."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from moderation import storage
from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.results.export.plain import json_line
from moderation.results.layout import export_uri
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.swept import read_swept_record
from moderation.review.restrictions import Automation, FinalVerdict, read_final_verdicts
from moderation.review.statement_map import StatementMap, StatementRule, read_statement_map
from moderation.review.swept_restrictions import SweptVerdict, read_swept_verdicts

_CONTENT_TYPES: Final = {"video": "CONTENT_TYPE_VIDEO", "keyframes": "CONTENT_TYPE_VIDEO"}
_EARLIEST: Final = date(2000, 1, 1)  # the database refuses days before it
_MAX_FACTS: Final = 5000
_HOW: Final = {
    Automation.FULLY: "The decision was taken by automated means.",
    Automation.PARTIALLY: "It was detected by automated means; a person decided.",
    Automation.NOT: "A person decided.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementsReport:
    """What was written. escalated: left to the operator. incomplete: why -> items without a statement, in `errors`."""

    to: str
    errors: str
    rows: int
    statements: int
    escalated: int
    incomplete: Mapping[str, int]


def export_statements(out: str, mapping_path: str, *, to: str | None = None) -> StatementsReport:
    """Write a statement per item that is restricted in the end, by the machine or by people; nothing of others.

    out: of a run; or of a sweep, whose statements are of what it blocks and no run of its own does.
    What a statement needs and the item lacks is a line of `TO.errors.jsonl`. Raises UsageError before any work.
    """
    swept = read_swept_record(out)
    found: Iterator[SweptVerdict]
    if swept is None:
        run = open_run(out)
        policy, found = load_policy_of_run(run), _of_run(run)
    else:
        policy, found = None, read_swept_verdicts(out, swept)
    mapping = read_statement_map(Path(mapping_path), policy)
    where = storage.canonical(to or export_uri(out, "dsa.jsonl"))
    if not where.endswith((".jsonl", ".ndjson")):
        raise UsageError(f"--to {to}: statements are JSON lines: a name that ends in .jsonl")
    errors = f"{where}.errors.jsonl"
    incomplete: Counter[str] = Counter()
    rows = statements = escalated = 0
    with storage.open_output(where) as file, storage.open_output(errors) as left_out:
        for one in found:
            rows += 1
            if isinstance(one.final, FinalVerdict):
                escalated += one.final.escalated
                if one.final.escalated or not one.final.is_restricted:
                    continue
                made = make_statement(one.final, mapping, one.run_id, one.basis)
            else:
                made = one.final
            if isinstance(made, str):
                incomplete[made] += 1
                left_out.write(json_line({"item_id": one.item_id, "uri": one.uri, "why": made}))
            else:
                statements += 1
                file.write(json_line(made))
    return StatementsReport(
        to=where, errors=errors, rows=rows, statements=statements, escalated=escalated, incomplete=dict(incomplete)
    )


def _of_run(run: StoredRun) -> Iterator[SweptVerdict]:
    for final in read_final_verdicts(run):
        basis = "machine" if final.by_people is None else final.by_people.holds.decision_id
        item_id, uri = final.row["item_id"], final.row["uri"]
        yield SweptVerdict(item_id=item_id, uri=uri, run_id=run.run_id, basis=basis, final=final)


def make_statement(final: FinalVerdict, mapping: StatementMap, run_id: str, basis: str) -> dict[str, Any] | str:
    """The statement of a restricted item, or what it lacks. Pure.

    run_id: of the run that has its row. basis: what restricts it: an id of a decision, or the machine. The statement's
    id is the same in every export, and another one once people have decided anew.
    """
    rule = mapping.rule_for(final.row.get("check"), final.row.get("reason"), final.words)
    if rule is None:
        return "the mapping has no rule for it, and no default"
    uploaded = _day(dict(final.row.get("attributes") or ()).get(mapping.content_date))
    if uploaded is None:
        return f"its attribute {mapping.content_date!r} is not a day from {_EARLIEST} on"
    if final.decided_at is None:
        return "its run does not tell when it was judged"
    digest = hashlib.sha256("\0".join((run_id, final.row["item_id"], basis)).encode("utf-8", "replace")).hexdigest()
    return {
        "puid": f"{mapping.platform}-{digest[:40]}",
        "decision_visibility": list(rule.visibility),
        **_ground(rule),
        "category": rule.category,
        **({"category_specification": list(rule.keywords)} if rule.keywords else {}),
        "content_type": [_CONTENT_TYPES.get(str(final.row.get("kind")), "CONTENT_TYPE_IMAGE")],
        "content_date": uploaded.isoformat(),
        "territorial_scope": list(mapping.countries),
        "application_date": final.decided_at.date().isoformat(),
        "decision_facts": _facts(final),
        "source_type": mapping.source_type,
        "automated_detection": "Yes" if final.is_detected else "No",
        "automated_decision": str(final.automation),
    }


def _ground(rule: StatementRule) -> dict[str, str]:
    if rule.ground == "illegal":
        return {
            "decision_ground": "DECISION_GROUND_ILLEGAL_CONTENT",
            "illegal_content_legal_ground": rule.reference,
            "illegal_content_explanation": rule.explanation,
        }
    return {
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": rule.reference,
        "incompatible_content_explanation": rule.explanation,
        "incompatible_content_illegal": "Yes" if rule.also_illegal else "No",
    }


def _facts(final: FinalVerdict) -> str:
    """What was found, without a name of anybody: comments of reviewers and addresses stay here."""
    found = _found(final.row) if final.is_detected else ""
    return " ".join(part for part in (short_line(found, _MAX_FACTS - 200), _HOW[final.automation]) if part)


def _found(row: Mapping[str, Any]) -> str:
    kind, _, rest = str(row.get("reason") or "").partition(":")
    if kind == "list":
        # Its sentence holds the note of the entry, which may name a reviewer or an owner; the database is public.
        return f"On the list {rest.partition(':')[0]}."
    return str(row.get("reason_text") or "")


def _day(text: str | None) -> date | None:
    try:
        day = date.fromisoformat((text or "")[:10])
    except ValueError:
        return None
    return day if day >= _EARLIEST else None
