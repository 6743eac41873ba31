"""What every section of a configuration has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """A part of a configuration: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
