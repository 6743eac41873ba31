"""`moderation promote`: two runs of the same items held against labels and limits, and the pointer moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from moderation import storage
from moderation.config.load import read_yaml, validate
from moderation.errors import UsageError, one_line
from moderation.evaluation.bundle_store import (
    Pointer,
    Promotion,
    find_bundle,
    list_bundles,
    promote_bundle,
    read_bundle,
    read_pointer,
)
from moderation.evaluation.evaluate import LabelWords
from moderation.evaluation.gate import GateLimits, GateOutcome, Pair, compare
from moderation.evaluation.population import (
    JudgedItem,
    Population,
    as_written,
    identity_of,
    read_population,
    withdrawn_by,
)
from moderation.labels.label_files import read_labels
from moderation.labels.meaning import make_meaning
from moderation.labels.resolve import LabelTable, resolve_labels
from moderation.pages.render import render
from moderation.policy.certified import certified_hash
from moderation.results.certificates import certify_policy
from moderation.results.layout import PAGE_FILE, PROMOTION_FILE, summary_uri
from moderation.results.reader import load_policy_of_run, open_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How a candidate did. only_candidate, only_incumbent: labelled items that only one of the two has judged."""

    candidate: str
    incumbent: str
    outcome: GateOutcome
    limits: GateLimits
    only_candidate: int
    only_incumbent: int


def judge_candidate(
    candidate: str,
    incumbent: str,
    labels_uri: str,
    today: date,
    *,
    limits: GateLimits | None = None,
    words: LabelWords | None = None,
) -> Judged:
    """Hold the run of a candidate against that of the incumbent, over the same items. Raises UsageError."""
    limits = limits or GateLimits()
    labels = resolve_labels(read_labels(labels_uri))
    new, old = read_population([candidate], labels), read_population([incumbent], labels)
    pairs = _pair_up(new, old, labels, words or LabelWords())
    _, certification = certify_policy(new.policy, new.policy_path, new.stack_fingerprint, today=today)
    outcome = compare(
        pairs, limits, cost_ratio=_cost_ratio(candidate, incumbent), uncertified=certification.uncertified
    )
    return Judged(
        candidate=candidate,
        incumbent=incumbent,
        outcome=outcome,
        limits=limits,
        only_candidate=len(new.labelled) - len(pairs),
        only_incumbent=len(old.labelled) - len(pairs),
    )


def _pair_up(new: Population, old: Population, labels: LabelTable, words: LabelWords) -> list[Pair]:
    """The labelled items that both have judged; the checks of both together say which labels are bad."""
    # A label may name a check that only one of the two has, or that is negative in only one of them.
    sides = {name: str(c.side) for p in (old.policy, new.policy) for name, c in p.checks.items()}
    objecting = {name for p in (old.policy, new.policy) for name, c in p.checks.items() if c.side == "negative"}
    meaning = make_meaning({**sides, **dict.fromkeys(objecting, "negative")}, labels.words, words.bad, words.means)
    before = {item.item_id: item for item in old.labelled}
    pairs = [
        Pair(
            candidate=item.verdict,
            incumbent=before[item.item_id].verdict,
            bad=meaning.is_bad(_words(item)),
            group=item.group,
            slices={**item.attributes, "kind": item.kind},
        )
        for item in new.labelled
        if item.item_id in before and _is_same_content(item, before[item.item_id])
    ]
    if not pairs:
        raise UsageError(
            f"{new.outs[0]} and {old.outs[0]} have no labelled item in common, with the same content: run both over the"
            " same items"
        )
    return pairs


def _is_same_content(new: JudgedItem, old: JudgedItem) -> bool:
    """Whether both runs judged the same bytes; what either did not measure (an error, a video's cuts) may be."""
    return None in (new.content_hash, old.content_hash) or new.content_hash == old.content_hash


def _words(item: JudgedItem) -> frozenset[str]:
    assert item.label is not None
    return item.label.words or frozenset()


def _cost_ratio(candidate: str, incumbent: str) -> float | None:
    own, other = _seconds_a_frame(candidate), _seconds_a_frame(incumbent)
    return own / other if own and other else None


def _seconds_a_frame(out: str) -> float | None:
    data = storage.read_optional(summary_uri(out))
    try:
        summary: dict[str, Any] = json.loads(data) if data is not None else {}
        frames = float(summary["frames"])
        return float(summary["seconds"]["score"]) / frames if frames else None
    except (ValueError, KeyError, TypeError):
        return None


def read_limits(path: str | None) -> GateLimits:
    """Limits from a YAML file, or the usual ones. Raises UsageError naming a wrong key and the nearest right one."""
    return GateLimits() if path is None else validate(GateLimits, read_yaml(Path(path)), where=path)


def bundle_of(store: str, candidate: str, name: str | None = None) -> str:
    """The hash of the bundle that a candidate's run was made with; name: the expected one.

    Raises UsageError where the store has none or several of that stack and policy, or the named one differs in them.
    """
    population = read_population([candidate], resolve_labels([]), check_labels=False)
    own_facts = (population.stack_fingerprint, certified_hash(population.policy))
    if name is None:
        bundles = {bundle_hash: read_bundle(store, bundle_hash) for bundle_hash in list_bundles(store)}
        fitting = [h for h, b in bundles.items() if (b.stack_fingerprint, b.policy) == own_facts]
        if len(fitting) != 1:
            what = f"{len(fitting)} bundles have" if fitting else "no bundle has"
            advice = "name one by --bundle" if fitting else "`moderation bundle make` makes one"
            raise UsageError(f"{store}: {what} the stack and the policy of {candidate}; {advice}")
        return fitting[0]
    bundle_hash = find_bundle(store, name)
    bundle = read_bundle(store, bundle_hash)
    for what, own, wanted in zip(
        ("stack", "policy"), own_facts, (bundle.stack_fingerprint, bundle.policy), strict=True
    ):
        if own != wanted:
            raise UsageError(
                f"{candidate}: was judged by another {what} than the bundle {bundle_hash[:12]} holds; run"
                f" `moderation backfill --bundle {bundle_hash[:12]}` over the same items"
            )
    return bundle_hash


def describe_live(store: str, incumbent: str) -> str | None:
    """A sentence where the incumbent's run is not one of the live bundle; None where it is, or none is live."""
    pointer = read_pointer(store)
    if pointer is None:
        return None
    try:
        live = read_bundle(store, pointer.bundle)
    except UsageError as error:
        return one_line(error, 300)  # what is live is not there any more: the more reason to promote another one
    run = open_run(incumbent)
    # A run that withdrew actions was judged by less than its bundle's policy says.
    policy = as_written(load_policy_of_run(run), withdrawn_by(run), run.load_config().policy)
    for what, own, wanted in (
        ("stack", identity_of(run)[0], live.stack_fingerprint),
        ("policy", certified_hash(policy), live.policy),
    ):
        if own != wanted:
            return (
                f"{incumbent}: was judged by another {what} than {pointer.bundle[:12]}, which is live: the candidate"
                " was not compared with what it takes the place of"
            )
    return None


def write_judged(judged: Judged, to: str) -> str:
    """`promotion.json` and the page with reasons; its URI."""
    record: Mapping[str, Any] = {**asdict(judged), "limits": judged.limits.model_dump()}
    storage.publish(storage.join(to, PROMOTION_FILE), json.dumps(record, indent=1, ensure_ascii=False).encode())
    page = storage.join(to, PAGE_FILE)
    storage.publish(page, render("promotion.html", judged=judged, outcome=judged.outcome).encode())
    return page


def move_pointer(store: str, bundle_hash: str, at: datetime, judged: Judged, report: str) -> Pointer:
    """Make the candidate live."""
    reason = "; ".join(f"{check.name}: {check.reason}" for check in judged.outcome.checks)
    return promote_bundle(store, Promotion(bundle=bundle_hash, at=at, reason=reason[:4000], report=report))
