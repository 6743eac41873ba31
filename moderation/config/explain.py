"""The section `explain` of a configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from moderation.config.section import ConfigSection


class ExplainConfig(ConfigSection):
    """How `moderation explain` finds the part of a picture that a score rests on; changes no score."""

    window_px: int = Field(
        default=64, ge=8, le=512, description="side of the square that is covered, in pixels of the detector's view"
    )
    stride_px: int = Field(default=16, ge=2, le=512, description="from one square to the next; at most window_px")
    cover: Literal["local_mean", "picture_mean", "grey", "black"] = Field(
        default="local_mean",
        description="what covers: the mean of the square around each pixel, that of the whole view, middle grey, black",
    )
    overlay_px: int = Field(default=512, ge=128, le=2048, description="long side of the picture in an overlay")

    @model_validator(mode="after")
    def _leaves_no_gap(self) -> ExplainConfig:
        if self.stride_px > self.window_px:
            raise ValueError(f"stride_px {self.stride_px} is over window_px {self.window_px}: parts would be left out")
        return self
