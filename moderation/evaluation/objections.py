"""What else than one check keeps an item from passing, as far as a verdicts row tells it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from moderation.policy.check import Check
from moderation.policy.model import Policy
from moderation.policy.thresholds import as_float32, bind_thresholds, fitting, strictest
from moderation.policy.vouched import bind_vouch
from moderation.policy.vouching import Vouch

Scores = Mapping[str, float | None]


def find_objectors(policy: Policy, scores: Scores, attributes: Mapping[str, str]) -> frozenset[str]:
    """The checks that keep an item from passing: negative ones over a threshold, any whose null is reviewed."""
    return frozenset(_objectors(policy, scores, attributes))


def _objectors(policy: Policy, scores: Scores, attributes: Mapping[str, str]) -> Iterator[str]:
    for name, check in policy.checks.items():
        score = scores[name]
        if score is None:
            # A check of a cascade may only not have been asked, because another one stopped before it.
            if check.null_is_review and check.order is None:
                yield name
        elif check.side == "negative" and _reaches(score, _lowest_objection(check, attributes)):
            yield name


def is_approved(
    policy: Policy, scores: Scores, attributes: Mapping[str, str], frames: int, actions: Collection[str] | None = None
) -> bool | None:
    """Whether an item passes where nothing objects: by default, by a positive check or by a positive rule.

    actions: only these (`pass:default`, `pass:vouch:plain`) are asked; None: all. None: a positive rule may hold; of an
    item of several frames, or of what it is declared as, only the votes tell.
    """

    def may(action: str) -> bool:
        return actions is None or action in actions

    checks = ((name, check) for name, check in policy.checks.items() if may(f"pass:{name}"))
    if policy.default == "pass" and may("pass:default"):
        return True
    if any(_reaches(scores[name], _own_pass(check, attributes)) for name, check in checks):
        return True
    negative = [name for name, check in policy.checks.items() if check.side == "negative"]
    rules = [
        rule for name, rule in policy.vouch.items() if may(f"pass:vouch:{name}") and _may_hold(rule, scores, negative)
    ]
    if frames == 1 and any(rule.declared is None for rule in rules):
        return True
    return None if rules else False


def _may_hold(rule: Vouch, scores: Scores, negative: list[str]) -> bool:
    bound = bind_vouch("", rule.model_copy(update={"declared": None}), negative, {})
    return all(_reaches(scores[name], least) for name, least in bound.at_least.items()) and all(
        scores[name] is not None and not _reaches(scores[name], limit) for name, limit in bound.below.items()
    )


def _lowest_objection(check: Check, attributes: Mapping[str, str]) -> float | None:
    own = strictest(fitting(bind_thresholds(check), attributes))
    review = as_float32(check.review) if own.review is None else own.review
    block = as_float32(check.block) if own.block is None else own.block
    return block if review is None else review


def _own_pass(check: Check, attributes: Mapping[str, str]) -> float | None:
    own = strictest(fitting(bind_thresholds(check), attributes)).pass_
    return as_float32(check.pass_) if own is None else own


def _reaches(score: float | None, threshold: float | None) -> bool:
    return score is not None and threshold is not None and score >= threshold
