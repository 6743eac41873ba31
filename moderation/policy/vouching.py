"""Positive rules of more than one check: "a person and nothing else", "the scene is the declared category"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from moderation.policy.section import PolicySection

Score = Annotated[float, Field(ge=0, le=1)]


class Declared(PolicySection):
    """The label that an attribute of the item names must score highest of these votes, on every frame."""

    attribute: str = Field(min_length=1, description="what says it: `category`")
    votes: tuple[str, ...] = Field(min_length=2, description="the labels among which it must be the highest")
    values: Mapping[str, str] = Field(
        default={}, description="value of the attribute -> label; none: the label's name behind the dot is the value"
    )
    least: float = Field(default=0.5, ge=0, le=1, description="what it must score on every frame")

    @model_validator(mode="after")
    def _values_are_among_the_votes(self) -> Declared:
        if len(set(self.votes)) < len(self.votes):
            raise ValueError("the same label twice")
        if not self.values and len({label.partition(".")[2] for label in self.votes}) < len(self.votes):
            raise ValueError("two detectors have labels of one name; say by `values` which is meant")
        for value, label in self.values.items():
            if label not in self.votes:
                raise ValueError(f"values: {value!r} stands for {label!r}, which is not among the votes")
        return self


class Vouch(PolicySection):
    """Passes an item for which all of it holds and no negative check objects; every frame must have every score."""

    at_least: Mapping[str, Score] = Field(default={}, description="positive check or attribute -> its least score")
    below: Mapping[str, Score] = Field(default={}, description="negative check or attribute -> no frame reaches this")
    others_below: Score | None = Field(default=None, description="as `below`, for all negative checks not named there")
    declared: Declared | None = None

    def declared_votes(self) -> tuple[str, ...]:
        """The votes that the rule reads itself, not by a check."""
        return self.declared.votes if self.declared is not None else ()

    @field_validator("at_least", "below", mode="after")
    @classmethod
    def _sorted_by_name(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _vouches_for_something(self) -> Vouch:
        if not self.at_least and self.declared is None:
            raise ValueError("needs `at_least` or `declared`: that nothing was found vouches for nothing")
        both = sorted(set(self.at_least) & set(self.below))
        if both:
            raise ValueError(f"{both[0]!r} stands in `at_least` and in `below`")
        return self
