"""The base of every part of a policy file, and its smallest part."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PolicySection(BaseModel):
    """A part of a policy file: frozen, no unknown keys, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Unseen(PolicySection):
    """How much of an item must have been looked at before it may pass; else it goes to review, `unseen:<what>`.

    A picture track or a second picture that was not looked at always goes to review (`unseen:track`).
    """

    max_gap_s: float | None = Field(
        default=10.0, gt=0, description="widest time between two scored frames of a video or animation; null: any"
    )
    long_s: float = Field(default=3600.0, gt=0, description="from this length on, long_max_gap_s holds instead")
    long_max_gap_s: float | None = Field(default=60.0, gt=0, description="null: any")

    def allowed_gap_s(self, duration_s: float | None) -> float | None:
        """The widest gap that an item of this length may have; None: any."""
        return self.long_max_gap_s if duration_s is not None and duration_s >= self.long_s else self.max_gap_s
