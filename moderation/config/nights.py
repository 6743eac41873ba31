"""The parts of a configuration that nights alone use."""

from __future__ import annotations

from pydantic import Field

from moderation.config.section import ConfigSection


class MonitorConfig(ConfigSection):
    """What a night holds against labels and against a reference; see docs/certificates.md."""

    labels: str | None = Field(
        default=None, description="file or object of labels; new ones of the audit are held against the certificates"
    )
    bad: tuple[str, ...] = Field(default=(), description="labels that are bad, as `--bad` of certify")
    means: tuple[str, ...] = Field(default=(), description="CHECK=LABEL, as `--means` of certify")
    reference: str | None = Field(
        default=None, description="OUT of a finished run or night: every score's distribution is held against it"
    )


class LearnConfig(ConfigSection):
    """What a night learns from what reviewers have decided; see docs/after.md."""

    to: str | None = Field(
        default=None,
        description="file of learned lists, .csv .parquet .arrow; the policy's lists name it, and are read after it",
    )
    decisions: tuple[str, ...] = Field(
        default=(), description="outputs of other runs with decisions, besides all nights of OUT"
    )
    near: int | None = Field(
        default=15,
        ge=0,
        le=47,
        description="bits in which a copy of a blocked picture may differ; null: the same bytes",
    )
    near_pass: int | None = Field(
        default=None, ge=0, le=47, description="the same for what was passed; a near copy may have been altered"
    )
    days: int | None = Field(default=365, ge=1, le=36_500, description="how long an entry counts; null: without an end")
    sweep: bool = Field(
        default=True, description="apply new and overturned decisions to all that the ledger has: OUT/sweeps/<night>/"
    )
