"""A new policy, list or decision applied to everything that was ever judged: which verdicts change, and why.

    TO/sweep.json   what was swept, counts by run and by rule, examples; written last, with `state: done`
    TO/changes/     the changed verdicts: see `sweep_changes`

Stored votes, hashes and embeddings are enough: no picture is read. Nothing of a run is changed, and the same call goes
on where a killed one ended.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, Final

from moderation import storage
from moderation.analysis.part_processes import work_by_processes
from moderation.analysis.sweep_by_decision import HELD, CopyLimits
from moderation.analysis.sweep_changes import SweepCounts, began_at_before, ended_at_before, read_sweep, rule_of
from moderation.analysis.sweep_judging import JudgingSettings, certified_settings, own_policy
from moderation.analysis.sweep_parts import SweepSettings, brief, settings_of, sweep_portions
from moderation.analysis.sweep_sources import SweepSources, SweptPart, first_parts
from moderation.analysis.sweep_targets import SweepTarget
from moderation.concurrency import usable_cores
from moderation.config.canonical import canonical_json
from moderation.errors import UsageError
from moderation.labels.effective import effective_decisions
from moderation.policy.entries import ListRule, entries_digest
from moderation.policy.model import Policy, policy_hash
from moderation.results.certificates import Certification, certify_policy
from moderation.results.sweep_layout import sweep_uri
from moderation.version import __version__

# Parts per portion: 16,000 items or so, a second of work, and a file each.
_PORTION_PARTS: Final = 64
_MODULE: Final = "moderation.analysis.sweep_parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepChange:
    """What is applied: one of a policy, lists by name, decided items. name: what the record calls it.

    Of a policy it is its file: certificates lie beside it.
    """

    name: str
    policy: Policy | None = None
    lists: Mapping[str, ListRule] | None = None
    targets: tuple[SweepTarget, ...] = ()
    limits: CopyLimits | None = None

    @property
    def kind(self) -> str:
        """`policy`, `list` or `decision`."""
        return "policy" if self.policy is not None else "list" if self.lists is not None else "decision"

    @property
    def judges_by_own_policy(self) -> bool:
        """Whether items are judged again by the policy of their run: what is allowed, or passed."""
        allowing = any(rule.action == "allow" for rule in (self.lists or {}).values())
        return allowing or any(target.verdict not in ("block", HELD) for target in self.targets)

    def identity(self) -> dict[str, Any]:
        """What makes it the same: hashes, no locations."""
        if self.policy is not None:
            return {"policy": policy_hash(self.policy)}
        if self.lists is not None:
            rules = {
                name: rule.model_dump(mode="json", exclude={"entries", "from_"}) for name, rule in self.lists.items()
            }
            return {"lists": {n: [rules[n], entries_digest(self.lists[n].entries or ())] for n in rules}}
        limits = {} if self.limits is None else asdict(self.limits)
        return {"targets": [target.as_json() for target in self.targets], "limits": limits}


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The outcome of a sweep. moved: (verdict before, after) -> items. by_run: run -> `a -> b` -> items.

    rules: (reason before, after) -> items, those with the most items first. lost: runs that are gone -> their items.
    certificates: run -> what they say of the policy; of runs for which something is promised.
    """

    sweep_id: str
    to: str | None
    items: int
    skipped: int
    deleted: int
    unread: tuple[str, ...]
    unread_parts: int
    unread_items: int
    kept: int
    changed: int
    moved: dict[tuple[str, str], int]
    by_run: dict[str, dict[str, int]]
    rules: dict[tuple[str, str], int]
    examples: dict[tuple[str, str], list[dict[str, Any]]]
    lost: dict[str, int]
    left_out: dict[str, str]
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)


def sweep(
    sources: SweepSources,
    change: SweepChange,
    to: str | None,
    *,
    as_of: date | None = None,
    earlier: Sequence[str] = (),
    leave_out: bool = False,
    workers: int | None = None,
) -> Swept:
    """Apply a change to all parts of `sources`; writes the changed verdicts into `to` (None: writes nothing).

    as_of: the day by which entries of lists have ended. earlier: sweeps, the oldest first, whose verdicts hold instead
    of the stored ones. leave_out: leave out runs that lack a vote which the policy names, instead of refusing.
    Raises UsageError before any work where a run lacks a vote, or `to` holds something else.
    """
    earlier = tuple(storage.canonical(uri).rstrip("/") for uri in earlier)
    judging, left_out = _check_runs(sources, change, as_of, leave_out=leave_out)
    parts = [part for part in sources.parts if part.run in judging]
    if not parts:
        raise UsageError("every run was left out: none has the votes that the policy names")
    day = None if as_of is None else as_of.isoformat()
    by_policy = {sources.runs[run].out: own for run, own in judging.items() if own}
    withdrawn = {out: own["withdrawn"] for out, own in by_policy.items() if own["withdrawn"]}
    identity = {
        "change": change.identity(),
        "sources": replace(sources, parts=tuple(parts)).digest(),
        "earlier": list(earlier),
        "as_of": day,
        **({"withdrawn": withdrawn} if withdrawn else {}),
    }
    sweep_id = hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]
    to = None if to is None else storage.canonical(to).rstrip("/")
    if to is not None:
        _check_to(to, sources, sweep_id)
        moments = {"began_at": began_at_before(to) or datetime.now(UTC).isoformat(), "ended_at": ended_at_before(to)}
        _write_record(to, {"sweep_id": sweep_id, "kind": change.kind, "state": "running", **moments})
    settings = _settings(sources, change, judging, sweep_id=sweep_id, to=to, earlier=earlier, as_of=day)
    certificates = {out: own["certificates"] for out, own in by_policy.items() if own["certificates"]}
    swept = _summed(_work(settings, parts, workers), sources, sweep_id, to, left_out)
    swept = replace(swept, certificates=certificates)
    if to is not None:
        moments = moments | {"ended_at": moments["ended_at"] or datetime.now(UTC).isoformat(timespec="seconds")}
        _write_record(to, {**_record(swept, change, sources, identity), "state": "done", **moments})
    return swept


def _check_runs(
    sources: SweepSources, change: SweepChange, as_of: date | None, *, leave_out: bool
) -> tuple[dict[int, dict[str, Any] | None], dict[str, str]]:
    """Index of each run that is swept -> what judging it takes; and the runs that are left out, with the reason."""
    judging: dict[int, dict[str, Any] | None] = {}
    left_out: dict[str, str] = {}
    certified: dict[str, tuple[Policy, Certification]] = {}  # by stack
    for run, shard_id in first_parts(sources):
        judging[run] = None
        try:
            if change.policy is not None:
                stack = sources.runs[run].stack_fingerprint
                if stack not in certified:
                    certified[stack] = certify_policy(change.policy, change.name, stack)
                own, said = certified_settings(sources.runs[run], *certified[stack], shard_id, as_of)
                judging[run] = {**asdict(own), "certificates": said}
            elif change.judges_by_own_policy:
                own_policy(sources.runs[run])
        except UsageError as error:
            del judging[run]
            left_out[sources.runs[run].out] = str(error)
    if left_out and not leave_out:
        shown = "\n".join(f"{out}: {why}" for out, why in list(left_out.items())[:5])
        raise UsageError(
            f"{shown}\n--leave-out sweeps the other runs ({len(left_out):,} of {len(sources.runs):,} lack this)"
        )
    return judging, left_out


def _check_to(to: str, sources: SweepSources, sweep_id: str) -> None:
    for home in (*(run.out for run in sources.runs), *sources.ledgers):
        home = storage.canonical(home).rstrip("/")
        if f"{to}/".startswith(f"{home}/"):
            raise UsageError(f"--to {to}: lies in {home}, whose tables stay as they are; name a folder beside it")
    record = read_sweep(to)
    if record is not None and record.get("sweep_id") != sweep_id:
        raise UsageError(f"--to {to}: holds another sweep ({str(record.get('sweep_id'))[:40]}); choose another folder")
    if record is None and storage.list_names(to):
        raise UsageError(f"--to {to}: is not empty and holds no sweep; choose another folder")


def _settings(
    sources: SweepSources,
    change: SweepChange,
    judging: Mapping[int, dict[str, Any] | None],
    *,
    sweep_id: str,
    to: str | None,
    earlier: tuple[str, ...],
    as_of: str | None,
) -> SweepSettings:
    empty = asdict(JudgingSettings())
    runs = [
        {
            "out": run.out,
            "format": run.format,
            "record": brief(run.record),
            "judging": judging.get(place) or empty,
        }
        for place, run in enumerate(sources.runs)
    ]
    policy, lists = change.policy, change.lists
    return SweepSettings(
        sweep_id=sweep_id,
        to=to,
        runs=tuple(runs),
        earlier=earlier,
        as_of=as_of,
        policy=None if policy is None else settings_of(policy),
        lists=None if lists is None else {name: settings_of(rule) for name, rule in lists.items()},
        targets=tuple(target.as_json() for target in change.targets),
        limits=None if change.limits is None else asdict(change.limits),
        decided=() if lists is not None else tuple(effective_decisions([run.out for run in sources.runs])),
    )


def _work(settings: SweepSettings, parts: Sequence[SweptPart], workers: int | None) -> SweepCounts:
    # Made when a process asks for it: the ids of all items at once would be as large as the ledger.
    portions = (
        [number, [part.as_json() for part in parts[start : start + _PORTION_PARTS]]]
        for number, start in enumerate(range(0, len(parts), _PORTION_PARTS))
    )
    processes = min(workers or usable_cores(), -(-len(parts) // _PORTION_PARTS))
    if processes == 1:
        work = sweep_portions(settings)
        answers = list(map(work, portions))
    else:
        answers = work_by_processes(_MODULE, settings.to_json(), portions, processes, what="sweeps parts")
    counts = SweepCounts()
    for answer in answers:
        counts.add(SweepCounts.from_json(answer))
    return counts


def _summed(
    counts: SweepCounts, sources: SweepSources, sweep_id: str, to: str | None, left_out: dict[str, str]
) -> Swept:
    moved: Counter[tuple[str, str]] = Counter()
    by_run: dict[str, dict[str, int]] = {}
    for key, items in sorted(counts.moved.items()):
        run, old, new = key.split("\t")
        moved[old, new] += items
        by_run.setdefault(run, {})[f"{old} -> {new}"] = items
    rules = {rule_of(key): items for key, items in sorted(counts.rules.items(), key=lambda rule: (-rule[1], rule[0]))}
    return Swept(
        sweep_id=sweep_id,
        to=to,
        items=counts.items,
        skipped=counts.skipped,
        deleted=sources.deleted,
        unread=tuple(counts.unread),
        unread_parts=counts.unread_parts,
        unread_items=counts.unread_items,
        kept=counts.kept,
        changed=sum(moved.values()),
        moved=dict(moved),
        by_run=by_run,
        rules=rules,
        examples={rule_of(key): rows for key, rows in counts.examples.items()},
        lost=sources.lost,
        left_out=left_out,
    )


def _record(swept: Swept, change: SweepChange, sources: SweepSources, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {**swept_as_json(swept), "kind": change.kind, "name": change.name, "identity": identity,
            "runs": [run.out for run in sources.runs], "ledgers": list(sources.ledgers),
            "code_version": __version__}  # fmt: skip


def swept_as_json(swept: Swept) -> dict[str, Any]:
    """A sweep as plain data: counts by run, by rule with examples."""
    rules = [
        {"before": before, "after": after, "items": items, "examples": swept.examples.get((before, after), [])}
        for (before, after), items in swept.rules.items()
    ]
    moved = {f"{before} -> {after}": items for (before, after), items in sorted(swept.moved.items())}
    tree = asdict(replace(swept, moved={}, rules={}, examples={}))
    del tree["examples"]
    return {**tree, "moved": moved, "rules": rules}


def _write_record(to: str, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(sweep_uri(to), text.encode("utf-8", "surrogatepass"))
