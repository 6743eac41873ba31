"""Items of finished runs with their labels, as plain columns: what measures and certificates are computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from moderation import storage
from moderation.errors import UsageError
from moderation.evaluation.objections import find_objectors, is_approved
from moderation.evaluation.walks import F64
from moderation.labels.resolve import Label, LabelTable, find_label
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.certified import certified_hash, withdraw
from moderation.policy.model import Policy, policy_hash
from moderation.results.decided import read_kept_policy
from moderation.results.intact import read_intact
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.results.schema import score_column

_COLUMNS: Final = (
    "item_id", "uri", "content_hash", "kind", "verdict", "status", "reason", "frames_scored", "duration_s",
    "widest_gap_s", "unseen", "group_id", "error_code", "attributes", "audit",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedItem:
    """The columns of a verdicts row that matter here. audit: None where the run's tables do not have it."""

    item_id: str
    uri: str
    content_hash: str | None
    kind: str
    verdict: str
    reason: str
    scores: Mapping[str, float | None]
    frames: int
    may_pass: bool  # only a score can keep it from passing: no error, nothing unseen
    attributes: Mapping[str, str]
    group_id: str | None
    audit: bool | None
    label: Label | None
    audit_label: Label | None
    objectors: frozenset[str] = frozenset()  # checks that keep it from passing
    approved: bool | None = True  # it passes where nothing objects; None: the row does not tell

    @property
    def group(self) -> str:
        """The unit of sampling and resampling, where no audit says otherwise: its copies, its album, or itself.

        Items of the same bytes are copies, also where nobody looked for duplicates.
        """
        named = self.label.group if self.label is not None else ""
        return named or self.group_id or self.attributes.get("group") or self.content_hash or self.item_id


@dataclass(slots=True, kw_only=True)
class Population:
    """The labelled or drawn items of runs of one stack and one policy; verdicts, frames and rows are of all items.

    written: the policy with the actions that the runs withdrew for want of a certificate. withdrawn: these actions.
    """

    outs: tuple[str, ...]
    policy: Policy
    written: Policy
    withdrawn: tuple[str, ...]
    policy_path: str
    policy_hash: str
    stack_fingerprint: str
    items: list[JudgedItem] = field(default_factory=list)
    rows: int = 0
    frames: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    says_audit: bool = True

    @property
    def labelled(self) -> list[JudgedItem]:
        """Items with a label that is not in dispute."""
        return [item for item in self.items if item.label is not None and item.label.words is not None]

    @property
    def disputed(self) -> int:
        """Items whose reviewers disagree."""
        return sum(item.label is not None and item.label.words is None for item in self.items)


def read_population(
    outs: Sequence[str], labels: LabelTable, policy: str | None = None, *, check_labels: bool = True
) -> Population:
    """Items of finished runs with their labels.

    policy: a file instead of the one that the runs name. Raises UsageError where runs differ in stack or policy, where
    their policy's file has changed since, one is named twice, or (`check_labels`) where no label belongs to any item.
    """
    runs = [open_run(out) for out in outs]
    if not runs:
        raise UsageError("name at least one OUT")
    twice = [out for out, count in Counter(storage.canonical(out).rstrip("/") for out in outs).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]}: is named twice; its items would count twice")
    stack, judged_by = identity_of(runs[0])
    withdrawn = withdrawn_by(runs[0])
    rules = load_policy_of_run(runs[0], policy)
    if policy_hash(rules) != judged_by:
        # A policy file still has the actions that the run withdrew; the policy that the run keeps does not.
        rules = withdraw(rules, withdrawn)
    path = policy or runs[0].load_config().policy
    population = Population(
        outs=tuple(outs),
        policy=rules,
        written=as_written(rules, withdrawn, path),
        withdrawn=tuple(withdrawn),
        policy_path=path,
        policy_hash=policy_hash(rules),
        stack_fingerprint=stack,
    )
    for run in runs:
        _check_alike(run, population, stack, judged_by)
        _add_run(population, run, labels)
    if check_labels and not population.labelled and not population.disputed:
        raise UsageError(_no_match(labels, runs[0]))
    return population


def as_written(judged_by: Policy, withdrawn: Sequence[str], path: str) -> Policy:
    """The policy with the actions that the run withdrew; of a file that has changed since, with its default alone."""
    if not withdrawn:
        return judged_by
    if Path(path).is_file():
        written = load_whole_policy(Path(path))
        if certified_hash(withdraw(written, withdrawn)) == certified_hash(judged_by):
            return written
    return judged_by.model_copy(update={"default": "pass"}) if "pass:default" in withdrawn else judged_by


def withdrawn_by(run: StoredRun) -> list[str]:
    """The actions that the run withdrew because no certificate covered them."""
    identity = run.record.get("identity")
    return list(identity.get("withdrawn", ())) if isinstance(identity, dict) else []


def identity_of(run: StoredRun) -> tuple[str, str]:
    """(stack fingerprint, policy hash) by which a run was judged."""
    metadata = {k.decode(): v.decode() for k, v in (_first_part(run).schema.metadata or {}).items()}
    return metadata.get("moderation.stack_fingerprint", ""), metadata.get("moderation.policy_hash", "")


def _first_part(run: StoredRun) -> pa.Table:
    return read_intact(run.out, VERDICTS, run.shard_ids[0], run.format, ("item_id",), strict=False)


def _check_alike(run: StoredRun, population: Population, stack: str, judged_by: str) -> None:
    own_stack, own_policy = identity_of(run)
    same_policy = own_policy == judged_by or _differs_by_entries(run, population.policy, own_policy)
    for name, same in (("stack", own_stack == stack), ("policy", same_policy)):
        if not same:
            raise UsageError(
                f"{run.out}: was judged by another {name} than {population.outs[0]}: only runs of one stack and one"
                " policy are taken together (`evaluate` without --together compares them one by one)"
            )
    known = _is_hash(judged_by)
    if known and judged_by != population.policy_hash:
        raise UsageError(
            f"{population.policy_path}: is not the policy that {run.out} was judged by; name the"
            " file that the run had by --policy"
        )


def _differs_by_entries(run: StoredRun, policy: Policy, judged_by: str) -> bool:
    """Whether a run's policy, as OUT keeps it, differs only in entries of lists: these change every day."""
    kept = read_kept_policy(run.out, run.record)
    return kept is not None and policy_hash(kept) == judged_by and certified_hash(kept) == certified_hash(policy)


def _is_hash(text: str) -> bool:
    return len(text) == 64


def _add_run(population: Population, run: StoredRun, labels: LabelTable) -> None:
    checks = tuple(population.policy.checks)
    columns = (*_COLUMNS, *(score_column(check) for check in checks))
    for shard_id in run.shard_ids:
        table = read_intact(run.out, VERDICTS, shard_id, run.format, columns, strict=False)
        population.says_audit = population.says_audit and "audit" in table.column_names
        population.rows += len(table)
        population.frames += sum(table["frames_scored"].drop_null().to_pylist())
        population.verdicts.update(v for v in table["verdict"].to_pylist() if v is not None)
        population.items += _items_of(table, population, labels)


def _items_of(table: pa.Table, population: Population, labels: LabelTable) -> Iterator[JudgedItem]:
    keys = table.select(["item_id", "uri", "content_hash", "verdict"]).to_pylist()
    drawn = table["audit"].to_pylist() if "audit" in table.column_names else [None] * len(keys)
    found = [find_label(labels.labels, key) if key["verdict"] is not None else None for key in keys]
    kept = [i for i, (label, audit) in enumerate(zip(found, drawn, strict=True)) if label is not None or audit]
    for index, row in zip(kept, table.take(pa.array(kept, pa.int64())).to_pylist(), strict=True):
        yield _item_of(row, population, found[index], find_label(labels.audit, keys[index]))


def _item_of(
    row: Mapping[str, Any], population: Population, label: Label | None, audit_label: Label | None
) -> JudgedItem:
    policy = population.policy
    allowed_s, gap_s = policy.unseen.allowed_gap_s(row.get("duration_s")), row.get("widest_gap_s")
    gap = allowed_s is not None and gap_s is not None and gap_s > allowed_s
    scores = {check: row.get(score_column(check)) for check in policy.checks}
    attributes = dict(row["attributes"] or ())
    reason, frames = row["reason"] or "", row.get("frames_scored") or 0
    # What was reviewed though nothing objected passes only by what the run withdrew.
    actions = population.withdrawn if reason.startswith("default:review") else None
    return JudgedItem(
        item_id=row["item_id"],
        uri=row["uri"],
        content_hash=row.get("content_hash"),
        kind=row["kind"],
        verdict=row["verdict"],
        reason=reason,
        scores=scores,
        frames=frames,
        may_pass=row["error_code"] is None and not row.get("unseen") and not gap,
        attributes=attributes,
        group_id=row.get("group_id"),
        audit=row.get("audit"),
        label=label,
        audit_label=audit_label,
        objectors=find_objectors(policy, scores, attributes),
        approved=is_approved(population.written, scores, attributes, frames, actions),
    )


def _no_match(labels: LabelTable, run: StoredRun) -> str:
    for name, by_value in labels.labels.items():
        if by_value:
            example = next(iter(by_value))
            there = read_intact(run.out, VERDICTS, run.shard_ids[0], run.format, (name,), strict=False)
            own = str(there[name][0].as_py())[:200] if len(there) else "nothing"
            return (
                f"none of the {labels.rows:,} labels is of an item there: a label has {name} {example[:200]!r},"
                f" a row {own!r}"
            )
    return "no labels"


def score_array(items: Sequence[JudgedItem], check: str) -> F64:
    """A check's scores, NaN where null: float64 [N]."""
    return np.array([np.nan if (s := item.scores[check]) is None else s for item in items], np.float64)


def weights_of(items: Sequence[JudgedItem]) -> F64 | None:
    """float64 [N], 1/probability with which each item was drawn to be labelled; None where no label says one.

    Raises UsageError where only some labels say it: the others' weights are not known.
    """
    said = [None if item.label is None else item.label.probability for item in items]
    missing = said.count(None)
    if missing == len(said):
        return None
    if missing:
        raise UsageError(f"{missing:,} labels have no `probability`, {len(said) - missing:,} have one: all or none")
    return 1.0 / np.array(said, np.float64)


def group_numbers(items: Sequence[JudgedItem]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """(int64 [N] from 0, how many): the group of each item."""
    return number_groups(item.group for item in items)


def number_groups(groups: Iterable[str]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """(int64 [N] from 0, how many): groups numbered in the order in which they come first."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64), len(numbers)
