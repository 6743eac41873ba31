"""What else than one check keeps an item from passing, as far as a verdicts row tells it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moderation.policy.check import Check
from moderation.policy.model import Policy
from moderation.policy.thresholds import as_float32, bind_thresholds, fitting, strictest

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


def is_approved(policy: Policy, scores: Scores, attributes: Mapping[str, str]) -> bool:
    """Whether an item passes where nothing objects: by default or a positive check, or perhaps by a positive rule."""
    if policy.default == "pass" or policy.vouch:
        return True
    return any(_reaches(scores[name], _own_pass(check, attributes)) for name, check in policy.checks.items())


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
