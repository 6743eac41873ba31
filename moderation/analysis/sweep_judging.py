"""Judging stored items again within a sweep: by another policy, or by their run's own with other lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderation.analysis.sweep_tables import StoredPart, judging_columns
from moderation.errors import UsageError
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.entries import ListRule
from moderation.policy.model import Policy
from moderation.results.asked import read_digests, with_asked
from moderation.results.certificates import Certification, certify_policy
from moderation.results.decided import read_kept_policy
from moderation.results.judged import Ruled, judge_verdicts
from moderation.results.reader import StoredRun, load_policy_of_run
from moderation.results.votes import disabled_votes, needed_asks, policy_votes, vote_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingSettings:
    """What judging the votes of a run takes besides the policy. asks: questions that were asked afterwards.

    withdrawn: actions of the policy that go to review, because it requires certificates and none covers them.
    """

    asks: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    as_of: str | None = None
    withdrawn: tuple[str, ...] = ()


def judging_settings(run: StoredRun, policy: Policy, shard_id: str, as_of: date | None) -> JudgingSettings:
    """What judging a run by a policy takes. Raises UsageError naming a vote that it did not cast, and the nearest."""
    wanted = policy_votes(policy)
    disabled = disabled_votes(run.load_config(), wanted)
    votes = run.read_votes(shard_id)
    asks = needed_asks(run.votes_out, wanted, vote_labels(votes))
    if asks:
        votes = with_asked(votes, run.votes_out, shard_id, asks, run.format)
    day = run.day(policy, as_of)
    bind(policy, vote_labels(votes), disabled=disabled, as_of=day)
    return JudgingSettings(asks=asks, disabled=disabled, as_of=None if day is None else day.isoformat())


def certified_settings(
    run: StoredRun, holding: Policy, certification: Certification, shard_id: str, as_of: date | None
) -> tuple[JudgingSettings, dict[str, Any] | None]:
    """What judging a run takes, and what certificates say of the policy; None: nothing is promised.

    holding, certification: of the stack of the run, by `certify_policy`. Raises as `judging_settings`.
    """
    settings = judging_settings(run, holding, shard_id, as_of)
    if certification.withdrawn:
        settings = replace(settings, withdrawn=tuple(sorted(certification.uncertified)))
    is_promised = certification.withdrawn or certification.expires is not None
    return settings, certification.as_json() if is_promised else None


@dataclass(slots=True, kw_only=True)
class StoredJudge:
    """Judges the votes of one run by one policy, which is bound once per set of columns."""

    run: StoredRun
    policy: Policy
    settings: JudgingSettings
    _bound: dict[tuple[str, ...], BoundPolicy] = field(default_factory=dict)
    _digests: Any = None

    def judge(self, part: StoredPart, item_ids: Sequence[str] | None = None) -> dict[str, Ruled] | list[Ruled]:
        """Verdict and reason of each row of the part; with item_ids, of these alone, by id."""
        columns = judging_columns(self.policy.votes(), with_lists=bool(self.policy.lists))
        votes, verdicts = part.votes(columns), part.verdicts
        if self.settings.asks:
            self._digests = self._digests or read_digests(self.run.votes_out, self.settings.asks)
            votes = with_asked(
                votes, self.run.votes_out, part.shard_id, self.settings.asks, self.run.format, self._digests
            )
        if item_ids is None:
            return judge_verdicts(verdicts, votes, self._bind(votes))
        ids = pa.array(list(item_ids), pa.string())
        verdicts, votes = (table.filter(pc.is_in(table["item_id"], value_set=ids)) for table in (verdicts, votes))
        ruled = judge_verdicts(verdicts, votes, self._bind(votes))
        return dict(zip(verdicts["item_id"].to_pylist(), ruled, strict=True))

    def _bind(self, votes: pa.Table) -> BoundPolicy:
        labels = vote_labels(votes)
        if labels not in self._bound:
            day = None if self.settings.as_of is None else date.fromisoformat(self.settings.as_of)
            self._bound[labels] = bind(self.policy, labels, disabled=self.settings.disabled, as_of=day)
        return self._bound[labels]


def own_policy(run: StoredRun) -> Policy:
    """The policy by which a run decided. Raises UsageError where it is not kept, and its file is gone."""
    try:
        kept = read_kept_policy(run.out, run.record)
        # What a run kept is without what was not certified; its file is not.
        return kept or certify_policy(load_policy_of_run(run), run.load_config().policy, run.stack_fingerprint)[0]
    except UsageError as error:
        raise UsageError(f"{run.out}: its policy is not known, so a pass cannot be judged: {error}") from error


class OwnJudges:
    """Judges of runs by their own policies, with lists added and entries of deny-lists taken out."""

    def __init__(
        self, as_of: date | None, added: Mapping[str, ListRule], removed: Callable[[ListRule], Collection[str]]
    ) -> None:
        """added: lists by name. removed: the values that no longer count in a deny-list."""
        self._as_of = as_of
        self._added = added
        self._removed = removed
        self._judges: dict[str, StoredJudge] = {}

    def judge(self, part: StoredPart, item_ids: Sequence[str]) -> dict[str, Ruled]:
        """Verdict and reason of some items of a part, by id."""
        run = part.run
        if run.out not in self._judges:
            policy = self._changed(own_policy(run))
            settings = judging_settings(run, policy, part.shard_id, self._as_of)
            self._judges[run.out] = StoredJudge(run=run, policy=policy, settings=settings)
        ruled = self._judges[run.out].judge(part, item_ids)
        assert isinstance(ruled, dict)
        return ruled

    def _changed(self, policy: Policy) -> Policy:
        kept = {self._free_name(name, policy): self._without(rule) for name, rule in policy.lists.items()}
        return policy.model_copy(update={"lists": {**kept, **self._added}})

    def _free_name(self, name: str, policy: Policy) -> str:
        """A name for a list of the policy: one that is added under its name must not take its place."""
        taken = name in self._added
        while taken:
            name += "_"
            taken = name in self._added or name in policy.lists
        return name

    def _without(self, rule: ListRule) -> ListRule:
        gone = set(self._removed(rule)) if rule.action == "deny" else set()
        if not gone:
            return rule
        return rule.model_copy(update={"entries": tuple(e for e in rule.entries or () if e.value not in gone)})
